"""The keywords of JSON Schema 2020-12, by what their values are. Others are refused: JSON Schema itself ignores a misspelt one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["ANNOTATIONS", "KEYWORDS", "SUBSCHEMA_KEYWORDS", "SUBSCHEMA_LIST_KEYWORDS", "SUBSCHEMA_MAP_KEYWORDS", "subschemas"]

SUBSCHEMA_KEYWORDS = (
    "items",
    "additionalItems",
    "contains",
    "additionalProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
)
SUBSCHEMA_LIST_KEYWORDS = ("allOf", "anyOf", "oneOf", "prefixItems")
SUBSCHEMA_MAP_KEYWORDS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
PLAIN_KEYWORDS = (
    "$schema",
    "$id",
    "$ref",
    "$comment",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "type",
    "enum",
    "const",
    "format",
    "discriminator",
    "required",
    "dependentRequired",
    "minProperties",
    "maxProperties",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "contentEncoding",
    "contentMediaType",
)
KEYWORDS = (*SUBSCHEMA_KEYWORDS, *SUBSCHEMA_LIST_KEYWORDS, *SUBSCHEMA_MAP_KEYWORDS, *PLAIN_KEYWORDS)

#: What says nothing of which answers hold, so that it may stand beside a reference in every draft.
ANNOTATIONS = frozenset(
    [
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    ]
)


def subschemas(key: str, value: Any) -> Iterator[Any]:
    """The subschemas in a keyword's value."""
    if key in SUBSCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list) and (key in SUBSCHEMA_LIST_KEYWORDS or key in SUBSCHEMA_KEYWORDS):
        yield from value
    elif key in SUBSCHEMA_KEYWORDS:
        yield value
