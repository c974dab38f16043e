"""What is written about the protocol, for people and programs, is what the message types say."""

import json

import pytest
from jsonschema import Draft7Validator, ValidationError
from msgspec import Raw

from signaling.protocol import messages as m
from signaling.protocol import schema
from signaling.protocol.errors import RETRYABLE, CloseCode, ErrorCode, ProtocolError
from tests.npm_packages import npm_package
from tests.signaling.live import signaling, sockets

PROSE = schema.PROSE.read_text("utf-8")
STALE = "run: python -m signaling.protocol.schema"


def tables():
    """Every table of PROTOCOL.md by its heading, as lists of cells."""
    found: dict[str, list[list[str]]] = {}
    side = heading = ""
    for line in PROSE.splitlines():
        if line.startswith("## "):
            side = heading = line[3:]
        elif line.startswith("### "):
            heading = f"{side}/{line[4:].strip('`')}"
        elif line.startswith("|") and not line.startswith("|--"):
            found.setdefault(heading, []).append([c.strip() for c in line.strip("|").split("|")])
    return {heading: rows[1:] for heading, rows in found.items()}


@pytest.mark.parametrize(
    "kind", [*schema.CLIENT, *schema.SERVER, *schema.PARTS], ids=lambda kind: kind.__name__
)
def test_every_message_and_every_field_is_described_as_it_is(kind):
    expected = [
        [f"`{field.name}`", field.type, "yes" if field.required else "no"]
        for field in schema.fields(kind)
    ]
    rows = tables()[schema.heading_of(kind)]
    assert [row[:3] for row in rows] == expected
    assert all(len(row) == 4 and row[3] for row in rows)
    assert schema._summary(kind) in PROSE


def test_no_table_is_of_a_message_that_there_is_not():
    kinds = [*schema.CLIENT, *schema.SERVER, *schema.PARTS]
    headings = {schema.heading_of(kind) for kind in kinds}
    assert set(tables()) == headings | {"Errors", "Close codes"}


def test_every_error_code_is_described():
    rows = [(code, retryable) for code, retryable, _ in tables()["Errors"]]
    expected = [(f"`{code}`", "yes" if code in RETRYABLE else "no") for code in ErrorCode]
    assert rows == expected


def test_every_close_code_is_described():
    rows = [(code, name) for code, name, _ in tables()["Close codes"]]
    assert rows == [(str(int(code)), code.name.lower()) for code in CloseCode]


def test_the_files_for_programs_are_those_that_the_types_make():
    document = schema.json_schema(schema.meanings_of(PROSE))
    assert schema.SCHEMA_FILE.read_text("utf-8") == schema.text_of(document), STALE
    assert schema.ASYNCAPI_FILE.read_text("utf-8") == schema.text_of(schema.asyncapi()), STALE
    assert f"\nVersion {schema.VERSION}. " in PROSE


def test_the_json_schema_is_one():
    Draft7Validator.check_schema(json.loads(schema.SCHEMA_FILE.read_text("utf-8")))


def test_the_asyncapi_document_is_one():
    """By the specification's own schema; and what it refers to is there."""
    specification = npm_package("@asyncapi/specs") / "schemas" / "3.0.0.json"
    document = json.loads(schema.ASYNCAPI_FILE.read_text("utf-8"))
    Draft7Validator(json.loads(specification.read_text("utf-8"))).validate(document)
    definitions = json.loads(schema.SCHEMA_FILE.read_text("utf-8"))["definitions"]
    for message in document["components"]["messages"].values():
        file, _, path = message["payload"]["$ref"].partition("#/definitions/")
        assert file == f"./{schema.SCHEMA_FILE.name}"
        assert path in definitions
    for operation in document["operations"].values():
        for reference in operation["messages"]:
            assert (
                reference["$ref"].rpartition("/")[2] in document["channels"]["socket"]["messages"]
            )


