"""Behind proxies: the client that a trusted one names is believed, and nobody else is."""

import asyncio
import socket
import ssl

import pytest

from config.certificate import self_signed
from tests.patience import until
from tests.turn.codec.test_proxy import header
from tests.turn.live import UDP, Client, port_of, relay
from tests.turn.peers import udp_peer
from turn.codec import registry
from turn.codec.channel import encode
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.transport import proxies

PROXY = "127.0.0.9"
FROM_PROXY = {"proxy_protocol_from": [f"{PROXY}/32"]}
BINDING = Client().encode(Method.BINDING)


class Proxied(Client):
    """A client whose datagrams a proxy carries: its socket is the proxy's."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.header = header(host, port)

    async def connect(self, port: int, **how: object) -> "Proxied":
        await super().connect(port, source=PROXY)
        return self

    async def send(self, data: bytes) -> None:
        await super().send(self.header + data)


async def proxied(service, host="192.0.2.7", port=40000):
    return await Proxied(host, port).connect(port_of(service))


async def mapped(client):
    reply = await client.request(Method.BINDING)
    return reply.get(registry.XOR_MAPPED_ADDRESS)


class TestUdp:
    async def test_a_call_goes_through(self):
        loop = asyncio.get_running_loop()
        async with relay(**FROM_PROXY) as service:
            client = await proxied(service)
            assert await mapped(client) == ("192.0.2.7", 40000)
            relayed = await client.allocate()
            with udp_peer() as peer:
                to_peer = (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname()))
                number = (registry.CHANNEL_NUMBER, 0x4000)
                await client.request(Method.CHANNEL_BIND, number, to_peer)
                await client.send(encode(0x4000, b"there", padded=False))
                assert await loop.sock_recvfrom(peer, 100) == (b"there", relayed)
                await loop.sock_sendto(peer, b"back", relayed)
                assert (await client.receive())[4:] == b"back"
            client.close()

    async def test_ipv6_clients_behind_an_ipv4_proxy(self):
        async with relay(**FROM_PROXY) as service:
            client = await proxied(service, "2001:db8::7")
            assert await mapped(client) == ("2001:db8::7", 40000)
            client.close()

    async def test_clients_without_a_proxy_go_on(self, connect):
        async with relay(**FROM_PROXY) as service:
            client = await connect(port_of(service))
            assert await mapped(client) == client.sock.getsockname()
            await client.allocate()

    async def test_a_stranger_is_not_believed(self, connect):
        async with relay(**FROM_PROXY) as service:
            stranger = await connect(port_of(service))
            await stranger.send(header() + BINDING)
            with pytest.raises(TimeoutError):
                await stranger.receive(0.3)
            assert service.stats.drops[DropReason.NOT_OURS] == 1

    async def test_a_proxy_has_to_say_for_whom_it_speaks(self, connect):
        async with relay(**FROM_PROXY) as service:
            proxy = await connect(port_of(service), source=PROXY)
            await proxy.send(BINDING)
            await proxy.send(header()[:20])
            await until(lambda: service.stats.drops[DropReason.NO_PROXY_HEADER] == 2)

    async def test_a_client_says_nothing_in_its_proxys_name(self):
        """Behind a proxy that said who it is once, a client could say that it is somebody else."""
        async with relay(**FROM_PROXY) as service:
            victim, attacker = await proxied(service), await proxied(service, "192.0.2.66")
            await victim.allocate()
            assert await mapped(attacker) == ("192.0.2.66", 40000)
            attacker.header = b""
            await attacker.send(BINDING)
            await until(lambda: service.stats.drops[DropReason.NO_PROXY_HEADER] == 1)
            attacker.header = header("192.0.2.66")
            await attacker.send(header() + BINDING)  # behind the proxy's header, as it has to be
            await until(lambda: service.stats.drops[DropReason.NOT_OURS] == 1)
            assert await mapped(victim) == ("192.0.2.7", 40000)
            for client in (victim, attacker):
                client.close()

    async def test_a_crowd_of_strangers_ends_nobodys_allocation(self, monkeypatch):
        monkeypatch.setattr(proxies, "MOST_CLIENTS", 3)
        async with relay(**FROM_PROXY) as service:
            client = await proxied(service)
            await client.allocate()
            for number in range(9):
                stranger = await proxied(service, f"192.0.2.{100 + number}")
                await mapped(stranger)
                stranger.close()
            assert service.ports_in_use == 1
            assert not (await client.request(Method.REFRESH)).has(registry.ERROR_CODE)
            client.close()

    async def test_where_all_have_an_allocation_the_idlest_makes_room(self, monkeypatch):
        monkeypatch.setattr(proxies, "MOST_CLIENTS", 3)
        async with relay(**FROM_PROXY) as service:
            clients = [await proxied(service, f"192.0.2.{100 + number}") for number in range(9)]
            for client in clients:
                await client.allocate()
                client.close()
            assert service.ports_in_use == 3

    async def test_a_proxy_may_speak_for_itself(self, connect):
        async with relay(**FROM_PROXY) as service:
            proxy = await connect(port_of(service), source=PROXY)
            await proxy.send(header(command=0x20) + BINDING)
            reply = parse_untrusted(await proxy.receive())
            assert reply.get(registry.XOR_MAPPED_ADDRESS) == proxy.sock.getsockname()

    async def test_the_shares_are_the_clients_not_the_proxys(self):
        async with relay(**FROM_PROXY, max_allocations_per_address=1) as service:
            one, two = await proxied(service), await proxied(service, "192.0.2.8")
            again = await proxied(service, port=40001)
            for client, code in ((one, 0), (two, 0), (again, 486)):
                reply = await client.request(Method.ALLOCATE, UDP)
                assert (reply.get(registry.ERROR_CODE) or (0,))[0] == code
                client.close()

    async def test_a_client_is_kept_out_by_its_own_address(self):
        async with relay(**FROM_PROXY, deny_clients=["192.0.2.0/24"]) as service:
            codes = []
            for host in ("192.0.2.7", "192.0.3.7"):
                client = await proxied(service, host)
                reply = await client.request(Method.ALLOCATE, UDP)
                codes.append((reply.get(registry.ERROR_CODE) or (0,))[0])
                client.close()
            assert codes == [403, 0]

    async def test_a_port_given_to_another_client_brings_it_nothing(self):
        async with relay(**FROM_PROXY, mobility=True) as service:
            client = await proxied(service)
            await client.request(Method.ALLOCATE, UDP, (registry.MOBILITY_TICKET, b""))
            assert service.ports_in_use == 1
            client.header = header("192.0.2.99", 50000)
            assert await mapped(client) == ("192.0.2.99", 50000)
            assert service.ports_in_use == 0
            client.close()

    async def test_a_client_keeps_its_allocation_at_another_port_of_the_proxy(self):
        loop = asyncio.get_running_loop()
        async with relay(**FROM_PROXY) as service:
            before = await proxied(service)
            relayed = await before.allocate()
            after = await proxied(service)
            after.nonce = before.nonce
            with udp_peer() as peer:
                to_peer = (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname()))
                await after.request(Method.CREATE_PERMISSION, to_peer)
                await loop.sock_sendto(peer, b"back", relayed)
                assert b"back" in await after.receive()
                with pytest.raises(TimeoutError):
                    await before.receive(0.2)
            before.close()
            after.close()


class TestStream:
    async def test_a_call_goes_through(self, connect):
        async with relay(**FROM_PROXY) as service:
            client = await connect(port_of(service, "tcp"), tcp=True, source=PROXY)
            await client.send(header(kind=0x11)[:20])
            await asyncio.sleep(0.05)
            await client.send(header(kind=0x11)[20:])
            assert await mapped(client) == ("192.0.2.7", 40000)
            await client.allocate()
            assert service.ports_in_use == 1
            client.close()
            await until(lambda: service.ports_in_use == 0)

    async def test_clients_without_a_proxy_go_on(self, connect):
        async with relay(**FROM_PROXY) as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            assert await mapped(client) == client.sock.getsockname()

    async def test_tls_begins_behind_the_header(self, tmp_path):
        certificate, key = self_signed(["127.0.0.1"], tmp_path)
        trust = ssl.create_default_context(cafile=str(certificate))
        async with relay(
            **FROM_PROXY,
            listen_tls=["127.0.0.1:0"],
            tls_certificate=str(certificate),
            tls_key=str(key),
        ) as service:
            sock = socket.socket()
            sock.bind((PROXY, 0))
            sock.connect(("127.0.0.1", port_of(service, "tls")))
            sock.sendall(header(kind=0x11))
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=trust, server_hostname="127.0.0.1"
            )
            writer.write(BINDING)
            reply = parse_untrusted(await reader.readexactly(32))
            assert reply.get(registry.XOR_MAPPED_ADDRESS) == ("192.0.2.7", 40000)
            writer.close()

    @pytest.mark.parametrize(
        "sent", [BINDING, header()[:13] + b"\x99" + bytes(20)], ids=["STUN", "bad family"]
    )
    async def test_what_does_not_begin_with_a_header_is_closed(self, connect, sent):
        async with relay(**FROM_PROXY) as service:
            client = await connect(port_of(service, "tcp"), tcp=True, source=PROXY)
            await client.send(sent)
            with pytest.raises((EOFError, ConnectionResetError)):
                await client.receive()
            assert service.stats.drops[DropReason.NO_PROXY_HEADER] == 1

    async def test_what_says_nothing_is_closed_in_time(self, connect):
        async with relay(**FROM_PROXY, first_request_timeout=0.2) as service:
            client = await connect(port_of(service, "tcp"), tcp=True, source=PROXY)
            with pytest.raises((EOFError, ConnectionResetError)):
                await client.receive()

    async def test_the_strangers_are_the_clients_not_the_proxys(self, connect):
        async with relay(**FROM_PROXY, max_unauthenticated_per_address=1) as service:
            port = port_of(service, "tcp")
            clients = [await connect(port, tcp=True, source=PROXY) for _ in range(3)]
            for client, host in zip(clients, ("192.0.2.7", "192.0.2.8", "192.0.2.7"), strict=True):
                await client.send(header(host, kind=0x11))
                await asyncio.sleep(0.05)
            assert await mapped(clients[0]) is not None
            assert await mapped(clients[1]) is not None
            with pytest.raises((EOFError, ConnectionResetError)):
                await clients[2].receive()

    async def test_a_relay_that_stops_leaves_no_connection_half_introduced(self, connect):
        async with relay(**FROM_PROXY) as service:
            client = await connect(port_of(service, "tcp"), tcp=True, source=PROXY)
            await asyncio.sleep(0.05)
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.receive()
