"""Older drafts of JSON Schema and OpenAPI's dialect, written as 2020-12. What cannot be said in it is refused by its name. Pure.

Tools still write draft-07: a tuple as `items: [...]`, `dependencies`, `definitions`. Read as 2020-12 such a word would be an error that
names another thing, or be ignored; each is unlike any word of 2020-12, so it is translated whether `$schema` names its draft or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holynb.errors import BadOption
from holynb.schema.keywords import ANNOTATIONS, SUBSCHEMA_KEYWORDS, SUBSCHEMA_LIST_KEYWORDS, SUBSCHEMA_MAP_KEYWORDS

__all__ = ["beside", "modern"]

_DRAFT = re.compile(r"json-schema\.org/draft-0(\d)/")
#: First and last draft that is translated; from 2019-09 on they bear years, and words beside a reference count.
OLDEST, LAST_NUMBERED = 4, 7
#: Deepest nesting that is read.
MAX_DEPTH = 100
#: Words that are references or machinery of their own, with what to write instead.
_NOT_FOLLOWED = {
    "$dynamicRef": "write $ref",
    "$recursiveRef": "write $ref",
    "$dynamicAnchor": "leave it out",
    "$recursiveAnchor": "leave it out",
    "$vocabulary": "leave it out",
}
#: Words of which one reads what another says: in two places they mean something else than in one.
_TOGETHER = (
    frozenset({"additionalProperties", "patternProperties", "properties", "unevaluatedProperties"}),
    frozenset({"contains", "items", "maxContains", "minContains", "prefixItems", "unevaluatedItems"}),
    frozenset({"else", "if", "then"}),
)


def modern(source: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The schema in the words of 2020-12. Raises BadOption, its message beginning with `where`, for what it cannot say."""
    match = _DRAFT.search(str(source.get("$schema", "")))
    draft = int(match[1]) if match else None
    if draft is not None and draft < OLDEST:
        raise BadOption(f"{where} is of draft-0{draft}, which is not read: write it in a draft from 4 to 2020-12.")
    if draft is not None and draft > LAST_NUMBERED:
        draft = None
    written: Mapping[str, Any] = _node(source, where, draft, 0)
    return written


