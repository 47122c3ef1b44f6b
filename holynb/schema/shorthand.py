"""What people write for a schema that is none, such as a list of labels, and the schema that it stands for, as Python. Pure."""

from __future__ import annotations

import ast
import enum
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from holynb.schema.keywords import SUBSCHEMA_LIST_KEYWORDS

__all__ = ["of_text", "written"]

TYPES: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
#: Names of types as they are written in words.
NAMES: Mapping[str, str] = {**{t.__name__: name for t, name in TYPES.items()}, **{name: name for name in TYPES.values()}, "text": "string"}
#: A dict with one of these is a schema, well or badly written.
DESCRIBING = frozenset({"type", "properties", "enum", "const", "items", "$ref", "$defs", *SUBSCHEMA_LIST_KEYWORDS})
#: As many labels, fields and characters of JSON as a line has room for.
MOST_LABELS, MOST_FIELDS, MOST_CHARS = 8, 4, 200


def written(value: Any, name: str | None = None) -> str | None:
    """The schema that a value stands for, to be copied; `name`: of the variable that holds it. None where it stands for none."""
    labels = _labels(value)
    if labels is not None:
        return f'{{"enum": {_list_of(value, name) if name else _clipped(labels)}}}'
    if isinstance(value, type) and value in TYPES:
        return _type(TYPES[value])
    return _object(value) if isinstance(value, Mapping) else None


def of_text(text: str) -> str | None:
    """The schema that a word of the line stands for: labels with commas between, a list or a schema in JSON, a type's name."""
    if text.strip() in NAMES:
        return _type(NAMES[text.strip()])
    if text.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return _python(value) if isinstance(value, dict) and DESCRIBING & set(value) and len(text) <= MOST_CHARS else written(value)
    labels = [word.strip() for word in text.replace("|", ",").split(",") if word.strip()]
    return written(labels) if len(labels) > 1 else None


def _labels(value: Any) -> Sequence[Any] | None:
    """The labels that an answer is to be one of."""
    if isinstance(value, enum.EnumMeta):
        members: list[Any] = list(value)
        value = [member.value for member in members]
    elif typing.get_origin(value) is typing.Literal:
        value = typing.get_args(value)
    if not isinstance(value, list | tuple | set | frozenset) or not value:
        return None
    return list(value) if all(isinstance(label, str | int | float) for label in value) else None


def _list_of(value: Any, name: str) -> str:
    """The labels that a variable holds, as a list."""
    if isinstance(value, enum.EnumMeta):
        return f"[m.value for m in {name}]"
    if isinstance(value, list):
        return name
    return f"list({name})" if isinstance(value, tuple | set | frozenset) else f"list({name}.__args__)"


def _clipped(labels: Sequence[Any]) -> str:
    text = _python(list(labels[:MOST_LABELS]))
    return text if len(labels) <= MOST_LABELS else f"{text[:-1]}, …]"


def _object(fields: Mapping[Any, Any]) -> str | None:
    """Of a dict of fields, each a type or a list of labels, and no keyword of a schema."""
    if not fields or DESCRIBING & set(fields) or len(fields) > MOST_FIELDS:
        return None
    parts = {str(name): _type(NAMES[kind]) if isinstance(kind, str) and kind in NAMES else written(kind) for name, kind in fields.items()}
    if None in parts.values():
        return None
    properties = ", ".join(f"{_python(name)}: {part}" for name, part in parts.items())
    return f'{{"type": "object", "properties": {{{properties}}}, "required": {_python(list(parts))}}}'


def _type(name: str) -> str:
    return f'{{"type": "{name}"}}'


def _python(value: Any) -> str:
    """As it is typed in a cell: in JSON's quotes, but for values that JSON spells otherwise."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        return text if ast.literal_eval(text) == value else repr(value)
    except (ValueError, SyntaxError):
        return repr(value)
