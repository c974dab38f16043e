"""The relay as a whole: start, drain, stop, start again, and what stands in the way."""

import asyncio
import socket
import ssl
import time

import pytest

from config.certificate import self_signed
from config.schema import LogSettings
from config.section import StartError
from tests.interop.process import free_port
from tests.patience import PATIENCE, until
from tests.turn.live import UDP, Client, port_of, relay, settings
from turn.assemble import Certificate
from turn.auth.credentials import long_term_key
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family
from turn.common import alone
from turn.idle import QUIET
from turn.server import TurnService
from turn.transport.listeners import ListenError
from turn.workers.pool import WorkerPool


def code_of(reply):
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]


@pytest.fixture
def pem(tmp_path):
    """A certificate and its key."""
    return self_signed(["127.0.0.1"], tmp_path)


class TestStart:
    async def test_it_listens_where_it_was_told_to(self):
        async with relay(listen=["127.0.0.1:0", "[::1]:0"]) as service:
            places = {(place.protocol, place.host) for place in service.addresses}
            assert places == {(p, h) for p in ("udp", "tcp") for h in ("127.0.0.1", "::1")}
            assert service.ready() == []

    async def test_one_transport_alone(self):
        udp, tcp = free_port(), free_port()
        changes = {"listen_udp": [f"127.0.0.1:{udp}"], "listen_tcp": [f"127.0.0.1:{tcp}"]}
        async with relay(listen=[], **changes) as service:
            assert service.addresses == [("udp", "127.0.0.1", udp), ("tcp", "127.0.0.1", tcp)]
            for kind, port in ((socket.SOCK_STREAM, udp), (socket.SOCK_DGRAM, tcp)):
                with socket.socket(socket.AF_INET, kind) as free:
                    free.bind(("127.0.0.1", port))

    @pytest.mark.parametrize("workers", [1, 2])
    async def test_udp_and_tls_on_one_port(self, pem, connect, workers):
        certificate, key = pem
        place = f"127.0.0.1:{free_port()}"
        made = settings(
            listen=[],
            listen_udp=[place],
            listen_tls=[place],
            tls_certificate=str(certificate),
            tls_key=str(key),
            workers=workers,
        )
        service = TurnService(made) if workers == 1 else WorkerPool(made, LogSettings())
        await service.start()
        try:
            port = port_of(service)
            assert place == f"127.0.0.1:{port}"
            assert port == port_of(service, "tls")
            await (await connect(port)).allocate()
            trust = ssl.create_default_context(cafile=str(certificate))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            writer.write(Client().encode(Method.BINDING))
            assert (await reader.readexactly(20))[:2] == b"\x01\x01"
            writer.close()
            await writer.wait_closed()
        finally:
            await service.stop()

    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    async def test_a_taken_port_is_named_and_nothing_stays_open(self, kind):
        port = free_port()
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
            service = TurnService(settings(listen=[f"127.0.0.1:{port}"]))
            wanted = rf"the relay cannot listen on 127\.0\.0\.1:{port} \({protocol}\): "
            with pytest.raises(ListenError, match=wanted):
                await service.start()
            assert service.ready() == ["not running"]
            await service.stop()
        async with relay(listen=[f"127.0.0.1:{port}"]):
            pass

    async def test_an_address_that_is_not_ours_is_named(self):
        service = TurnService(settings(listen=["192.0.2.1:0"], relay_addresses=["127.0.0.1"]))
        with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0 \(udp\): "):
            await service.start()

    async def test_a_certificate_that_cannot_be_read_is_named_before_anything_opens(self, tmp_path):
        missing = str(tmp_path / "none.pem")
        service = TurnService(
            settings(listen_tls=["127.0.0.1:0"], tls_certificate=missing, tls_key=missing)
        )
        with pytest.raises(StartError, match=r"turn\.tls_certificate, turn\.tls_key: "):
            await service.start()
        assert service.addresses == []

    async def test_it_comes_back_on_the_same_port_while_clients_are_there(self, connect):
        port = free_port()
        async with relay(listen=[f"127.0.0.1:{port}"]):
            one = await connect(port, tcp=True)
            await one.allocate()
        for _ in range(3):
            async with relay(listen=[f"127.0.0.1:{port}"]) as again:
                assert {place.port for place in again.addresses} == {port}
                for tcp in (False, True):
                    client = await connect(port, tcp=tcp)
                    await client.allocate()

    async def test_nonces_outlive_a_restart_where_there_is_a_secret(self, connect):
        """A client that goes on with its old nonce must not lose a round trip, nor its call."""
        secret = "a secret of thirty-two characters"
        for changes, code in (({"secret": secret}, 437), ({}, 438)):
            port = free_port()
            async with relay(listen=[f"127.0.0.1:{port}"], **changes):
                client = await connect(port)
                await client.allocate()
            async with relay(listen=[f"127.0.0.1:{port}"], **changes):
                assert code_of(await client.request(Method.REFRESH)) == code


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_server_for_stun_alone_relays_for_nobody(connect, tcp):
    """Whoever knows a secret that is there: signaling may mint by it for other relays."""
    async with relay(stun_only=True, secret="s" * 16) as service:
        port = port_of(service, "tcp" if tcp else "udp")
        client = await connect(port, tcp=tcp)
        seen = (await client.request(Method.BINDING)).get(registry.XOR_MAPPED_ADDRESS)
        assert seen == Address(*client.sock.getsockname())
        signed = await connect(port, tcp=tcp)
        signed.username, password = mint("s" * 16, "anna", int(time.time()) + 600)
        signed.key = long_term_key(signed.username, "icebroker", password)
        for each in (client, signed):
            assert code_of(await each.request(Method.ALLOCATE, UDP)) == 401
        assert service.plane == "userspace"


