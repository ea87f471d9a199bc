"""The REST interface's page from its own OpenAPI document: each operation with what it takes and answers, each object.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from director.admin.control import OPERATIONS
from director.admin.openapi import document
from director.admin.rest import ROUTES

#: Answers of every operation alike, told once.
_EVERYWHERE = {"400", "401", "403", "404", "409", "413", "429", "503", "504"}


def api_page() -> str:
    """Operations, then objects, as Markdown from the second heading on."""
    whole = json.loads(document(ROUTES, OPERATIONS))
    parts = ["## Operations"]
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            parts += [f"### {method.upper()} {path}", *_operation(operation)]
    parts.append("## Objects")
    for name, schema in sorted(whole["components"]["schemas"].items()):
        parts += [f"### {name}", *_object(schema)]
    return "\n\n".join(parts) + "\n"


def _operation(operation: dict[str, Any]) -> Iterator[str]:
    yield f"{operation['summary']} {operation['description']}"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    rows = [(each["name"], each["in"], each["schema"], each.get("required", False), each.get("description", ""))
            for each in operation["parameters"]]
    rows += [(name, "body", schema, name in body.get("required", ()), "")
             for name, schema in body.get("properties", {}).items()]
    if rows:
        yield "\n".join(("| parameter | in | type | |", "|---|---|---|---|", *(
            f"| `{name}` | {where} | {_kind(schema)} | {told or ('required' if required else _default(schema))} |"
            for name, where, schema, required, told in rows)))
    answers = operation["responses"]
    contents = answers["200"]["content"]
    told = ", or ".join(_kind(each["schema"]) for each in contents.values())
    yield f"Answers {told}." + "".join(
        f" {status}: {answers[status]['description']}." for status in sorted(set(answers) - _EVERYWHERE - {"200"}))


def _object(schema: dict[str, Any]) -> Iterator[str]:
    if told := schema.get("description"):
        yield " ".join(told.split()).replace("``", "`").replace("<", "&lt;")
    if "enum" in schema:
        yield f"One of {_kind(schema)}."
    required = schema.get("required", ())
    if properties := schema.get("properties"):
        yield "\n".join(("| key | type | |", "|---|---|---|", *(
            f"| `{name}` | {_kind(each)} | {'' if name in required else _default(each)} |"
            for name, each in properties.items())))


def _default(schema: dict[str, Any]) -> str:
    return f"default `{json.dumps(schema['default'])}`" if "default" in schema else "may be left out"


def _kind(schema: dict[str, Any]) -> str:
    """A schema in few words; what is an object of its own by a link to it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    match schema.get("type"):
        case "array":
            return f"array of {_kind(schema['items'])}" if "items" in schema else "array"
        case "object" if isinstance(values := schema.get("additionalProperties"), dict) and values:
            return f"object of {_kind(values)} by name"
        case "integer" | "number" as kind:
            return kind + _bounds(schema)
        case None:
            return "anything"
        case kind:
            return str(kind)


def _bounds(schema: dict[str, Any]) -> str:
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    words = [] if low is None else [f" from {low:,g}"]
    words += [] if above is None else [f" above {above:,g}"]
    words += [] if high is None else [f" to {high:,.0f}"]
    return "".join(words)
