"""The listening sockets: a wildcard is each address, and they follow the machine's."""

import socket

import pytest
from structlog.testing import capture_logs

from tests.interop.process import free_port
from tests.turn.live import relay
from turn.codec.registry import MessageClass, Method
from turn.transport.bind import bind_tcp
from turn.transport.listeners import Bind, ListenError


def udp(service):
    return {(place.host, place.port) for place in service.addresses if place.protocol == "udp"}


@pytest.fixture
async def service():
    """A relay that listens on the IPv4 wildcard, on a machine that has two addresses."""
    async with relay(listen=[f"127.0.0.1:{free_port()}"], secret="x" * 16) as running:
        yield running


def listeners_of(service, host):
    """The relay's listeners, told to listen on ``host`` instead."""
    listeners = service._listeners
    (place, listen), *_ = listeners._datagram_endpoints
    listeners._datagram_endpoints = [(place._replace(host=host), listen)]
    return listeners, place.port


async def test_a_wildcard_is_a_socket_on_each_address_of_its_family(service):
    """So that a reply leaves by the address that was asked."""
    listeners, port = listeners_of(service, "0.0.0.0")
    listeners.follow(["127.0.0.1", "127.0.0.2", "::1"])
    assert udp(service) == {("127.0.0.1", port), ("127.0.0.2", port)}
    listeners_of(service, "::")
    listeners.follow(["127.0.0.1", "127.0.0.2", "::1"])
    assert udp(service) == {("::1", port)}


async def test_a_reply_leaves_by_the_address_that_was_asked(service, connect):
    listeners, port = listeners_of(service, "0.0.0.0")
    listeners.follow(["127.0.0.1", "127.0.0.2"])
    for host in ("127.0.0.1", "127.0.0.2"):  # a connected socket hears nobody else
        client = await connect(port, host=host)
        reply = await client.request(Method.BINDING)
        assert reply.message_class == MessageClass.SUCCESS


async def test_new_addresses_are_listened_on_and_gone_ones_closed(service, connect):
    listeners, port = listeners_of(service, "0.0.0.0")
    listeners.follow(["127.0.0.1"])
    client = await connect(port)
    await client.allocate()
    listeners.follow(["127.0.0.1", "127.0.0.3"])
    assert udp(service) == {("127.0.0.1", port), ("127.0.0.3", port)}
    assert (await client.request(Method.REFRESH)).message_class == MessageClass.SUCCESS
    listeners.follow(["127.0.0.1"])
    assert udp(service) == {("127.0.0.1", port)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.3", port))


async def test_a_new_address_that_cannot_be_had_is_tried_again(service):
    """An IPv6 address is tentative at first; a failure must not take the others down."""
    listeners, port = listeners_of(service, "0.0.0.0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.4", port))
        listeners.follow(["127.0.0.1", "127.0.0.4", "192.0.2.1"])
        with capture_logs() as logs:
            listeners.tick()
        assert udp(service) == {("127.0.0.1", port)}
        assert logs == [], "it is told once"
    with capture_logs() as logs:
        listeners.tick()
    assert udp(service) == {("127.0.0.1", port), ("127.0.0.4", port)}
    assert [(log["event"], log["host"]) for log in logs] == [
        ("address listened on at last", "127.0.0.4")
    ]
    listeners.follow(["127.0.0.1", "127.0.0.4"])
    assert listeners._missing == set(), "of an address that is no more nothing is tried"


@pytest.mark.parametrize(
    ("host", "place"), [("192.0.2.1", r"192\.0\.2\.1:5"), ("2001:db8::1", r"\[2001:db8::1\]:5")]
)
async def test_an_address_that_cannot_be_had_is_named(service, host, place):
    with pytest.raises(
        ListenError, match=rf"the relay cannot listen on {place} \(tcp\): "
    ) as error:
        await service._listeners.open_stream(host, 5, tls=None)
    assert error.value.errno


async def test_a_port_that_another_was_first_to_listen_on_is_named(service):
    listeners = service._listeners
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        def bind(host: str, taken: int) -> socket.socket:
            sock = bind_tcp(host, taken)
            other.listen()
            return sock

        listeners._bind = Bind(tcp=bind)
        with pytest.raises(ListenError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(tcp\): "):
            await listeners.open_stream("127.0.0.1", port, tls=None)