class TestTls:
    async def test_a_client_allocates_over_tls(self, pem):
        certificate, key = pem
        trust = ssl.create_default_context(cafile=str(certificate))
        async with relay(
            listen_tls=["127.0.0.1:0"], tls_certificate=str(certificate), tls_key=str(key)
        ) as service:
            port = port_of(service, "tls")
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            writer.write(Client().encode(Method.BINDING))
            assert (await reader.readexactly(20))[:2] == b"\x01\x01"
            (expiry,) = [
                metric.samples[0].value
                for metric in service.collector.collect()
                if "not_after" in metric.name
            ]
            assert expiry > 1_800_000_000
            writer.close()
            await writer.wait_closed()

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            (["stun.turn"], "stun.turn"),
            (["h2", "stun.nat-discovery"], "stun.nat-discovery"),
            (["http/1.1"], None),
        ],
    )
    async def test_a_protocol_may_be_asked_for_by_name(self, pem, offered, chosen):
        certificate, key = pem
        trust = ssl.create_default_context(cafile=str(certificate))
        trust.set_alpn_protocols(offered)
        async with relay(
            listen_tls=["127.0.0.1:0"], tls_certificate=str(certificate), tls_key=str(key)
        ) as service:
            port = port_of(service, "tls")
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
            writer.write(Client().encode(Method.BINDING))
            assert (await reader.readexactly(20))[:2] == b"\x01\x01"
            writer.close()
            await writer.wait_closed()

    async def test_nothing_older_than_tls_1_2(self, pem):
        certificate, key = pem
        made = Certificate(settings(tls_certificate=str(certificate), tls_key=str(key)))
        assert made.context.minimum_version is ssl.TLSVersion.TLSv1_2


class TestDrain:
    async def test_new_allocations_are_turned_away_and_live_ones_go_on(self, connect):
        async with relay() as service:
            port = port_of(service)
            old, new = await connect(port), await connect(port)
            await old.allocate()
            draining = asyncio.create_task(service.drain(30))
            await until(lambda: service.draining)
            assert code_of(await new.request(Method.ALLOCATE, UDP)) == 508
            assert code_of(await new.request(Method.BINDING)) == 0
            assert code_of(await old.request(Method.REFRESH)) == 0
            assert not draining.done()
            assert service.ready() == ["draining"]
            await old.request(Method.REFRESH, (registry.LIFETIME, 0))
            await asyncio.wait_for(draining, PATIENCE)

    async def test_it_ends_at_its_time_whoever_is_still_there(self, connect):
        async with relay() as service:
            client = await connect(port_of(service))
            await client.allocate()
            await asyncio.wait_for(service.drain(0.1), PATIENCE)
            assert service.ports_in_use == 1

    async def test_it_does_not_wait_for_what_a_closed_tab_has_left(self, connect):
        async with relay() as service:
            client, before = await connect(port_of(service)), time.monotonic() - 1000
            await client.allocate()
            idle = service._idle
            assert [idle.look(before + s) for s in (0, QUIET - 1, QUIET + 1)] == [1, 1, 0]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                to_peer = (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname()))
                number = (registry.CHANNEL_NUMBER, 0x4000)
                await client.request(Method.CHANNEL_BIND, number, to_peer)
                await client.send(b"\x40\x00\x00\x04talk")
                await asyncio.to_thread(peer.recv, 100)
            assert [idle.look(before + 100 + s) for s in (0, QUIET - 1, QUIET + 1)] == [1, 1, 0]
            await asyncio.wait_for(service.drain(3600), PATIENCE)
            assert service.ports_in_use == 1

    async def test_it_ends_at_once_where_nobody_is(self):
        async with relay() as service:
            await asyncio.wait_for(service.drain(3600), PATIENCE)