def _node(node: Any, where: str, draft: int | None, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise BadOption(f"{where} is nested more than {MAX_DEPTH} levels deep.")
    if not isinstance(node, Mapping):
        return node
    inner = {key: _value(key, value, where, draft, depth + 1) for key, value in node.items()}
    for key, instead in _NOT_FOLLOWED.items():
        if inner.get(key):
            raise BadOption(f"{where} has {key}, which is not followed: {instead}.")
        inner.pop(key, None)
    if draft is not None and "$ref" in inner and (more := next((k for k in inner if not _may_be_beside(k)), None)) is not None:
        raise BadOption(f"{where}: draft-0{draft} ignores {more!r} beside a $ref. Put both into allOf, or leave $schema out.")
    if isinstance(inner.get("id"), str):  # what `$id` was called until draft-06
        inner.setdefault("$id", inner.pop("id"))
    if depth and "$id" in inner and not str(inner["$id"]).startswith("#") and _refers(inner):
        raise BadOption(f"{where}: a part of it has an $id, against which its $ref would be resolved: leave the $id out.")
    for translate in (_tuple, _limits, _dependencies, _nullable):
        inner = translate(inner, where)
    return inner


def _value(key: str, value: Any, where: str, draft: int | None, depth: int) -> Any:
    """A keyword's value with its subschemas translated."""
    if key in (*SUBSCHEMA_MAP_KEYWORDS, "dependencies") and isinstance(value, Mapping):
        return {k: _node(v, where, draft, depth) for k, v in value.items()}
    if isinstance(value, list) and key in (*SUBSCHEMA_LIST_KEYWORDS, *SUBSCHEMA_KEYWORDS):
        return [_node(v, where, draft, depth) for v in value]
    return _node(value, where, draft, depth) if key in SUBSCHEMA_KEYWORDS else value


def _may_be_beside(key: str) -> bool:
    return key in ("$ref", "id", "nullable", *ANNOTATIONS) or key.startswith("x-")


def _refers(node: Any) -> bool:
    if isinstance(node, Mapping):
        return isinstance(node.get("$ref"), str) or any(map(_refers, node.values()))
    return isinstance(node, list) and any(map(_refers, node))


# -- one word each -------------------------------------------------------------------------------------------------------
def _tuple(node: dict[str, Any], where: str) -> dict[str, Any]:
    """`items: [a, b]` with `additionalItems`."""
    rest = dict(node)
    further = rest.pop("additionalItems", None)
    if "prefixItems" in node and (further is not None or isinstance(node.get("items"), list)):
        word = "additionalItems" if further is not None else "a list of items"
        raise BadOption(f"{where} has {word} beside prefixItems: what follows those is called items.")
    if isinstance(node.get("items"), list):
        rest["prefixItems"] = rest.pop("items")
        if further is not None:
            rest["items"] = further
        if not rest["prefixItems"]:
            del rest["prefixItems"]
    return rest


def _limits(node: dict[str, Any], where: str) -> dict[str, Any]:
    """`minimum: 0` with `exclusiveMinimum: true`, of draft-04."""
    rest = dict(node)
    for word, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(rest.get(word), bool) and rest.pop(word):
            if limit not in rest:
                raise BadOption(f"{where} has {word}: true without {limit}. Write {word} with the number.")
            rest[word] = rest.pop(limit)
    return rest


def _dependencies(node: dict[str, Any], where: str) -> dict[str, Any]:
    """`dependencies`, of names and of schemas."""
    if not isinstance(node.get("dependencies"), Mapping):
        return node
    rest = dict(node)
    for key, value in rest.pop("dependencies").items():
        word = "dependentRequired" if isinstance(value, list) else "dependentSchemas"
        given = rest.get(word, {})
        if not isinstance(given, Mapping) or key in given:
            raise BadOption(f"{where} says in dependencies and in {word} what {key!r} needs. Say it once.")
        rest[word] = {**given, key: value}
    return rest


def _nullable(node: dict[str, Any], where: str) -> dict[str, Any]:
    """`nullable: true`, of OpenAPI 3.0."""
    if "nullable" not in node:
        return node
    rest = dict(node)
    nullable = rest.pop("nullable")
    if not isinstance(nullable, bool):
        raise BadOption(f"{where} has nullable: {nullable!r}, which is true or false.")
    if not nullable:
        return rest
    kinds = rest.get("type")
    if not isinstance(kinds, str | list) or "const" in rest or "not" in rest or "$ref" in rest:
        notes = {key: rest.pop(key) for key in list(rest) if key in ANNOTATIONS}
        return {**notes, "anyOf": [rest, {"type": "null"}]}
    rest["type"] = list(dict.fromkeys([*([kinds] if isinstance(kinds, str) else kinds), "null"]))
    if isinstance(rest.get("enum"), list) and None not in rest["enum"]:
        rest["enum"] = [*rest["enum"], None]
    if any(key in rest for key in ("allOf", "anyOf", "oneOf", "if")):
        notes = {key: rest.pop(key) for key in list(rest) if key in ANNOTATIONS}
        rest["type"] = kinds
        return {**notes, "anyOf": [rest, {"type": "null"}]}
    return rest


# -- beside a reference ------------------------------------------------------------------------------------------------------
def beside(target: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a reference points to, and what stands beside it, as one schema: both hold. Raises BadOption where one word cannot say both."""
    words = [key for key in own if key not in ANNOTATIONS and not key.startswith("x-")]
    for group in _TOGETHER:
        mine, theirs = group & set(words), group & set(target)
        if mine and theirs and (mine | theirs != {"properties"} or set(own["properties"]) & set(target["properties"])):
            raise BadOption(f"{where} has {min(mine)!r} beside a $ref to what has {min(theirs)!r}: write them in one place.")
    merged = {**target, **own}
    for key in words:
        if key in target and target[key] != own[key]:
            merged[key] = _both(key, target[key], own[key], where)
    return merged


def _both(key: str, one: Any, other: Any, where: str) -> Any:
    if key == "required" and isinstance(one, list) and isinstance(other, list):
        return list(dict.fromkeys([*one, *other]))
    if key == "properties":
        return {**one, **other}
    if key == "allOf":
        return [*one, *other]
    if key == "enum" and isinstance(one, list) and isinstance(other, list):
        return [value for value in one if value in other]
    numbers = isinstance(one, int | float) and isinstance(other, int | float) and not isinstance(one, bool)
    if numbers and key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        return max(one, other)
    if numbers and key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        return min(one, other)
    raise BadOption(f"{where} has {key!r} beside a $ref to what says it otherwise: write it in one place.")
