"""What a client may say, and what it is told when it says something else."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from signaling.protocol import messages as m
from signaling.protocol.errors import ProtocolError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"type":"hello"}', m.Hello),
        ('{"type":"hello","token":"t","name":"n","resume":{"session":"s","secret":"x","seq":4}}',
         m.Hello),
        ('{"type":"join","id":"1","room":"r","meta":{"a":[1]}}', m.Join),
        ('{"type":"leave","id":"1","room":"r"}', m.Leave),
        ('{"type":"signal","id":"1","to":"p","description":{"type":"offer"}}', m.Signal),
        ('{"type":"signal","id":"1","to":"p","candidate":null}', m.Signal),
        ('{"type":"signal","id":"1","to":"p","candidates":[{},null]}', m.Signal),
        ('{"type":"message","id":"1","data":null}', m.Message),
        ('{"type":"bye"}', m.Bye),
        ('{"type":"ack","seq":3}', m.Ack),
        ('{"type":"ice","id":"1"}', m.Ice),
        ('{"type":"ping","t":1.5}', m.Ping),
        ('{"type":"stats","peer":"p","path":"relay","rtt":0.02}', m.PathStats),
        ('{"type":"bye","something":"of a later version"}', m.Bye),
    ],
)  # fmt: skip
def test_good_messages(text, kind):
    assert isinstance(m.parse_untrusted(text), kind)


def test_null_is_the_end_of_candidates_and_absent_is_not():
    signal = m.parse_untrusted('{"type":"signal","id":"1","to":"p","candidate":null}')
    assert isinstance(signal, m.Signal)
    assert isinstance(signal.candidate, Raw)
    assert bytes(signal.candidate) == b"null"
    assert signal.description is UNSET
    out = m.SignalOut("me", signal.description, signal.candidate, signal.candidates, 3)
    assert json.loads(m.encode(out)) == {
        "type": "signal",
        "from": "me",
        "candidate": None,
        "seq": 3,
    }


DEEP = '{"type":"join","id":"1","room":"r","meta":' + "[" * 60_000 + "]" * 60_000 + "}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_message"),
        ("{", "bad_message"),
        ("[]", "bad_message"),
        ("null", "bad_message"),
        ('"hello"', "bad_message"),
        ("{}", "bad_message"),
        ('{"type":7}', "bad_message"),
        ('{"type":"dance","id":"1"}', "unknown_type"),
        ('{"type":"join","id":"1"}', "bad_message"),
        ('{"type":"join","id":1,"room":"r"}', "bad_message"),
        ('{"type":"join","id":"","room":"r"}', "bad_message"),
        ('{"type":"join","id":"1","room":""}', "bad_message"),
        ('{"type":"join","id":"1","room":"' + "r" * 129 + '"}', "bad_message"),
        ('{"type":"ack","seq":"3"}', "bad_message"),
        ('{"type":"ack","seq":1.5}', "bad_message"),
        ('{"type":"ack","seq":-1}', "bad_message"),
        ('{"type":"ack","seq":9007199254740992}', "bad_message"),
        ('{"type":"hello","resume":{"session":"s","secret":"s","seq":-1}}', "bad_message"),
        ('{"type":"signal","id":"1","to":"p"}', "bad_message"),
        ('{"type":"signal","id":"1","to":"p","candidate":null,"description":{}}', "bad_message"),
        ('{"type":"signal","id":"1","to":"p","candidate":null,"from":"somebody"}', "bad_message"),
        ('{"type":"message","id":"1","data":1,"from":"somebody"}', "bad_message"),
        ("[" * 100_000, "bad_message"),
        (DEEP, "bad_message"),
        ('{"type":"join","id":"1","room":"r","meta":"' + "m" * 4095 + '"}', "bad_message"),
        ('{"type":"\\ud800"}', "bad_message"),
    ],
)  # fmt: skip
def test_bad_messages_have_a_code(text, code):
    with pytest.raises(ProtocolError) as caught:
        m.parse_untrusted(text)
    assert caught.value.code == code
    assert caught.value.message


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_bytes_are_a_message_or_an_error_and_never_anything_else(data):
    with contextlib.suppress(ProtocolError):
        m.parse_untrusted(data)
    m.id_of_untrusted(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=9), children, max_size=4)
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["type", "id", "room", "to", "seq", "description", "candidate", "data",
                         "resume", "from", "t", "path"]),
        json_values,
    ),
    st.sampled_from(["hello", "join", "signal", "message", "ack", "ice", "ping", "stats", "bye"]),
)  # fmt: skip
def test_any_fields_are_a_message_or_an_error(fields, kind):
    try:
        message = m.parse_untrusted(json.dumps({**fields, "type": kind}))
    except ProtocolError:
        return
    assert message.__struct_config__.tag == kind


def test_the_id_is_found_in_what_is_otherwise_wrong():
    assert m.id_of_untrusted('{"type":"dance","id":"7"}') == "7"
    assert m.id_of_untrusted('{"type":"join","id":7}') is None
    assert m.id_of_untrusted("nonsense") is None
    assert m.id_of_untrusted('{"id":"' + "x" * 100 + '"}') is None