class TestStop:
    async def test_everything_is_closed(self, connect):
        async with relay() as service:
            udp, tcp = port_of(service), port_of(service, "tcp")
            one, two = await connect(udp), await connect(tcp, tcp=True)
            relayed = [await client.allocate() for client in (one, two)]
        assert service.ports_in_use == 0
        assert service.ready() == ["not running"]
        assert service.stats.allocations_closed == {"shutdown": 2}
        for address in (*relayed, Address("127.0.0.1", udp)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(tuple(address))
        with pytest.raises((EOFError, ConnectionError)):
            await two.receive()

    async def test_a_second_stop_and_one_before_the_start_do_nothing(self):
        service = TurnService(settings())
        await service.stop()
        await service.start()
        await service.stop()
        await service.stop()


class TestTime:
    async def test_what_has_expired_is_closed_by_itself(self, connect, monkeypatch):
        monkeypatch.setattr("turn.server.TICK", 0.02)
        async with relay() as service:
            client = await connect(port_of(service))
            await client.allocate()
            allocation = next(iter(service._engine.table))
            service._engine._allocator.extend(allocation, allocation.created + 0.05)
            await until(lambda: service.ports_in_use == 0)
            assert service.stats.allocations_closed == {"expired": 1}

    async def test_a_ticker_that_died_is_told(self, monkeypatch):
        """Without it nothing ever expires: no new clients for such a relay."""
        monkeypatch.setattr("turn.server.TICK", 0.01)

        async with relay() as service:

            def broken(_):
                raise RuntimeError("on purpose")

            monkeypatch.setattr(service._engine, "expire", broken)
            await until(lambda: service.ready() == ["not running"])
            assert service._ticker is not None
            with pytest.raises(RuntimeError):
                await service._ticker


class TestAddresses:
    async def test_behind_nat_clients_are_told_the_public_address(self, connect):
        async with relay(external_addresses=["203.0.113.7/127.0.0.1"]) as service:
            assert service.relay_addresses == ["203.0.113.7"]
            client = await connect(port_of(service))
            assert (await client.allocate()).host == "203.0.113.7"

    async def test_it_relays_from_the_addresses_that_it_was_told(self, connect):
        async with relay(relay_addresses=["127.0.0.3", "::1"]) as service:
            client = await connect(port_of(service))
            assert (await client.allocate()).host == "127.0.0.3"
            other = await connect(port_of(service))
            reply = await other.request(
                Method.ALLOCATE,
                UDP,
                (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6),
            )
            assert reply.message_class == MessageClass.SUCCESS
            assert reply.get(registry.XOR_RELAYED_ADDRESS).host == "::1"

    async def test_without_an_ipv6_address_there_is_no_ipv6_relay(self, connect):
        async with relay() as service:
            client = await connect(port_of(service))
            reply = await client.request(
                Method.ALLOCATE,
                UDP,
                (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6),
            )
            assert code_of(reply) == 440


async def test_the_public_address_stands_for_whatever_address_the_machine_has_now(connect):
    machine = ["127.0.0.1"]
    common = alone()._replace(addresses=lambda: list(machine), watches=False)
    given = settings(listen=["0.0.0.0:0"], external_addresses=["203.0.113.7"])
    service = TurnService(given, common=common)
    await service.start()
    try:
        machine[:] = ["127.0.0.2"]
        service.follow_addresses()
        client = await connect(port_of(service), host="127.0.0.2")
        assert (await client.allocate()).host == "203.0.113.7"
        assert service.policy.to_wire(Address("203.0.113.7", 9)) == ("127.0.0.2", 9)
    finally:
        await service.stop()
