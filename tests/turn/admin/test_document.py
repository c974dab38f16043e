"""The OpenAPI document: true to the standard, to the routes, and to what is really answered."""

import re

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.operator_api import both_operated, operator
from tests.signaling.live import sockets
from tests.turn.live import port_of, relay
from turn.admin.journal import Journal
from turn.admin.listener import FILES
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address

NOT_OF_THE_API = {"/metrics", "/healthz", "/readyz", "/probe", "/api/v1/openapi.json", *FILES}
UNTYPED = re.compile(r"\{(\w+)\}")


@pytest.fixture
async def stage(connect):
    """Both services with something in them, and their operator."""
    async with both_operated() as (turn, rooms, api), sockets(rooms) as join:
        client = await connect(port_of(turn))
        await client.allocate()
        metadata = (registry.XOR_PEER_ADDRESS, Address("169.254.169.254", 80))
        await client.request(Method.CREATE_PERMISSION, metadata)
        await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, SOMEBODY))
        peer = await join()
        await peer.hello(name="Anna")
        await peer.join("a/b c?")
        yield api


SOMEBODY = Address("127.0.0.1", 9)


@pytest.fixture
async def document(stage):
    """The document, as anybody may read it."""
    answer = await stage.ask("openapi.json", token="")
    assert answer.status == 200
    return answer.body


async def test_it_is_true_to_the_standard(document):
    OpenAPIV31SpecValidator(document).validate()


async def test_it_has_exactly_the_routes_that_are_served(stage, document):
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    app = stage.admin._runner.app
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource.canonical not in NOT_OF_THE_API
    }
    assert described == served
    assert len(described) == 13 + 2 + 3 * (3 + 2)


async def test_names_are_given_once_and_parameters_are_those_of_the_path(document):
    names = []
    for path, item in document["paths"].items():
        for operation in item.values():
            names.append(operation["operationId"])
            declared = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            assert declared == UNTYPED.findall(path)
            assert operation["summary"].endswith(".")
    assert len(names) == len(set(names))


CALLS = [
    ("status", "GET", None, 200),
    ("refusals", "GET", None, 200),
    ("refusals?colour=blue", "GET", None, 400),
    ("events?kinds=typo", "GET", None, 400),  # else it is a stream, which has no end
    ("errors", "GET", None, 200),
    ("drain", "GET", None, 200),
    ("drain", "POST", {"seconds": 30}, 200),
    ("drain", "POST", None, 200),
    ("drain", "POST", {"seconds": -1}, 400),
    ("drain", "POST", {"seconds": "x"}, 400),
    ("drain", "POST", "not json", 400),
    ("drain", "DELETE", None, 200),
    ("reload", "POST", None, 200),
    ("log", "GET", None, 200),
    ("log", "PUT", {"level": "debug"}, 200),
    ("log", "PUT", {"level": "loud"}, 400),
    ("log", "PUT", None, 400),
    ("revocations", "GET", None, 200),
    ("revocations/anna", "PUT", None, 200),
    ("revocations/anna", "PUT", {"seconds": 0}, 400),
    ("revocations/anna", "DELETE", None, 200),
    ("revocation?user=..", "PUT", None, 200),
    ("revocation", "PUT", None, 400),
    ("revocation?user=..", "DELETE", None, 200),
    ("allocation?id=1", "GET", None, 200),
    ("allocation?id=1", "DELETE", None, 200),
    ("room?id=a/b%20c%3F", "GET", None, 200),
    ("room?id=a/b%20c%3F", "DELETE", None, 200),
    ("room", "GET", None, 404),
    ("peer?id=none", "GET", None, 404),
    ("peer?id=none", "DELETE", None, 404),
    ("allocations", "GET", None, 200),
    ("allocations?limit=0", "GET", None, 400),
    ("allocations/1", "GET", None, 200),
    ("allocations/1", "DELETE", None, 200),
    ("allocations/2", "DELETE", None, 404),
    ("rooms", "GET", None, 200),
    ("rooms/a%2Fb%20c%3F", "GET", None, 200),
    ("rooms/a%2Fb%20c%3F", "DELETE", None, 200),
    ("rooms/none", "GET", None, 404),
    ("peers", "GET", None, 200),
    ("peers?connected=true", "GET", None, 200),
    ("peers/none", "GET", None, 404),
    ("peers/none", "DELETE", None, 404),
]


@pytest.mark.parametrize(("path", "method", "body", "status"), CALLS)
async def test_what_is_answered_is_what_it_says(stage, document, path, method, body, status):
    answer = await stage.ask(path, method, body)
    assert answer.status == status, answer.text
    plain = "/api/v1/" + path.partition("?")[0]
    candidates = [p for p in document["paths"] if re.fullmatch(UNTYPED.sub("[^/]+", p), plain)]
    operation = document["paths"][candidates[0]][method.lower()]
    schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.body, {**schema, "components": document["components"]})


async def test_every_operation_is_called_above(document):
    called = {
        (method, path)
        for given, method, *_ in CALLS
        for path in document["paths"]
        if re.fullmatch(UNTYPED.sub("[^/]+", path), "/api/v1/" + given.partition("?")[0])
    }
    described = {(m.upper(), path) for path, item in document["paths"].items() for m in item}
    assert called == described


async def test_one_peer_in_full(stage, document):
    (peer,) = (await stage.get("peers"))["peers"]
    details = await stage.get(f"peers/{peer['id']}")
    assert details["rooms"] == ["a/b c?"]
    assert (details["name"], details["connected"], details["may_send"]) == ("Anna", True, True)
    assert (await stage.ask(f"peers/{peer['id']}", "DELETE")).status == 200


async def test_a_process_with_one_service_describes_no_other():
    journal = Journal()
    async with relay(journal.tell) as turn, operator(journal, turn) as api:
        paths = (await api.ask("openapi.json")).body["paths"]
        assert "/api/v1/allocations" in paths
        assert "/api/v1/rooms" not in paths
