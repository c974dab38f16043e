"""Settings that change while clients are served: who notices, and what."""

import asyncio
import re
import ssl
import time

import pytest

from config.certificate import self_signed
from config.section import StartError
from tests.patience import PATIENCE
from tests.turn.live import UDP, Client, port_of, relay, settings
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address


def code_of(reply):
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]


def send(peer, payload):
    return build(
        Method.SEND, MessageClass.INDICATION, bytes(12),
        ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload)),
    )  # fmt: skip


@pytest.mark.parametrize(
    "refusing",
    [
        {"deny_peers": ["127.0.0.0/8"]},
        {"allow_peers": ["10.1.2.3"], "only_allowed_peers": True},
    ],
)
async def test_an_allocation_goes_on_and_a_peer_that_is_refused_now_ends(connect, refusing):
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    class Peer(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            heard.put_nowait(data)

    loop = asyncio.get_running_loop()
    async with relay() as service:
        transport, _ = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
        peer = Address(*transport.get_extra_info("sockname"))
        client = await connect(port_of(service))
        await client.allocate()
        await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, peer))
        await client.send(send(peer, b"before"))
        assert await asyncio.wait_for(heard.get(), PATIENCE) == b"before"
        service.reload(settings(max_lifetime=700))
        await client.send(send(peer, b"between"))
        assert await asyncio.wait_for(heard.get(), PATIENCE) == b"between"
        reply = await client.request(Method.REFRESH, (registry.LIFETIME, 3600))
        assert reply.get(registry.LIFETIME) == 700
        service.reload(settings(**refusing))
        await client.send(send(peer, b"after"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(heard.get(), 0.3)
        refused = await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, peer))
        assert code_of(refused) == 403
        assert code_of(await client.request(Method.REFRESH)) == 0
        transport.close()


async def test_users_come_and_go(connect):
    async with relay() as service:
        old = await connect(port_of(service))
        await old.allocate()
        service.reload(settings(users={"bob": "pw2"}))
        assert code_of(await old.request(Method.REFRESH)) in {401, 438}
        new = Client("bob", "pw2")
        await new.connect(port_of(service))
        assert code_of(await new.request(Method.ALLOCATE, UDP)) == 0
        new.close()


async def test_quotas_ports_and_the_external_address(connect):
    async with relay() as service:
        one, two = await connect(port_of(service)), await connect(port_of(service))
        assert code_of(await one.request(Method.ALLOCATE, UDP)) == 0
        service.reload(settings(max_allocations_per_user=1))
        assert code_of(await two.request(Method.ALLOCATE, UDP)) == 486
        service.reload(
            settings(
                relay_ports="20000-20099",
                external_addresses=["203.0.113.9/127.0.0.1"],
                deny_peers=["203.0.113.9"],
            )
        )
        relayed = (await two.request(Method.ALLOCATE, UDP)).get(registry.XOR_RELAYED_ADDRESS)
        assert relayed.host == "203.0.113.9"
        assert 20000 <= relayed.port <= 20099


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"relay_addresses": ["192.0.2.7"]}, "this machine has no 192.0.2.7 (a public address"),
        (
            {"external_addresses": ["203.0.113.9/10.9.9.9"]},
            "203.0.113.9 is for 10.9.9.9, from which nothing is relayed",
        ),
    ],
)
async def test_an_address_that_is_not_here_is_refused(connect, change, words):
    async with relay() as service:
        with pytest.raises(StartError, match=re.escape(words)):
            service.reload(settings(**change))
        assert not service.ready()
        assert code_of(await (await connect(port_of(service))).request(Method.ALLOCATE, UDP)) == 0
    # An address that may come later (another node has it now) keeps nothing else from changing.
    async with relay(**{"relay_addresses": ["127.0.0.1"]} | change) as service:
        service.reload(settings(**change, max_allocations_per_user=1))


async def test_a_relay_without_its_address_is_not_sent_clients():
    async with relay(relay_addresses=["192.0.2.7"]) as service:
        (problem,) = service.ready()
        assert "no 192.0.2.7 to relay from" in problem
        service.reload(settings(relay_addresses=["192.0.2.7", "127.0.0.1"]))
        assert service.ready() == []


async def serial_of(port):
    """The certificate that a new TLS client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


async def test_a_new_certificate_is_shown_to_new_clients_and_a_bad_one_to_none(tmp_path):
    pairs = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        pairs.append(self_signed(["127.0.0.1"], tmp_path / name))

    def with_pair(certificate, key):
        tls = {"tls_certificate": str(certificate), "tls_key": str(key)}
        return {"listen_tls": ["127.0.0.1:0"], **tls}

    async with relay(**with_pair(*pairs[0])) as service:
        port = port_of(service, "tls")
        old = await serial_of(port)
        service.reload(settings(**with_pair(*pairs[1])))
        new = await serial_of(port)
        assert new != old
        with pytest.raises(StartError, match="tls_certificate"):
            service.reload(settings(**with_pair(pairs[0][0], pairs[1][1])))
        assert await serial_of(port) == new


async def test_the_share_of_strangers_changes(connect):
    async with relay(max_bindings_per_second=1) as service:
        client = await connect(port_of(service))
        for _ in range(5):
            await client.send(client.encode(Method.BINDING))
        await client.receive()
        with pytest.raises(TimeoutError):
            await client.receive(0.3)
        service.reload(settings(max_bindings_per_second=1000))
        for _ in range(5):
            assert code_of(await client.request(Method.BINDING)) == 0


async def test_a_secret_that_is_rotated_or_has_leaked():
    old, new = "a secret of thirty-two characters", "another secret, long enough for all"
    async with relay(secret=old) as service:
        client = Client(*mint(old, "carol", int(time.time()) + 60))
        await client.connect(port_of(service))
        await client.allocate()
        service.reload(settings(secret=[new, old]))
        assert await refreshed(client) == 0
        service.reload(settings(secret=new))
        assert await refreshed(client) == 401
        client.close()


async def refreshed(client: Client) -> int:
    """What a Refresh is answered, once the client has the nonce that goes with the secret."""
    reply = await client.request(Method.REFRESH)
    if code_of(reply) == 438:
        client.nonce = reply.get(registry.NONCE)
        reply = await client.request(Method.REFRESH)
    return int(code_of(reply))
