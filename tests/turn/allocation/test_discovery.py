"""Answers leave from the address that was asked for, and only there (RFC 5780)."""

import pytest

from tests.turn.world import SERVER, World, code_of
from turn.allocation.discovery import Discovery
from turn.allocation.engine import Reply
from turn.allocation.options import Options
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.routes import FiveTuple, Transport

OTHER = Address("198.51.100.2", 3479)
CLIENT = Address("192.0.2.7", 40000)
CHANGE_PORT, CHANGE_HOST = 2, 4


@pytest.fixture
def world() -> World:
    return World(options=Options(discovery=Discovery([(SERVER, OTHER)], {})))


def ask(
    world: World,
    *attributes: object,
    server: Address = SERVER,
    transport: Transport = Transport.UDP,
) -> Reply:
    data = build(
        Method.BINDING,
        MessageClass.REQUEST,
        world.transaction_id(),
        attributes,  # type: ignore[arg-type]
        key=None,
        integrity=Integrity.NONE,
    )
    client = FiveTuple(transport, CLIENT, server)
    reply = world.engine.handle(data, client, lambda *_: None, world.now)
    assert reply is not None
    return reply


def change(flags: int) -> tuple[object, int]:
    return registry.CHANGE_REQUEST, flags


@pytest.mark.parametrize("server", [SERVER, OTHER, Address(SERVER.host, OTHER.port)])
def test_each_address_names_itself_and_its_opposite(world: World, server: Address) -> None:
    reply = ask(world, server=server)
    message = parse_untrusted(reply.data)
    other = message.get(registry.OTHER_ADDRESS)
    assert other is not None
    assert {other.host, server.host} == {SERVER.host, OTHER.host}
    assert {other.port, server.port} == {SERVER.port, OTHER.port}
    assert message.get(registry.RESPONSE_ORIGIN) == server
    assert message.get(registry.XOR_MAPPED_ADDRESS) == CLIENT
    assert message.get(registry.MAPPED_ADDRESS) == CLIENT
    assert reply.origin is None


@pytest.mark.parametrize(
    ("flags", "origin"),
    [
        (0, None),
        (CHANGE_PORT, Address(SERVER.host, OTHER.port)),
        (CHANGE_HOST, Address(OTHER.host, SERVER.port)),
        (CHANGE_HOST | CHANGE_PORT, OTHER),
    ],
)
def test_it_answers_from_where_it_is_asked_to(
    world: World, flags: int, origin: Address | None
) -> None:
    reply = ask(world, change(flags))
    assert reply.origin == origin
    assert parse_untrusted(reply.data).get(registry.RESPONSE_ORIGIN) == (origin or SERVER)


def test_the_answer_goes_to_another_port_of_the_same_host(world: World) -> None:
    reply = ask(world, (registry.RESPONSE_PORT, 40001))
    assert reply.destination == Address(CLIENT.host, 40001)
    assert not reply.proved, "its host's share of replies bounds it"


def test_padding_comes_back_and_no_more_of_it(world: World) -> None:
    reply = ask(world, (registry.PADDING, b"\xff" * 1400))
    assert parse_untrusted(reply.data).get(registry.PADDING) == bytes(1400)


def test_padding_is_not_what_a_victim_gets_by_the_megabyte(world: World) -> None:
    reply = ask(world, (registry.PADDING, bytes(65000)))
    assert len(reply.data) < 1700


@pytest.mark.parametrize(
    "attributes",
    [
        [(registry.RESPONSE_PORT, 40001), (registry.PADDING, bytes(8))],
        [(registry.RESPONSE_PORT, 0)],
    ],
)
def test_what_makes_no_sense_is_refused(world: World, attributes: list[object]) -> None:
    reply = ask(world, *attributes)
    assert code_of(parse_untrusted(reply.data)) == 400
    assert reply.destination is None


def test_behind_nat_the_public_addresses_are_told() -> None:
    public = {SERVER.host: "8.8.4.4", OTHER.host: "8.8.8.8"}
    world = World(options=Options(discovery=Discovery([(SERVER, OTHER)], public)))
    reply = ask(world, change(CHANGE_HOST))
    message = parse_untrusted(reply.data)
    assert message.get(registry.OTHER_ADDRESS) == Address("8.8.8.8", OTHER.port)
    assert message.get(registry.RESPONSE_ORIGIN) == Address("8.8.8.8", SERVER.port)
    assert reply.origin == Address(OTHER.host, SERVER.port), "ours, to send from"


class TestWhereItIsNotToBeHad:
    @pytest.mark.parametrize(
        "attribute",
        [change(CHANGE_HOST), (registry.RESPONSE_PORT, 40001), (registry.PADDING, bytes(4))],
    )
    @pytest.mark.parametrize("where", ["off", "another address", "tcp"])
    def test_it_is_an_unknown_attribute(self, attribute: tuple[object, object], where: str) -> None:
        discovery = None if where == "off" else Discovery([(SERVER, OTHER)], {})
        reply = ask(
            World(options=Options(discovery=discovery)),
            attribute,
            server=Address("198.51.100.9", 1) if where == "another address" else SERVER,
            transport=Transport.TCP if where == "tcp" else Transport.UDP,
        )
        assert code_of(parse_untrusted(reply.data)) == 420
        assert reply.origin is None

    def test_an_allocate_knows_no_change_request(self, world: World) -> None:
        assert code_of(world.client().allocate(change(CHANGE_HOST))) == 420
