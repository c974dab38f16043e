"""A STUN server that is asked may send anything: only an address that can be is believed."""

from contextlib import suppress
from ipaddress import ip_address

from hypothesis import example, given
from hypothesis import strategies as st

from tests.property import messages
from turn.codec import registry
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.external.answer import Useless, judge_untrusted

ID = bytes(range(12))
LOCALS = st.sampled_from(["10.0.0.5", "2001:db8::5"])


@given(st.binary(max_size=200), LOCALS)
def test_bytes(data, local):
    assert judge_untrusted(data, ID, local) is None


@given(messages.classes, messages.attribute_lists, LOCALS)
def test_answers_that_are_well_formed(message_class, attributes, local):
    data = build(Method.BINDING, message_class, ID, attributes)
    with suppress(Useless):
        check(judge_untrusted(data, ID, local), local)


@given(st.data(), LOCALS)
def test_answers_that_were_changed_on_the_way(data, local):
    mapped = (registry.XOR_MAPPED_ADDRESS, Address("203.0.113.7", 7))
    answer = bytearray(build(Method.BINDING, MessageClass.SUCCESS, ID, (mapped,)))
    for _ in range(data.draw(st.integers(1, 4))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Useless):
        check(judge_untrusted(bytes(answer), ID, local), local)


@given(st.ip_addresses(), LOCALS)
@example(ip_address("127.0.0.1"), "10.0.0.5")
@example(ip_address("::1"), "2001:db8::5")
def test_addresses(ip, local):
    mapped = (registry.XOR_MAPPED_ADDRESS, Address(str(ip), 7))
    answer = build(Method.BINDING, MessageClass.SUCCESS, ID, (mapped,))
    with suppress(Useless):
        check(judge_untrusted(answer, ID, local), local)


def check(seen, local):
    """See that it could be where peers reach the local address; None: nothing was believed."""
    if seen is None or seen.host == local:
        return
    ip = ip_address(seen.host)
    assert ip.version == ip_address(local).version
    assert not any((ip.is_loopback, ip.is_unspecified, ip.is_multicast, ip.is_link_local))