def validator(side):
    """Checks messages of one side."""
    document = json.loads(schema.SCHEMA_FILE.read_text("utf-8"))
    definitions = {"definitions": document["definitions"]}
    return Draft7Validator({"$ref": f"#/definitions/{side}Message", **definitions})


GOOD = [
    {"type": "hello"},
    {"type": "hello", "token": None, "resume": {"session": "s", "secret": "x", "seq": 0}},
    {"type": "join", "id": "1", "room": "r", "meta": {"any": ["thing"]}},
    {"type": "signal", "id": "1", "to": "p", "candidate": None},
    {"type": "signal", "id": "1", "to": "p", "candidates": [], "unknown": True},
    {"type": "message", "id": "1", "data": None},
    {"type": "bye", "to": None},
    {"type": "ack", "seq": (1 << 53) - 1},
]
BAD = [
    {"type": "hello", "name": "x" * 129},
    {"type": "hello", "resume": {"session": "s"}},
    {"type": "join", "id": "", "room": "r"},
    {"type": "join", "id": "1"},
    {"type": "join", "id": "x" * 65, "room": "r"},
    {"type": "signal", "id": "1", "to": "p"},
    {"type": "signal", "id": "1", "to": "p", "candidate": None, "description": {}},
    {"type": "signal", "id": "1", "to": "p", "candidate": None, "from": "me"},
    {"type": "message", "id": "1", "data": 1, "from": "me"},
    {"type": "message", "id": 1, "data": 1},
    {"type": "ack", "seq": -1},
    {"type": "ack", "seq": 1 << 53},
    {"type": "nothing"},
    {},
]


@pytest.mark.parametrize("message", [*GOOD, *BAD], ids=json.dumps)
def test_the_schema_judges_as_the_server_does(message):
    good = message in GOOD
    if good:
        validator("Client").validate(message)
        m.parse_untrusted(json.dumps(message))
    else:
        with pytest.raises(ValidationError):
            validator("Client").validate(message)
        with pytest.raises(ProtocolError):
            m.parse_untrusted(json.dumps(message))


async def test_what_a_server_says_is_what_the_schema_says():
    """A call of two with everything that can happen in it; every frame is checked."""
    frames = []
    async with signaling() as service, sockets(service) as connect:
        ada, bob = await connect(), await connect()
        for socket in (ada, bob):
            hear = socket.hear

            async def heard(*kinds, hear=hear):
                frames.append(await hear())
                while kinds and frames[-1]["type"] not in kinds:
                    frames.append(await hear())
                return frames[-1]

            socket.hear = heard
        await ada.hello(name="Ada")
        peer = (await bob.hello())["peer"]
        await ada.join("r")
        await bob.join("r")
        await ada.say(type="signal", id="1", to=peer, description={"type": "offer", "sdp": ""})
        await ada.say(type="signal", id="2", to=peer, candidate=None)
        await ada.say(type="signal", id="3", to=peer, candidates=[{}])
        await ada.say(type="message", id="4", data={"a": 1})
        await ada.say(type="bye", to=peer)
        await bob.hear("bye")
        await ada.say(type="ice", id="5")
        await ada.say(type="ping", t=0.5)
        await ada.hear("pong")
        for text in ("{}", '{"type":"x"}', '{"type":"leave","id":"6","room":"x"}'):
            await ada.ws.send_str(text)
            await ada.hear("error")
        await bob.say(type="join", id="7", room="r", meta=1)
        await bob.say(type="leave", id="8", room="r")
        while (await ada.hear("peer"))["event"] != "leave":
            pass
        service._hub.drain(1)
        await ada.hear("goaway")
    frames.append(json.loads(m.encode(m.Jump(1_000_000))))  # said where a Redis is away
    for frame in frames:
        validator("Server").validate(frame)
    kinds = {schema.tag(kind) for kind in schema.SERVER}
    assert {frame["type"] for frame in frames} == kinds


def test_a_type_that_nobody_described_is_refused():
    with pytest.raises(TypeError, match="no schema"):
        schema._schema_of(set[Raw])
