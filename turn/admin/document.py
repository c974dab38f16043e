"""The OpenAPI document (3.1.0), made from the very operations that are served."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from turn.admin.guard import Problem, error_code
from turn.admin.operation import Operation, Parameter

MEANINGS = {
    400: "A parameter or the body is not understood.",
    401: "The bearer token is missing or wrong.",
    403: "The page that asks is of another origin.",
    404: "There is no such thing here now.",
    409: "It was refused, and nothing has changed.",
    429: "As many as may are open.",
    503: "Something that it needs is away.",
}
ABOUT = (
    "What an operator sees of one Icebroker process and can do to it. Everything is of this "
    "process alone: behind a load balancer, ask each node. Only a revocation holds wherever nodes "
    "share a Redis."
)
REF = "#/components/schemas/{name}"


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of these operations."""
    bodies = [operation.body for operation in operations if operation.body]
    answers = [operation.answer for operation in operations if operation.answer]
    kinds = list(dict.fromkeys([*answers, *bodies, Problem]))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    refs = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _one(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Icebroker admin API",
            "version": version("icebroker"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": components,
        },
    }


def _one(operation: Operation, refs: dict[Any, Any]) -> dict[str, Any]:
    if operation.answer is None:
        content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": refs[operation.answer]}}
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.about,
        "responses": {
            "200": {"description": "Done.", "content": content},
            **{
                str(status): {
                    "description": f"{error_code(status)}: {MEANINGS[status]}",
                    "content": {"application/json": {"schema": refs[Problem]}},
                }
                for status in sorted({401, 403, *operation.refusals})
            },
        },
    }
    if operation.parameters:
        found["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        required = bool(msgspec.structs.fields(operation.body)[0].required)
        schema = {"application/json": {"schema": refs[operation.body]}}
        found["requestBody"] = {"required": required, "content": schema}
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required or parameter.place == "path",
        "description": parameter.about,
        "schema": {"type": parameter.kind},
    }
