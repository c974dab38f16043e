"""The codec: what is written is read again, and nothing that comes in breaks it."""

import ipaddress
import socket
from typing import Any

import aioice.stun
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.property import messages
from tests.vectors import stun
from turn.codec import channel, indication, registry
from turn.codec.errors import Malformed
from turn.codec.framing import StreamFramer
from turn.codec.integrity import Integrity, verify
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import ATTRIBUTES, Attribute, MessageClass, Method
from turn.codec.values import Address, ipv4_text, ipv6_text, pack_host

PROTECTING = {
    registry.MESSAGE_INTEGRITY.number,
    registry.MESSAGE_INTEGRITY_SHA256.number,
    registry.FINGERPRINT.number,
}


def test_every_attribute_has_its_values():
    assert {row.number for row in messages.VALUES} == set(ATTRIBUTES) - PROTECTING


# What is written is read again --------------------------------------------------------------


@given(
    messages.methods,
    messages.classes,
    messages.transaction_ids,
    messages.attribute_lists,
    messages.protections,
)
def test_round_trip(method, message_class, transaction_id, attributes, protection):
    data = build(method, message_class, transaction_id, attributes, **protection)
    message = parse_untrusted(data)
    assert (message.method, message.message_class) == (method, message_class)
    assert message.transaction_id == transaction_id
    assert message.integrity is protection["integrity"]
    assert verify(message, protection["key"]) == (message.integrity is not Integrity.NONE)
    assert message.has(registry.FINGERPRINT) == protection["fingerprint"]
    for attribute in messages.VALUES:
        written = [value for row, value in attributes if row is attribute]
        assert message.get_all(attribute) == written
        assert message.get(attribute) == (written[0] if written else None)
    required = {row.number: None for row, _ in attributes if row.comprehension_required}
    assert message.unknown_required(frozenset(PROTECTING)) == tuple(required)


@given(messages.packed_ipv6)
def test_ipv6_text_is_that_of_the_sockets(packed):
    """Routes are found by text: a socket's and a message's must be the same."""
    assert ipv6_text(packed) == socket.inet_ntop(socket.AF_INET6, packed)
    assert pack_host(ipv6_text(packed)) == packed


@given(st.integers(0, 2**32 - 1))
def test_ipv4_text_is_that_of_the_sockets(number):
    assert ipv4_text(number) == socket.inet_ntop(socket.AF_INET, number.to_bytes(4))
    assert pack_host(ipv4_text(number)) == number.to_bytes(4)


# Nothing that comes in breaks it ------------------------------------------------------------


def read_untrusted(data: bytes) -> Message | None:
    """Read all that there is to read; gives the message, or None where it is malformed."""
    try:
        message = parse_untrusted(data)
    except Malformed:
        return None
    verify(message, b"key")
    message.unknown_required(frozenset(ATTRIBUTES))
    for attribute in ATTRIBUTES.values():
        try:
            value = message.get(attribute)
            message.get_all(attribute)
        except Malformed:
            continue
        assert (value is not None) == message.has(attribute)
    return message


# A message with any bytes as attributes gets past the header, which random bytes never do.
headed = st.builds(
    lambda body, message_type: (
        message_type.to_bytes(2) + len(body).to_bytes(2) + stun.REQUEST[4:20] + body
    ),
    st.binary(max_size=200).map(lambda body: body[: len(body) & ~3]),
    st.integers(0, 0x3FFF),
)
tlvs = st.lists(
    st.builds(
        lambda number, value: (
            number.to_bytes(2) + len(value).to_bytes(2) + value + bytes(-len(value) % 4)
        ),
        st.sampled_from(list(ATTRIBUTES)) | st.integers(0, 0xFFFF),
        st.binary(max_size=40),
    ),
    max_size=8,
).map(b"".join)
filled = tlvs.map(lambda body: b"\0\3" + len(body).to_bytes(2) + stun.REQUEST[4:20] + body)


@given(st.binary(max_size=200) | headed | filled)
def test_any_bytes(data):
    read_untrusted(data)
    indication.parse_send_indication(memoryview(data))


@given(st.binary(max_size=60))
def test_any_channel_data(data):
    try:
        number, payload = channel.parse_untrusted(memoryview(data))
    except Malformed:
        return
    assert data.startswith(channel.encode(number, bytes(payload), padded=False))


@given(st.sampled_from(list(ATTRIBUTES.values())), st.binary(max_size=800))
def test_any_value(attribute: Attribute[Any], raw):
    """What can be read can be written, and then reads the same."""
    transaction_id = stun.REQUEST[8:20]
    try:
        value = attribute.decode(raw, transaction_id)
    except Malformed:
        return
    try:
        again = attribute.encode(value, transaction_id)
    except ValueError:  # text that must be borne, and must not be sent
        assert len(raw) > 127
        return
    assert attribute.decode(again, transaction_id) == value


@given(st.sampled_from(stun.ALL), st.data())
def test_cut_off_or_changed_sample(sample, data):
    assert read_untrusted(sample[: data.draw(st.integers(0, len(sample) - 1))]) is None
    position = data.draw(st.integers(0, len(sample) - 1))
    changed = bytearray(sample)
    changed[position] ^= data.draw(st.integers(1, 255))
    read_untrusted(bytes(changed))


# The short way means the same as the long way -----------------------------------------------


