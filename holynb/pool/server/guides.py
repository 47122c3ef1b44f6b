"""What a request says its answer must look like: one guide out of the several fields that can say it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Guide", "guide_of"]

_ANY_OBJECT = '{"type": "object"}'


@dataclass(frozen=True, slots=True)
class Guide:
    """`kind`: json (a schema as text), regex, choice (texts as JSON) or grammar (Lark or GBNF). `param` is the field that it came in."""

    kind: str
    source: str
    param: str


def guide_of(body: Mapping[str, Any]) -> Guide | None:
    """The guide of a body that `poolfields.check` has passed; None where any text will do."""
    form = body.get("response_format")
    if form and form["type"] != "text":
        schema = form["json_schema"]["schema"] if form["type"] == "json_schema" else form.get("schema")
        return Guide("json", _ANY_OBJECT if schema is None else json.dumps(schema), "response_format")
    for name, kind in (
        ("guided_json", "json"),
        ("guided_regex", "regex"),
        ("guided_choice", "choice"),
        ("guided_grammar", "grammar"),
        ("grammar", "grammar"),
    ):
        if body.get(name):
            return _guide(kind, body[name], name)
    for kind, spec in (body.get("structured_outputs") or {}).items():
        if spec is not None and spec is not False:
            return _guide(kind, spec, f"structured_outputs.{kind}")
    return None


def _guide(kind: str, spec: Any, param: str) -> Guide:
    if kind == "json_object":
        return Guide("json", _ANY_OBJECT, param)
    return Guide(kind, spec if isinstance(spec, str) else json.dumps(spec), param)
