"""What is believed of an answer, and what is made of all of them."""

import pytest

from tests.turn.external.mirror import answer
from turn.codec import registry
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.external.answer import Useless, judge_untrusted, pairs_of, question

ID = bytes(range(12))
REQUEST = parse_untrusted(question(ID))
LOCAL = {"10.0.0.5": "203.0.113.7", "2001:db8::5": "2001:db8:1::7"}


def error(code: int) -> bytes:
    refusal = ((registry.ERROR_CODE, (code, "no")),)
    return build(Method.BINDING, MessageClass.ERROR, ID, refusal)


def test_the_question_is_a_binding_request_with_nothing_to_learn_from():
    assert (REQUEST.method, REQUEST.message_class) == (Method.BINDING, MessageClass.REQUEST)
    assert REQUEST.has(registry.FINGERPRINT)
    assert len(REQUEST.raw) == 28


@pytest.mark.parametrize(("local", "public"), LOCAL.items())
def test_the_mapped_address_is_ours(local: str, public: str):
    assert judge_untrusted(answer(REQUEST, public, 9), ID, local) == Address(public, 9)
    # Without NAT it is the local one, whatever that is.
    assert judge_untrusted(answer(REQUEST, local, 9), ID, local) == Address(local, 9)


def test_also_one_on_loopback_where_we_are_there():
    seen = judge_untrusted(answer(REQUEST, "127.0.0.1", 9), ID, "127.0.0.1")
    assert seen == Address("127.0.0.1", 9)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage that is longer than a header of STUN",
        question(ID),
        answer(REQUEST, "203.0.113.7", transaction_id=bytes(12)),
        answer(REQUEST, "203.0.113.7", method=Method.ALLOCATE),
        answer(REQUEST, "203.0.113.7")[:-1],
        # The fingerprint is another message's.
        answer(REQUEST, "203.0.113.7")[:-1] + b"\0",
        build(Method.BINDING, MessageClass.INDICATION, ID, ()),
    ],
)
def test_what_is_no_answer_to_the_request_is_passed_over(data: bytes):
    assert judge_untrusted(data, ID, "10.0.0.5") is None


@pytest.mark.parametrize(
    ("public", "local"),
    [
        ("0.0.0.0", "10.0.0.5"),
        ("127.0.0.1", "10.0.0.5"),
        ("127.9.9.9", "127.0.0.1"),
        ("224.0.0.1", "10.0.0.5"),
        ("255.255.255.255", "10.0.0.5"),
        ("169.254.169.254", "10.0.0.5"),
        ("2001:db8::7", "10.0.0.5"),
        ("203.0.113.7", "2001:db8::5"),
        ("::", "2001:db8::5"),
        ("::1", "2001:db8::5"),
        ("ff02::1", "2001:db8::5"),
        ("fe80::1", "2001:db8::5"),
        ("::ffff:203.0.113.7", "2001:db8::5"),
    ],
)
def test_an_address_that_cannot_be_ours_is_refused_by_name(public: str, local: str):
    with pytest.raises(Useless, match="where no peer could reach us") as refusal:
        judge_untrusted(answer(REQUEST, public), ID, local)
    assert public in str(refusal.value)


def test_a_refusal_and_an_empty_answer_are_told():
    with pytest.raises(Useless, match="refuses \\(error 420\\)"):
        judge_untrusted(error(420), ID, "10.0.0.5")
    empty = build(Method.BINDING, MessageClass.SUCCESS, ID, ())
    with pytest.raises(Useless, match="without XOR-MAPPED-ADDRESS"):
        judge_untrusted(empty, ID, "10.0.0.5")


HOSTS = ["10.0.0.5", "172.17.0.1", "2001:db8::5"]


@pytest.mark.parametrize(
    ("found", "written", "pairs"),
    [
        ({}, [], []),
        ({"10.0.0.5": "203.0.113.7"}, [], [("203.0.113.7", "10.0.0.5")]),
        # No NAT; and an address that is gone.
        ({"10.0.0.5": "10.0.0.5", "2001:db8::5": "2001:db8::5"}, [], []),
        ({"10.9.9.9": "203.0.113.7"}, [], []),
        # Written pairs win: for their own address, and for the public one.
        ({"10.0.0.5": "203.0.113.7"}, [("203.0.113.9", "10.0.0.5")], []),
        ({"10.0.0.5": "203.0.113.7"}, [("203.0.113.7", "172.17.0.1")], []),
        # A network of containers is hidden behind the address that is the machine's.
        (
            {"172.17.0.1": "203.0.113.7", "10.0.0.5": "203.0.113.7"},
            [],
            [("203.0.113.7", "10.0.0.5")],
        ),
        (
            {"172.17.0.1": "203.0.113.8", "10.0.0.5": "203.0.113.7"},
            [],
            [("203.0.113.7", "10.0.0.5"), ("203.0.113.8", "172.17.0.1")],
        ),
    ],
)
def test_pairs(found: dict[str, str], written: list[tuple[str, str]], pairs: list[tuple[str, str]]):
    assert pairs_of(found, HOSTS, written) == pairs
