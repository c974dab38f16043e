"""The machine's own addresses: which, in what order, and word of their changes."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from tests.descriptors import none_left
from tests.patience import until
from turn.codec.values import Family
from turn.transport import addresses
from turn.transport.addresses import AddressWatch, local_addresses, relay_candidates


def test_local_addresses_are_canonical_and_can_all_be_bound():
    found = local_addresses()
    assert "127.0.0.1" in found
    assert len(found) == len(set(found))
    for host in found:
        assert str(ip_address(host)) == host
        assert not (":" in host and ip_address(host).is_link_local)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))


class TestCandidates:
    @pytest.fixture(autouse=True)
    def _default_route(self, monkeypatch):
        primary = {Family.IPV4: "192.0.2.2", Family.IPV6: "2001:db8::2"}
        monkeypatch.setattr(addresses, "_primary", primary.get)

    def test_the_address_of_the_default_route_comes_first(self):
        found = relay_candidates(
            ["127.0.0.1", "::1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]
        )
        assert found == {
            Family.IPV4: ["192.0.2.2", "192.0.2.1"],
            Family.IPV6: ["2001:db8::2", "2001:db8::1"],
        }

    def test_loopback_only_where_there_is_nothing_else(self):
        """Peers elsewhere cannot reach it; and on the laptop of a traveller it is all there is."""
        assert relay_candidates(["127.0.0.1", "::1"]) == {
            Family.IPV4: ["127.0.0.1"],
            Family.IPV6: ["::1"],
        }
        assert relay_candidates(["127.0.0.1", "::1", "192.0.2.1"]) == {
            Family.IPV4: ["192.0.2.1"],
            Family.IPV6: [],
        }

    def test_no_address_no_candidate(self):
        assert relay_candidates([]) == {Family.IPV4: [], Family.IPV6: []}


class TestWatch:
    @pytest.fixture
    async def told(self, monkeypatch):
        """A watch whose kernel is a socket pair, and how often it called back."""
        kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        monkeypatch.setattr(addresses, "SETTLE", 0.2)
        calls: list[int] = []
        watch = AddressWatch(lambda: calls.append(1))
        watch._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), watch._heard)
        yield watch, kernel, calls
        watch.stop()
        kernel.close()

    async def test_a_group_of_changes_is_told_once_when_it_has_settled(self, told):
        watch, kernel, calls = told
        for _ in range(5):
            kernel.send(b"a change")
            kernel.send(b"and another")
            watch._heard()
        assert calls == []
        await until(lambda: calls)
        await asyncio.sleep(0.1)
        assert calls == [1]

    async def test_what_could_not_be_read_is_read_as_soon_as_it_can_be(self, told, monkeypatch):
        """A process without descriptors hears that something has changed, and not what."""
        watch, kernel, calls = told
        monkeypatch.setattr(addresses, "LOOK_AGAIN", 0.01)
        found = []

        def look():
            calls.append(1)
            found.append(local_addresses())

        watch._changed = look
        with none_left():
            kernel.send(b"a change")
            await until(lambda: len(calls) > 1)
            assert found == []
        await until(lambda: found)
        looked = len(calls)
        await asyncio.sleep(0.1)
        assert len(calls) == looked, "it is read once"

    async def test_it_listens_to_the_kernel_and_stops(self):
        watch = AddressWatch(lambda: None)
        watch.start()
        assert watch._socket is not None
        assert watch._socket.family == socket.AF_NETLINK
        watch.stop()
        assert watch._socket.fileno() == -1
