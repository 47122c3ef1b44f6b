"""Normalization of a JSON Schema: references resolved, keywords checked, strict for the wire, and the columns of its answers. Pure.

With references resolved every reader sees one finite tree. A recursive schema has no fixed columns and is refused, as is one that
refers outside itself (nothing is fetched) or has a keyword that JSON Schema does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from holynb.errors import BadOption, closest
from holynb.schema import validators
from holynb.schema.drafts import beside, modern
from holynb.schema.keywords import KEYWORDS, SUBSCHEMA_KEYWORDS, SUBSCHEMA_LIST_KEYWORDS, SUBSCHEMA_MAP_KEYWORDS, subschemas
from holynb.words import an

__all__ = ["Column", "columns", "is_nullable", "is_object", "resolve", "to_strict", "validator"]

#: Columns of a result; a property of the same name gets the prefix `answer_`.
RESERVED_COLUMNS = frozenset(
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
        "tokens_reasoning",
        "tokens_cache_write",
        "cost",
        "latency_s",
        "ttft_s",
        "finish_reason",
        "cached",
        "reasoning",
    }
)

#: Most nodes of a schema once its references are resolved.
MAX_NODES = 5000
COLUMN_KINDS: Mapping[str, str] = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
FORMATS = ("date", "email", "ipv4", "ipv6", "uuid", "regex")


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column. `kind` is string, integer, number, boolean or json. `key` is None where the whole answer is the column."""

    name: str
    key: str | None
    kind: str


def resolve(source: Any, where: str) -> Mapping[str, Any]:
    """The schema with its references resolved. Raises BadOption, its message beginning with `where`, for an invalid or infinite schema."""
    if not isinstance(source, Mapping):
        hint = f" Begin it with class {source.__name__}(pydantic.BaseModel):" if isinstance(source, type) else ""
        raise BadOption(f"{where} is {an(type(source).__name__)}, not a JSON Schema (a dict) or a pydantic model.{hint}")
    source = modern(source, where)
    _check_keywords(source, where)
    document: dict[str, Any] = _resolve(source, source, where, (), [0])
    document = {k: v for k, v in document.items() if k not in ("$schema", "$id")}
    if not any(k in document for k in ("type", "properties", "enum", "const", "items", *SUBSCHEMA_LIST_KEYWORDS)):
        raise BadOption(f"{where} describes no answer: it has neither type nor properties.")
    _check_schema(document, where)
    return document


def _check_schema(document: Mapping[str, Any], where: str) -> None:
    jsonschema = validators.library()
    try:
        jsonschema.Draft202012Validator.check_schema(document)
    except jsonschema.SchemaError as exc:
        at = ".".join(str(p) for p in exc.absolute_path)
        raise BadOption(f"{where} is not a JSON Schema{f' at {at}' if at else ''}: {exc.message[:200]}.") from None


