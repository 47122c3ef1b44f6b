"""Instances of a JSON Schema, drawn from a number: the simulator's answers to requests with a schema. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["sample_json"]

WORDS = ("plain", "good", "late", "small", "clear", "warm", "new", "loud")


def sample_json(schema: Any, draw: int) -> Any:
    """An instance of a schema without references, selected by `draw`. Ignores patterns and formats."""
    if not isinstance(schema, Mapping):
        return "word"
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][draw % len(schema["enum"])]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return sample_json(schema[word][0], draw)
    if schema.get("allOf"):
        return sample_json(_together(schema), draw)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, draw)


def _together(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema and those of its `allOf` as one. Of a limit that two of them have the later one counts."""
    parts = [part for part in schema["allOf"] if isinstance(part, Mapping)]
    merged = {key: value for part in (schema, *parts) for key, value in part.items() if part is not schema or key != "allOf"}
    properties: dict[str, Any] = {}
    for part in (schema, *parts):
        for name, own in part.get("properties", {}).items():
            properties[name] = {"allOf": [properties[name], own]} if name in properties else own
    return {**merged, "properties": properties} if properties else merged


def _of_type(kind: str, schema: Mapping[str, Any], draw: int) -> Any:
    if kind == "object":
        return {name: sample_json(part, draw // 7 + 3 * i) for i, (name, part) in enumerate(schema.get("properties", {}).items())}
    if kind == "array":
        first, further = schema.get("prefixItems", ()), schema.get("items", {})
        n = max(len(first) or 1, schema.get("minItems", 1))
        parts = [*first, *[further] * (0 if further is False else n - len(first))][: schema.get("maxItems", n)]
        return [sample_json(part, draw + i) for i, part in enumerate(parts)]
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 10) - 1)
        value = low + draw % max(1, int(high - low) + 1)
        return int(value) if kind == "integer" else float(value)
    if kind == "boolean":
        return draw % 2 == 0
    if kind == "null":
        return None
    text = WORDS[draw % len(WORDS)]
    return text.ljust(schema.get("minLength", 0), "e")[: schema.get("maxLength", len(text) + schema.get("minLength", 0))]
