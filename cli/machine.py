"""What this machine brings: addresses that clients may know it by, and a certificate for them."""

from pathlib import Path

from config.certificate import self_signed
from config.ice import UrlGroup
from config.ice import relay_urls as urls_of
from config.load import ConfigError
from config.turn import TurnSettings
from turn.transport.addresses import local_addresses, relay_candidates


def hosts() -> list[str]:
    """What a wildcard stands for, the best address first."""
    return [host for hosts in relay_candidates(local_addresses()).values() for host in hosts]


def relay_urls(turn: TurnSettings) -> list[UrlGroup]:
    """The ICE URLs of our own relay, as clients of this machine are told them."""
    return urls_of(turn, hosts())


def lan_certificate() -> dict[str, Path]:
    """The settings of a certificate for this machine in its network.

    :raises ConfigError: it cannot be kept.
    """
    try:
        certificate, key = self_signed(local_addresses())
    except OSError as error:
        raise ConfigError([f"the certificate for --lan cannot be kept: {error}"]) from None
    return {"tls_certificate": certificate, "tls_key": key}
