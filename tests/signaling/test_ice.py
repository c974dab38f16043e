"""What is handed out follows the machine that it is of."""

import errno

from signaling.ice import LOOK_AGAIN, IceProvider, Server

NOW = 1_800_000_000.0


def test_a_new_address_of_the_machine_is_handed_out():
    urls = ["turn:192.0.2.1:3478"]
    provider = IceProvider(lambda: [Server(tuple(urls))], "a secret of sixteen bytes", 3600)
    assert provider.issue("anna", NOW).uris == ["turn:192.0.2.1:3478"]
    urls[0] = "turn:192.0.2.2:3478"
    assert provider.issue("anna", NOW + LOOK_AGAIN).uris == ["turn:192.0.2.1:3478"]
    assert provider.issue("anna", NOW + LOOK_AGAIN + 1).uris == ["turn:192.0.2.2:3478"]


def test_where_the_machine_cannot_be_asked_what_was_found_before_holds():
    found = iter([[Server(("turn:192.0.2.1:3478",))]] * 2)

    def find():
        try:
            return next(found)
        except StopIteration:
            raise OSError(errno.EMFILE, "no descriptors left") from None

    provider = IceProvider(find, "a secret of sixteen bytes", 3600)
    for later in (0, LOOK_AGAIN + 1):
        assert provider.issue("anna", NOW + later).uris == ["turn:192.0.2.1:3478"]


def test_a_clock_that_jumps_back_delays_nothing():
    urls = ["turn:192.0.2.1:3478"]
    provider = IceProvider(lambda: [Server(tuple(urls))], "a secret of sixteen bytes", 3600)
    provider.issue("anna", NOW)
    urls[0] = "turn:192.0.2.2:3478"
    assert provider.issue("anna", NOW - 86400).uris == ["turn:192.0.2.2:3478"]


def test_a_relay_without_a_secret_is_left_out():
    provider = IceProvider(
        lambda: [Server(("stun:192.0.2.1:3478",)), Server(("turn:192.0.2.1:3478",))], "", 3600
    )
    grant = provider.issue("anna", NOW)
    assert grant.ice_servers == [{"urls": ["stun:192.0.2.1:3478"]}]
    assert provider.issued == 0
