"""A JSON Schema made finite and plain: references written out, words checked, closed for the wire, and the columns it gives. Pure.

With references written out every reader sees one finite tree: a schema that contains itself has no columns and is refused, as is one
that points elsewhere (nothing is fetched) or holds a word that JSON Schema does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.errors import BadOption, closest

__all__ = ["Column", "closed", "columns", "is_object", "plain", "takes_null", "validator"]

#: Columns of a result that a schema's own must not hide.
TAKEN = frozenset(
    {
        "text",
        "status",
        "error_type",
        "error",
        "route",
        "model",
        "attempts",
        "tokens_in",
        "tokens_out",
        "tokens_cached",
        "cost",
        "latency_s",
        "ttft_s",
        "finish_reason",
        "cached",
    }
)

ONE = (
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
)
MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
PLAIN = (
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
KEYWORDS = (*ONE, *MANY, *NAMED, *PLAIN)

#: Most parts of a schema with its references written out.
LARGEST = 5000
KINDS: Mapping[str, str] = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
FORMATS = ("date", "email", "ipv4", "ipv6", "uuid", "regex")


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column: `kind` is string, integer, number, boolean or json. `key` is None where the whole answer is the column."""

    name: str
    key: str | None
    kind: str


def plain(said: Any, where: str) -> Mapping[str, Any]:
    """The schema with its references written out. Raises BadOption, beginning with `where`, for what is no schema or not finite."""
    if not isinstance(said, Mapping):
        raise BadOption(f"{where} is a {type(said).__name__}, not a JSON Schema (a dict) or a pydantic model.")
    _check_words(said, where)
    document: dict[str, Any] = _written_out(said, said, where, (), [0])
    document = {k: v for k, v in document.items() if k not in ("$schema", "$id")}
    if not any(k in document for k in ("type", "properties", "enum", "const", "items", *MANY)):
        raise BadOption(f"{where} says nothing of an answer: it has no type and no properties.")
    _check_schema(document, where)
    return document


def _check_schema(document: Mapping[str, Any], where: str) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(document)
    except SchemaError as exc:
        at = ".".join(str(p) for p in exc.absolute_path)
        raise BadOption(f"{where} is not a JSON Schema{f' at {at}' if at else ''}: {exc.message[:200]}.") from None


def _check_words(node: Any, where: str) -> None:
    """Refuse words that JSON Schema does not have: a misspelt one would be passed over in silence."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key not in KEYWORDS and not str(key).startswith("x-"):
            raise BadOption(f"{where} is not a JSON Schema: there is no keyword {key!r}.{closest(str(key), KEYWORDS)}")
        for part in _parts(key, value):
            _check_words(part, where)


def _parts(key: str, value: Any) -> Iterator[Any]:
    """The schemas inside a keyword's value."""
    if key in NAMED and isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list) and (key in MANY or key in ONE):
        yield from value
    elif key in ONE:
        yield value


def _written_out(node: Any, root: Mapping[str, Any], where: str, inside: tuple[str, ...], size: list[int]) -> Any:
    """`node` with its references replaced by what they point to. `inside`: the references being written out; `size`: parts so far."""
    size[0] += 1
    if size[0] > LARGEST:
        raise BadOption(f"{where} has more than {LARGEST:,} parts once its references are written out.")
    if not isinstance(node, Mapping):
        return node
    out: dict[str, Any] = {}
    if (ref := node.get("$ref")) is not None:
        if ref in inside:
            raise BadOption(f"{where} contains itself ({ref}), so its answers have no fixed columns. Give the nested part a fixed depth.")
        out |= _written_out(_pointed(ref, root, where), root, where, (*inside, str(ref)), size)
    for key, value in node.items():
        if key in ("$ref", "$defs", "definitions"):
            continue
        if key in NAMED and isinstance(value, Mapping):
            out[key] = {k: _written_out(v, root, where, inside, size) for k, v in value.items()}
        elif isinstance(value, list) and (key in MANY or key in ONE):
            out[key] = [_written_out(v, root, where, inside, size) for v in value]
        else:
            out[key] = _written_out(value, root, where, inside, size) if key in ONE else value
    return out


def _pointed(ref: Any, root: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if ref == "#":
        return root
    node: Any = root if isinstance(ref, str) and ref.startswith("#/") else None
    for step in str(ref)[2:].split("/") if node is not None else ():
        name = step.replace("~1", "/").replace("~0", "~")
        node = node.get(name) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        raise BadOption(f"{where}: $ref {ref!r} points to nothing in the schema; only #/… within it is followed.")
    return node


# -- what a server is told -----------------------------------------------------------------------------------------------
def closed(node: Any) -> Any:
    """The schema as structured output wants it: no further properties, all required, optional ones nullable, no defaults."""
    if isinstance(node, list):
        return [closed(v) for v in node]
    if not isinstance(node, Mapping):
        return node
    out = {k: v for k, v in node.items() if k not in ("default", "example", "examples", "discriminator") and not k.startswith("x-")}
    for key, value in out.items():
        if key in NAMED:
            out[key] = {k: closed(v) for k, v in value.items()}
        elif key in ONE or key in MANY:
            out[key] = closed(value)
    if out.get("properties") and out.get("additionalProperties", True) in (True, False):
        needed = node.get("required", ())
        out["properties"] = {k: v if k in needed else _nullable(v) for k, v in out["properties"].items()}
        out |= {"required": list(out["properties"]), "additionalProperties": False}
    return out


def is_object(document: Mapping[str, Any]) -> bool:
    """Whether answers are objects with named properties, as structured output wants its outermost part to be."""
    return bool(document.get("properties"))


def _nullable(node: Any) -> Any:
    return node if takes_null(node) else {"anyOf": [node, {"type": "null"}]}


def takes_null(node: Any) -> bool:
    return not isinstance(node, Mapping) or validator(node).is_valid(None)


def validator(document: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker

    return Draft202012Validator(document, format_checker=FormatChecker(FORMATS))


def columns(document: Mapping[str, Any]) -> Iterator[Column]:
    """The columns of an answer: its properties, or the answer itself."""
    if not is_object(document):
        yield Column("value", None, _kind(document))
        return
    for key, node in document["properties"].items():
        yield Column(f"answer_{key}" if key in TAKEN else key, key, _kind(node))


def _kind(node: Any) -> str:
    """The type of a column; json where it is not one plain type."""
    if not isinstance(node, Mapping):
        return "json"
    types = node.get("type")
    if types is None and ("enum" in node or "const" in node):
        types = [_json_type(v) for v in node.get("enum", [node.get("const")])]
    if types is None:
        kinds = {_kind(part) for key in ("anyOf", "oneOf", "allOf") for part in node.get(key, ()) if part != {"type": "null"}}
    else:
        kinds = {KINDS.get(t, "json") for t in ([types] if isinstance(types, str) else types) if t != "null"}
    return "number" if kinds == {"integer", "number"} else kinds.pop() if len(kinds) == 1 else "json"


def _json_type(value: Any) -> str:
    known = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return known.get(type(value), "object")