@given(
    messages.transaction_ids,
    st.lists(
        st.tuples(st.just(registry.XOR_PEER_ADDRESS), messages.addresses)
        | st.tuples(st.just(registry.DATA), messages.octets(60))
        | messages.pairs,
        max_size=4,
    ),
    st.booleans(),
    st.data(),
)
def test_both_ways_to_read_a_send_indication(transaction_id, attributes, fingerprint, data):
    wire = bytearray(
        build(
            Method.SEND,
            MessageClass.INDICATION,
            transaction_id,
            attributes,
            fingerprint=fingerprint,
        )
    )
    if data.draw(st.booleans()):
        wire[data.draw(st.integers(0, len(wire) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    short = as_value(indication._parse_plain_untrusted, wire)
    if short is not None:
        assert short == as_value(indication._parse_any_untrusted, wire)


def as_value(parse: Any, wire: bytearray) -> tuple[Address, bytes] | None:
    try:
        parsed = parse(memoryview(wire))
    except Malformed:
        return None
    return None if parsed is None else (parsed[0], bytes(parsed[1]))


# Streams ------------------------------------------------------------------------------------

stream_messages = st.lists(
    st.builds(
        build,
        messages.stream_methods,
        messages.classes,
        messages.transaction_ids,
        messages.attribute_lists,
    )
    | st.builds(
        channel.encode, st.integers(0x4000, 0x7FFF), messages.octets(50), padded=st.just(False)
    ),
    max_size=6,
)


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream cut at these places."""
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def frames(chunks: list[bytes]) -> tuple[list[bytes], bool]:
    """The messages in these chunks, and whether the stream is good to its end."""
    framer, found = StreamFramer(), []
    try:
        for chunk in chunks:
            for frame in framer.feed(memoryview(chunk)):
                found.append(bytes(frame))  # noqa: PERF401 (what came before a Malformed counts)
    except Malformed:
        return found, False
    return found, True


@given(stream_messages, st.lists(st.integers(0, 1000), max_size=20))
@example([], [])
def test_messages_do_not_depend_on_the_chunks(wanted, cuts):
    wanted = [stun.REQUEST, *wanted]
    stream = b"".join(message + bytes(-len(message) % 4) for message in wanted)
    assert frames(chunked(stream, cuts)) == (wanted, True)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=20), st.booleans())
def test_neither_does_junk(junk, cuts, begun):
    stream = stun.REQUEST + junk if begun else junk
    assert frames(chunked(stream, cuts)) == frames([stream])


# Beside another codec -----------------------------------------------------------------------

# What both know and hold for the same value: aioice reads REQUESTED-TRANSPORT as one number,
# NONCE as bytes, and has no use for the rest.
SHARED = {
    name: row
    for number, row in ATTRIBUTES.items()
    if (name := row.name) in aioice.stun.ATTRIBUTES_BY_NAME
    and row not in (registry.REQUESTED_TRANSPORT, registry.NONCE)
    and number not in PROTECTING
}
shared_lists = st.lists(
    st.sampled_from(sorted(SHARED)).flatmap(
        lambda name: st.tuples(st.just(name), messages.VALUES[SHARED[name]])
    ),
    max_size=6,
    unique_by=lambda pair: pair[0],
)
shared_methods = st.sampled_from([int(method) for method in aioice.stun.Method])


def for_aioice(value: Any) -> Any:
    """aioice spells an embedded IPv4 address as Python does, and has None for a flag."""
    if isinstance(value, Address):
        return (str(ipaddress.ip_address(value.host)), value.port)
    return None if value is True else value


def test_enough_is_shared_to_compare():
    assert len(SHARED) > 15


@given(shared_methods, messages.transaction_ids, shared_lists, messages.octets(64))
def test_aioice_reads_what_we_write(method, transaction_id, pairs, key):
    data = build(
        method,
        MessageClass.REQUEST,
        transaction_id,
        [(SHARED[name], value) for name, value in pairs],
        key=key,
        integrity=Integrity.SHA1,
        fingerprint=True,
    )
    message = aioice.stun.parse_message(data)
    assert (message.message_method, message.transaction_id) == (method, transaction_id)
    assert message.check_message_integrity(key)
    for name, value in pairs:
        assert message.attributes[name] == for_aioice(value)


@given(shared_methods, messages.transaction_ids, shared_lists, messages.octets(64))
def test_we_write_what_aioice_writes(method, transaction_id, pairs, key):
    theirs = aioice.stun.Message(
        aioice.stun.Method(method),
        aioice.stun.Class.REQUEST,
        transaction_id,
        {name: for_aioice(value) for name, value in pairs},
    )
    theirs.add_message_integrity(key)
    assert bytes(theirs) == build(
        method,
        MessageClass.REQUEST,
        transaction_id,
        [(SHARED[name], value) for name, value in pairs],
        key=key,
        integrity=Integrity.SHA1,
        fingerprint=True,
    )


@given(headed | filled)
def test_what_both_can_read_reads_the_same(data):
    ours = read_untrusted(data)
    assume(ours is not None)
    assert ours is not None
    try:
        theirs = aioice.stun.parse_message(data)
    except Exception:  # noqa: BLE001 (it raises struct.error, ValueError, KeyError …)
        return
    for name, row in SHARED.items():
        if row is registry.ERROR_CODE:  # aioice takes reserved bits for a part of the code
            continue
        try:
            found = ours.get_all(row)
        except Malformed:
            continue
        if len(found) == 1:
            assert theirs.attributes[name] == for_aioice(found[0])
