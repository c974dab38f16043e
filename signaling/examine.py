"""Whether the nodes can meet: what ``icebroker doctor`` says of Redis."""

from typing import NamedTuple

from redis.exceptions import AuthenticationError, RedisError

from config.schema import RedisSettings
from signaling.broker.primary import Finder, Unfit, identify


class Finding(NamedTuple):
    """How it is; ``next`` says what to do where it is not well."""

    status: str
    """ok · warn · fail"""
    says: str
    next: str = ""


async def examine_redis(settings: RedisSettings) -> Finding:
    """Find the Redis of the settings and ask it what the broker would."""
    address = settings.address()
    if address is None:
        return Finding("ok", "none is configured: this node stands alone")
    hosts = ", ".join(str(host) for host in address.hosts)
    authority = str(settings.ca_certificate) if settings.ca_certificate else None
    finder = Finder(address, "{" + settings.prefix + "}", authority)
    try:
        primary = await finder.find()
        async with finder.open(primary, "icebroker-doctor") as connection:
            identity = await identify(connection)
    except AuthenticationError as error:
        return Finding("fail", f"Redis at {hosts} refuses the password: {error}", "mend redis.url")
    except Unfit as error:
        return Finding("fail", f"Redis at {hosts}: {error}", "see the comments of redis.url")
    except (RedisError, OSError) as error:
        why = str(error) or "no answer"
        return Finding(
            "fail",
            f"Redis at {hosts} cannot be reached: {why}",
            "start it, open its port, or mend redis.url; until then nobody can join a room",
        )
    if not identity.keeps:
        return Finding(
            "warn",
            f"Redis at {primary} forgets keys when its memory is full",
            "CONFIG SET maxmemory-policy noeviction",
        )
    return Finding("ok", f"{primary} is the primary, and fit")
