"""The protocol for programs: a JSON Schema and an AsyncAPI document, made from the message types.

``PROTOCOL.md`` is the same for people; its tables say in words what a field means, and those words
are the schema's descriptions. ``python -m signaling.protocol.schema`` writes both files anew; a
test holds types, tables and files together.
"""

import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Raw, UnsetType

from signaling.protocol import SUBPROTOCOL
from signaling.protocol import messages as m
from signaling.protocol.errors import ErrorCode

FOLDER = Path(__file__).parents[1]
PROSE = FOLDER / "PROTOCOL.md"
SCHEMA_FILE = FOLDER / "protocol.schema.json"
ASYNCAPI_FILE = FOLDER / "asyncapi.json"
VERSION = "1.0"
"""Of the documents: the first number changes with the subprotocol."""
DRAFT = "http://json-schema.org/draft-07/schema#"
"""The draft that AsyncAPI 3.0 reads without being told."""

CLIENT: tuple[type[msgspec.Struct], ...] = m.ClientMessage.__args__
SERVER: tuple[type[msgspec.Struct], ...] = get_args(m.ServerMessage)
PARTS: tuple[type[msgspec.Struct], ...] = (m.Resume, m.PeerEntry)
"""What is inside of messages and has fields of its own."""
VALUES: dict[tuple[type[msgspec.Struct], str], list[str]] = {
    (m.PathStats, "path"): ["host", "srflx", "prflx", "relay"],
    (m.PeerEntry, "state"): ["present", "suspended"],
    (m.PeerEvent, "event"): ["join", "leave", "suspended", "resumed", "update"],
    (m.Ok, "status"): ["done", "delivered", "queued"],
    (m.Error, "code"): [str(code) for code in ErrorCode],
}
"""Texts of which there are only so many."""
MOST_LISTED = 6
"""Values that a table names beside a field; more have a table of their own."""
EXACT: dict[Any, dict[str, Any]] = {
    str: {"type": "string"}, bool: {"type": "boolean"}, int: {"type": "integer"},
    float: {"type": "number"}, Raw: {}, Any: {}, type(None): {"type": "null"},
    m.Seq: {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1},
    m.Id: {"type": "string", "minLength": 1, "maxLength": m.MOST_ID},
    m.RoomName: {"type": "string", "minLength": 1, "maxLength": m.MOST_ROOM},
    m.PeerName: {"type": "string", "maxLength": m.MOST_NAME},
}  # fmt: skip


class Field(msgspec.Struct):
    """One field of a message, as it is on the wire."""

    name: str
    schema: dict[str, Any]
    required: bool

    @property
    def type(self) -> str:
        """Its type in a few words, as the tables of ``PROTOCOL.md`` have it."""
        return _words(self.schema)


def tag(kind: type[msgspec.Struct]) -> str:
    """The ``type`` of a message; of a part of one, the name of its class."""
    return str(kind.__struct_config__.tag or kind.__name__)


def fields(kind: type[msgspec.Struct]) -> list[Field]:
    """The fields of a message, without ``type`` and without what it must not have."""
    found = []
    for field in msgspec.structs.fields(kind):
        if field.name == "forged":
            continue
        schema = dict(_schema_of(field.type))
        if (kind, field.name) in VALUES:
            schema["enum"] = VALUES[kind, field.name]
        # What the server leaves out where it is the default is optional for whoever reads it.
        given = field.default is NODEFAULT and field.default_factory is NODEFAULT
        always = kind in SERVER and not kind.__struct_config__.omit_defaults
        numbered = kind in m.Event.__args__ and field.name == "seq"
        found.append(Field(field.encode_name, schema, given or always or numbered))
    return found


