"""A body that an operation takes, made from the document: what is required, as short as it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KNOWN: Final[Mapping[str, Any]] = {
    "cron": "0 3 * * *",
    "password": "correct horse battery 2",
    "old_password": "correct horse battery",
    "new_password": "correct horse battery 2",
    "url": "http://127.0.0.1:9/",
    "model": "kb:own",
    "messages": [{"role": "user", "content": "Leave?"}],
    "platform": "slack",
    "timezone": "UTC",
}
"""What no schema tells."""


def body_for(told: Mapping[str, Any], document: Mapping[str, Any], things: Mapping[str, str]) -> Any:
    """The JSON body; None where the operation takes none."""
    content = told.get("requestBody", {}).get("content", {}).get("application/json")
    return _made(content["schema"], document, things, "") if content else None


def _made(schema: Mapping[str, Any], document: Mapping[str, Any], things: Mapping[str, str], name: str) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    told = [schema[key] for key in ("const", "default") if key in schema]
    told += [known[name] for known in (things, _KNOWN) if name in known] + schema.get("enum", [])
    if told:
        return told[0]
    choices = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]
    if choices:
        return _made(choices[0], document, things, name)
    return _plain(schema, document, things, name)


def _plain(schema: Mapping[str, Any], document: Mapping[str, Any], things: Mapping[str, str], name: str) -> Any:
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            wanted = schema.get("required", ())
            return {one: _made(properties[one], document, things, one) for one in wanted}
        case "array":
            return [_made(schema["items"], document, things, name)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "null":
            return None
    return "x" * max(1, schema.get("minLength", 1))
