"""Values that fit a JSON Schema, drawn from a number: what the simulator answers where a schema is asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["fitting"]

WORDS = ("plain", "good", "late", "small", "clear", "warm", "new", "loud")


def fitting(schema: Any, draw: int) -> Any:
    """A value of a schema without references; which one is `draw`'s to say. Patterns and formats are passed over."""
    if not isinstance(schema, Mapping):
        return "word"
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][draw % len(schema["enum"])]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return fitting(schema[word][0], draw)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, draw)


def _of_type(kind: str, schema: Mapping[str, Any], draw: int) -> Any:
    if kind == "object":
        return {name: fitting(part, draw // 7 + 3 * i) for i, (name, part) in enumerate(schema.get("properties", {}).items())}
    if kind == "array":
        return [fitting(schema.get("items", {}), draw + i) for i in range(max(1, schema.get("minItems", 1)))]
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
