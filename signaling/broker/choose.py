"""Which broker the settings ask for."""

from config.schema import RedisSettings
from config.webhooks.waiting import WaitingEvents
from signaling.broker.memory import MemoryBroker
from signaling.broker.primary import Finder
from signaling.broker.redis import RedisBroker


def choose_broker(
    redis: RedisSettings, most_messages: int, most_bytes: int, *, webhooks: bool | None = False
) -> MemoryBroker | RedisBroker:
    """The embedded broker, or Redis.

    :param most_messages: that a mailbox holds; ``most_bytes`` likewise.
    :param webhooks: somebody is to be told what becomes of rooms and peers; None: if other nodes
        have it so.
    """
    address = redis.address()
    if address is None:
        waiting = WaitingEvents(nowhere={"room": ""}) if webhooks else None
        return MemoryBroker(most_messages, most_bytes, waiting)
    finder = Finder(address, "{" + redis.prefix + "}", redis.tls())
    return RedisBroker(
        finder, redis.prefix, most_messages, most_bytes, lease=redis.lease, webhooks=webhooks
    )
