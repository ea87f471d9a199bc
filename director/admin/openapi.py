"""The OpenAPI 3.1 document of REST, made of the tables that REST itself runs on: it cannot say anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from cluster.model import Group, Service
from director.admin.operation import Operation
from director.admin.text import Text
from director.version import VERSION

_REF = "#/components/schemas/{name}"

#: Refusals, as docs/reference/rest.md tells them.
_REFUSALS = {
    400: "a parameter is missing, unknown or out of range",
    401: "not signed in",
    403: "the role does not allow it",
    404: "no such service, group, host, user or connection",
    409: "not in the present state",
    413: "the body is too large",
    429: "too many failed sign-ins",
    503: "the store does not answer; nothing was changed",
    504: "the store did not answer; it is not known whether the change was made",
}
_STALE = {412: "the service is of another revision than If-Match or If-None-Match demands"}
#: What the conditional headers mean is REST's, see `director.admin.rest`.
_CONDITIONS = (
    {"name": "If-Match", "in": "header", "schema": {"type": "string", "pattern": '^"[0-9]{1,18}"$'},
     "description": "the revision that the service must have, as an ETag gave it"},
    {"name": "If-None-Match", "in": "header", "schema": {"const": "*"}, "description": "there must be no such service"},
)


#: Answers that are not what their annotation says in every word: with its secrets struck out, a configuration is none.
_LOOSER: Mapping[str, Any] = {"config_boot": dict[str, Any] | Text}


class Refusal(msgspec.Struct):
    """What a refusal's body says."""

    error: str
    place: str = ""  #: of what is wrong, when it has one


def document(routes: Sequence[Any], operations: Mapping[str, Operation]) -> bytes:
    """The document as JSON.

    :param routes: `director.admin.rest.Route`.
    """
    answers = {name: get_type_hints(operation.perform)["return"] for name, operation in operations.items()}
    answers |= _LOOSER
    parameters = {operation.parameters for operation in operations.values()}
    described, schemas = msgspec.json.schema_components(
        [*(_data(answer) for answer in answers.values()), *parameters, Service, Group, Refusal], ref_template=_REF
    )
    content = {
        name: _content(answer, schema) for (name, answer), schema in zip(answers.items(), described, strict=False)
    }
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = operations[route.operation]
        schema = schemas[operation.parameters.__name__]
        for method in route.methods:
            if method != "HEAD":
                path = paths.setdefault(f"/api/v1/{route.path}", {})
                path[method.lower()] = _operation(route, method, operation, schema, content[operation.name])
    for kind in parameters:
        del schemas[kind.__name__]
    return msgspec.json.encode(_portable({
        "openapi": "3.1.0",
        "info": {"title": "txdirector", "version": VERSION},
        "security": [{"password": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"}},
            "schemas": schemas,
        },
    }))


def _operation(route: Any, method: str, operation: Operation, schema: dict[str, Any], content: Any) -> dict[str, Any]:
    fields = schema.get("properties", {})
    required = schema.get("required", [])
    in_path = [name for name in fields if f"{{{name}}}" in route.path]
    others = [name for name in fields if name not in in_path]
    given = [{"name": name, "in": "path", "required": True, "schema": fields[name]} for name in in_path]
    described: dict[str, Any] = {
        # one operation may be had in several ways, and each needs a name of its own
        "operationId": "_".join([method.lower(), *route.path.translate(_WORDS).split()]),
        "summary": operation.summary,
        "description": f"Operation `{operation.name}`, role `{operation.role.value}`.",
    }
    refusals = dict(_REFUSALS)
    if method == "GET":
        given += [{"name": name, "in": "query", "required": name in required, "schema": fields[name]} for name in others]
    else:
        needed = [name for name in others if name in required]
        body = {"type": "object", "properties": {name: fields[name] for name in others}, "additionalProperties": False}
        described["requestBody"] = {
            "required": bool(needed),
            "content": {"application/json": {"schema": body | ({"required": needed} if needed else {})}},
        }
        if "revision" in fields:
            given += _CONDITIONS
            refusals |= _STALE
    described["parameters"] = given
    described["responses"] = {"200": {"description": "done", "content": content}} | {
        str(status): {"description": why, "content": {"application/json": {"schema": {"$ref": _REF.format(name="Refusal")}}}}
        for status, why in sorted(refusals.items())
    }
    return described


def _content(answer: Any, schema: dict[str, Any]) -> dict[str, Any]:
    text = {"application/toml": {"schema": {"type": "string"}}} if Text in get_args(answer) else {}
    return {"application/json": {"schema": schema}} | text


def _data(answer: Any) -> Any:
    """The type of an answer as JSON."""
    if get_origin(answer) in (Union, UnionType):
        (answer,) = (each for each in get_args(answer) if each is not Text)
    return answer


_WORDS = str.maketrans("/{}", "   ")


def _portable(value: Any) -> Any:
    """Python's regular expressions as JSON Schema has them (ECMA-262): there, ``$`` is the end and nothing else."""
    if isinstance(value, dict):
        return {
            key: item.replace(r"\Z", "$") if key == "pattern" and isinstance(item, str) else _portable(item)
            for key, item in value.items()
        }
    return [_portable(item) for item in value] if isinstance(value, list | tuple) else value