def json_schema(meanings: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Every message as JSON Schema, draft 7. :param meanings: by heading, then by field."""
    definitions = {
        kind.__name__: _definition(kind, meanings) for kind in (*PARTS, *CLIENT, *SERVER)
    }
    for name, kinds in (("ClientMessage", CLIENT), ("ServerMessage", SERVER)):
        definitions[name] = {"oneOf": [_reference(kind) for kind in kinds]}
    return {
        "$schema": DRAFT,
        "$id": f"urn:{SUBPROTOCOL}",
        "title": f"Messages of {SUBPROTOCOL}",
        "anyOf": [{"$ref": f"#/definitions/{side}Message"} for side in ("Client", "Server")],
        "definitions": definitions,
    }


def asyncapi() -> dict[str, Any]:
    """The protocol as an AsyncAPI 3.0 document; messages refer to the JSON Schema beside it."""
    messages = {
        kind.__name__: {
            "name": tag(kind),
            "summary": _summary(kind),
            "contentType": "application/json",
            "payload": {"$ref": f"./{SCHEMA_FILE.name}#/definitions/{kind.__name__}"},
        }
        for kind in (*CLIENT, *SERVER)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Icebroker signaling",
            "version": VERSION,
            "description": f"JSON text frames over a WebSocket, subprotocol {SUBPROTOCOL}. "
            "PROTOCOL.md says what the server guarantees.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": {"yours": {"host": "icebroker.example.org", "protocol": "wss"}},
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/ws",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            "fromClient": _operation("receive", "What a client says.", CLIENT),
            "toClient": _operation("send", "What the server says.", SERVER),
        },
        "components": {"messages": messages},
    }


def meanings_of(prose: str) -> dict[str, dict[str, str]]:
    """What each field means, from the tables of ``PROTOCOL.md``: by side and heading, by field."""
    found: dict[str, dict[str, str]] = {}
    side = heading = ""
    for line in prose.splitlines():
        if title := re.match(r"(##+) (.+)", line):
            level, text = title.groups()
            side, heading = (text, "") if level == "##" else (side, text.strip("`"))
        elif row := re.match(r"\| `([^`]+)` \|.*\| ([^|]+) \|$", line):
            found.setdefault(f"{side}/{heading}", {})[row[1]] = row[2]
    return found


def heading_of(kind: type[msgspec.Struct]) -> str:
    """Where ``PROTOCOL.md`` has the table of a message."""
    sides = {CLIENT: "Client to server", SERVER: "Server to client", PARTS: "Parts of messages"}
    side = next(name for kinds, name in sides.items() if kind in kinds)
    return f"{side}/{tag(kind)}"


def text_of(document: dict[str, Any]) -> str:
    """A document as its file has it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _definition(kind: type[msgspec.Struct], meanings: dict[str, dict[str, str]]) -> dict[str, Any]:
    words = meanings.get(heading_of(kind), {})
    properties: dict[str, Any] = {"type": {"const": tag(kind)}} if kind not in PARTS else {}
    required = list(properties)
    for field in fields(kind):
        described = {"description": words[field.name]} if field.name in words else {}
        properties[field.name] = _with_siblings(field.schema) | described
        if field.required:
            required.append(field.name)
    if any(field.name == "forged" for field in msgspec.structs.fields(kind)):
        properties["from"] = False  # the server writes it, and refuses a message that has it
    definition: dict[str, Any] = {
        "description": _summary(kind), "type": "object",
        "properties": properties, "required": required,
    }  # fmt: skip
    if kind in (m.Signal, m.SignalOut):
        definition["oneOf"] = [{"required": [part]} for part in m.SIGNAL_PARTS]
    return definition


def _with_siblings(schema: dict[str, Any]) -> dict[str, Any]:
    """In draft 7 nothing beside ``$ref`` is read."""
    return {"allOf": [schema]} if "$ref" in schema else schema


def _summary(kind: type[msgspec.Struct]) -> str:
    return " ".join((kind.__doc__ or "").replace("``", "`").split())


def _operation(
    action: str, summary: str, kinds: tuple[type[msgspec.Struct], ...]
) -> dict[str, Any]:
    references = [{"$ref": f"#/channels/socket/messages/{kind.__name__}"} for kind in kinds]
    return {
        "action": action, "channel": {"$ref": "#/channels/socket"},
        "summary": summary, "messages": references,
    }  # fmt: skip


def _reference(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{kind.__name__}"}


def _schema_of(annotation: Any) -> dict[str, Any]:
    if annotation in EXACT:
        return EXACT[annotation]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _reference(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _either([_schema_of(part) for part in inner if part is not UnsetType])
    if origin in (list, tuple):
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(inner[1])}
    raise TypeError(f"no schema is known for {annotation}")


def _either(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    if len(schemas) == 1:
        return schemas[0]
    plain = [schema for schema in schemas if schema.keys() == {"type"}]
    if len(plain) >= len(schemas) - 1 and all("type" in schema for schema in schemas):
        types = [schema["type"] for schema in schemas]
        return {key: each for schema in schemas for key, each in schema.items()} | {"type": types}
    return {"anyOf": schemas}


def _words(schema: dict[str, Any]) -> str:
    if len(schema.get("enum", ())) > MOST_LISTED:
        return "string, one of those below"
    if "enum" in schema:
        return " · ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_words(each) for each in schema["anyOf"])
    kind = schema.get("type", "any JSON")
    words = " or ".join(kind) if isinstance(kind, list) else kind
    if words == "array":
        words = f"array of {_words(schema['items'])}"
    if "maxLength" in schema:
        words += f", {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    if "maximum" in schema:
        words += ", 0 to 2^53 - 1"
    return str(words)


def main() -> None:
    """Write both files."""
    meanings = meanings_of(PROSE.read_text("utf-8"))
    SCHEMA_FILE.write_text(text_of(json_schema(meanings)), "utf-8")
    ASYNCAPI_FILE.write_text(text_of(asyncapi()), "utf-8")


if __name__ == "__main__":
    main()