def _check_keywords(node: Any, where: str) -> None:
    """Refuse unknown keywords: JSON Schema ignores a misspelt one."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key not in KEYWORDS and not str(key).startswith("x-"):
            raise BadOption(f"{where} is not a JSON Schema: there is no keyword {key!r}.{closest(str(key), KEYWORDS)}")
        for part in subschemas(key, value):
            _check_keywords(part, where)


def _resolve(node: Any, root: Mapping[str, Any], where: str, open_refs: tuple[str, ...], size: list[int]) -> Any:
    """`node` with its references replaced by their targets. `open_refs`: references being resolved; `size`: [nodes so far]."""
    size[0] += 1
    if size[0] > MAX_NODES:
        raise BadOption(f"{where} has more than {MAX_NODES:,} parts once its references are written out.")
    if not isinstance(node, Mapping):
        return node
    resolved: Mapping[str, Any] = {}
    if (ref := node.get("$ref")) is not None:
        if ref in open_refs:
            raise BadOption(f"{where} contains itself ({ref}), so its answers have no fixed columns. Give the nested part a fixed depth.")
        target = _resolve(_target(ref, root, where), root, where, (*open_refs, str(ref)), size)
        resolved = target if isinstance(target, Mapping) else {} if target else {"not": {}}
    own: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("$ref", "$defs", "definitions"):
            continue
        if key in SUBSCHEMA_MAP_KEYWORDS and isinstance(value, Mapping):
            own[key] = {k: _resolve(v, root, where, open_refs, size) for k, v in value.items()}
        elif isinstance(value, list) and (key in SUBSCHEMA_LIST_KEYWORDS or key in SUBSCHEMA_KEYWORDS):
            own[key] = [_resolve(v, root, where, open_refs, size) for v in value]
        else:
            own[key] = _resolve(value, root, where, open_refs, size) if key in SUBSCHEMA_KEYWORDS else value
    return beside(resolved, own, where) if resolved else own


def _target(ref: Any, root: Mapping[str, Any], where: str) -> Any:
    if not isinstance(ref, str):
        raise BadOption(f"{where}: $ref is {an(type(ref).__name__)}, not a text.")
    own = str(root.get("$id", "")).rstrip("#")
    pointer = ref.removeprefix(own) if own and ref.startswith((f"{own}#", own)) else ref
    if pointer in ("#", ""):
        return root
    node: Any = root if pointer.startswith("#/") else None
    for step in pointer[2:].split("/") if node is not None else ():
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        inside = node[int(name)] if isinstance(node, list) and name.isdecimal() and int(name) < len(node) else None
        node = node.get(name) if isinstance(node, Mapping) else inside
    if not isinstance(node, Mapping | bool):
        raise BadOption(f"{where}: $ref {ref!r} points to nothing in the schema; only #/… within it is followed.")
    return node


# -- for the wire ------------------------------------------------------------------------------------------------------
def to_strict(node: Any) -> Any:
    """The schema for structured output: no additional properties, all required, optional ones nullable, no defaults."""
    if isinstance(node, list):
        return [to_strict(v) for v in node]
    if not isinstance(node, Mapping):
        return node
    strict = {k: v for k, v in node.items() if k not in ("default", "example", "examples", "discriminator") and not k.startswith("x-")}
    for key, value in strict.items():
        if key in SUBSCHEMA_MAP_KEYWORDS:
            strict[key] = {k: to_strict(v) for k, v in value.items()}
        elif key in SUBSCHEMA_KEYWORDS or key in SUBSCHEMA_LIST_KEYWORDS:
            strict[key] = to_strict(value)
    if strict.get("properties") and strict.get("additionalProperties", True) in (True, False):
        required = node.get("required", ())
        strict["properties"] = {k: v if k in required else _nullable(v) for k, v in strict["properties"].items()}
        strict |= {"required": list(strict["properties"]), "additionalProperties": False}
    return strict


def is_object(document: Mapping[str, Any]) -> bool:
    """Whether answers are objects with named properties, which structured output requires at the top level."""
    return bool(document.get("properties"))


def _nullable(node: Any) -> Any:
    return node if is_nullable(node) else {"anyOf": [node, {"type": "null"}]}


def is_nullable(node: Any) -> bool:
    return not isinstance(node, Mapping) or validator(node).is_valid(None)


def validator(document: Mapping[str, Any]) -> Any:
    jsonschema = validators.library()
    return jsonschema.Draft202012Validator(document, format_checker=jsonschema.FormatChecker(FORMATS))


def columns(document: Mapping[str, Any]) -> Iterator[Column]:
    """The columns of an answer: its properties, else one for the answer itself."""
    if not is_object(document):
        yield Column("value", None, _kind(document))
        return
    for key, node in document["properties"].items():
        yield Column(f"answer_{key}" if key in RESERVED_COLUMNS else key, key, _kind(node))


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
        kinds = {COLUMN_KINDS.get(t, "json") for t in ([types] if isinstance(types, str) else types) if t != "null"}
    return "number" if kinds == {"integer", "number"} else kinds.pop() if len(kinds) == 1 else "json"


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(value), "object")
