"""Validation of answers against a JSON Schema or a pydantic model. Reads a schema's file, sends nothing; see `normalize`."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holynb import typed_path
from holynb.errors import BadOption, closest
from holynb.schema import normalize, shorthand
from holynb.schema.normalize import Column
from holynb.types import Message
from holynb.words import an, is_writable

__all__ = ["CheckedAnswer", "Column", "Schema", "load"]

#: Most errors of an answer that a message lists, and most places of an answer at which JSON is tried.
MAX_ERRORS, MAX_JSON_STARTS = 5, 50
#: Characters of what was typed that a message repeats.
MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """A valid answer (`value`, `cells` by column name), or what is wrong with it, in a sentence for the model (`error`)."""

    value: Any = None
    cells: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """`document` has no references. `wire` is sent to servers: objects closed, every property required, optional ones nullable.

    `single`: a text with several values that fit and differ is no answer; else the first of them is. `valid_answers` caches each valid
    answer by its text, as frames are built again and again. Written and read by any thread.
    """

    name: str
    document: Mapping[str, Any]
    wire: Mapping[str, Any]
    columns: tuple[Column, ...]
    model: Any = None
    single: bool = False
    valid_answers: dict[str, CheckedAnswer] = field(default_factory=dict, compare=False, repr=False)

    def check(self, text: str) -> CheckedAnswer:
        """Validate an answer, with or without words and code fences around its JSON. The result is cached and shared: do not change it."""
        if (cached := self.valid_answers.get(text)) is not None:
            return cached
        result = self._check_candidates(text)
        if result.error is None:
            self.valid_answers[text] = result
        return result

    def _check_candidates(self, text: str) -> CheckedAnswer:
        first_error: str | None = None
        valid: CheckedAnswer | None = None
        for value in _candidates(text, self.columns[0] == Column("value", None, "string")):
            result = self._check_value(value)
            if result.error is not None:
                first_error = first_error or result.error
            elif not self.single:
                return result
            elif valid is not None and valid.value != result.value:
                return CheckedAnswer(error="it holds several that differ")
            else:
                valid = result
        return valid or CheckedAnswer(error=first_error or ("it is empty" if not text.strip() else "it is not JSON"))

    def _check_value(self, value: Any) -> CheckedAnswer:
        if not normalize.is_object(self.document) and isinstance(value, dict) and set(value) == {"value"}:
            value = value["value"]
        validated = self._validate(_without_nulls(value, self.document))
        if isinstance(validated, str):
            return CheckedAnswer(error=validated)
        cells = {c.name: _cell(validated[0], c) for c in self.columns}
        oversized = [c.name for c in self.columns if not _holds(c, cells[c.name])]
        return CheckedAnswer(error=f"{oversized[0]} is too large a number") if oversized else CheckedAnswer(validated[0], cells)

    def _validate(self, value: Any) -> str | tuple[Any]:
        """What is wrong with a value; for a valid one a 1-tuple of it, as the model dumps it."""
        if self.model is not None:
            from pydantic import ValidationError

            try:
                return (self.model.model_validate(value).model_dump(mode="json", by_alias=True),)
            except ValidationError as exc:
                return _describe_errors((e["loc"], e["msg"]) for e in exc.errors())
        errors = sorted(normalize.validator(self.document).iter_errors(value), key=lambda e: [str(p) for p in e.absolute_path])
        return _describe_errors((tuple(e.absolute_path), e.message) for e in errors) if errors else (value,)

    def instruct(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages with the schema in the system prompt, for servers without structured output."""
        instruction = f"Answer with JSON alone, no other words, that matches this JSON Schema:\n{_compact(self.wire)}"
        system = [m for m in messages if m.role == "system"]
        if not system:
            return (Message("system", instruction), *messages)
        return tuple(Message("system", f"{m.content}\n\n{instruction}") if m is system[0] else m for m in messages)

    def repair(self, messages: Sequence[Message], answer: str, error: str) -> tuple[Message, ...]:
        """The messages of another attempt, with the invalid answer and its error."""
        request = f"That does not hold: {error}. Answer again with JSON alone that matches this JSON Schema:\n{_compact(self.wire)}"
        # Several servers refuse an empty assistant turn.
        return (*messages, Message("assistant", answer.strip() or "(nothing)"), Message("user", request))


# -- loading -----------------------------------------------------------------------------------------------------------
def load(source: Any, variables: Mapping[str, Any] | None = None) -> Schema:
    """The schema of `--schema`: a JSON Schema, a pydantic model, the name of a variable that holds one, or a .json file.

    Raises BadOption where it is invalid, recursive, refers outside itself or has an unknown keyword.
    """
    if not isinstance(source, str):
        _refuse(shorthand.written(source), f"--schema {_lacks(source)}", in_cell=False)
        return _from_object(source, getattr(source, "__name__", "schema"))
    if variables is not None and source in variables:
        value = variables[source]
        _refuse(shorthand.written(value, source), f"--schema {source} {_lacks(value)}", in_cell=True)
        return _from_object(value, source)
    path = typed_path.typed(source)
    if typed_path.is_file(path):
        return _from_object(_read(path), path.stem)
    names = [
        k for k, v in (variables or {}).items() if not k.startswith("_") and (isinstance(v, Mapping) or hasattr(v, "model_json_schema"))
    ]
    what = "file" if path.suffix else "variable or file"
    missing = f"--schema {source if len(source) <= MAX_SHOWN else source[:MAX_SHOWN] + '…'}: there is no such {what}"
    _refuse(shorthand.of_text(source), missing, in_cell=variables is not None)
    raise BadOption(f"{missing}.{closest(source, names)}")


def _lacks(value: Any) -> str:
    if isinstance(value, Mapping):
        return "is no JSON Schema: it has neither type nor properties"
    return f"is {an(type(value).__name__)}, not a JSON Schema (a dict) or a pydantic model"


def _refuse(meant: str | None, why: str, *, in_cell: bool) -> None:
    """Raise BadOption where what was given stands for a schema that can be said."""
    if meant is not None:
        how = f"answer = {meant} in a cell above, and --schema answer here" if in_cell else f"schema={meant}"
        raise BadOption(f"{why}. Write {how}.")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, OSError) as exc:
        raise BadOption(f"--schema {path}: it is not JSON: {exc}.") from exc


def _from_object(source: Any, name: str) -> Schema:
    where = f"--schema {name}"
    model = source if isinstance(source, type) and hasattr(source, "model_json_schema") else None
    if model is not None:
        try:
            source = model.model_json_schema()
        except Exception as exc:
            raise BadOption(f"{where}: this model has no JSON Schema: {exc}".splitlines()[0]) from exc
    document = normalize.resolve(source, where)
    if not is_writable(json.dumps(document, ensure_ascii=False, default=str)):
        raise BadOption(f"{where} contains half of a surrogate pair, which no column can hold.")
    # Structured output takes objects alone, so any other answer travels as {"value": …}.
    wire = document if normalize.is_object(document) else {"type": "object", "properties": {"value": document}, "required": ["value"]}
    return Schema(name, document, normalize.to_strict(wire), tuple(normalize.columns(document)), model)


# -- parsing answers ---------------------------------------------------------------------------------------------------
def _candidates(text: str, as_text: bool) -> Iterator[Any]:
    """Values that an answer may mean: all of it as JSON, else the JSON within it; with `as_text` the text itself, too."""
    bare = text.strip()
    whole = _ESCAPES.sub(lambda match: match[0] if match[1] is None else r"\ufffd", bare)
    try:
        values = [DECODER.decode(whole)]
    except (ValueError, RecursionError):
        values = list(_embedded_json(whole))
    yield from values
    if as_text and bare:
        yield bare


def _embedded_json(text: str) -> Iterator[Any]:
    """The JSON objects and arrays in a text. Those inside one that never closes are skipped: that answer was cut off."""
    depth = at = starts = 0
    while at < len(text) and starts < MAX_JSON_STARTS:
        if text[at] in "{[":
            if depth == 0:
                starts += 1
                try:
                    value, at = DECODER.raw_decode(text, at)
                except (ValueError, RecursionError):
                    pass  # words in brackets, or JSON that is broken
                else:
                    yield value
                    continue
            depth += 1
        elif text[at] in "}]":
            depth = max(0, depth - 1)
        at += 1


#: Escapes of JSON's texts; the group is half of a surrogate pair without the other, which no column of text holds.
_ESCAPES = re.compile(r"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _without_nulls(value: Any, node: Any) -> Any:
    """`value` without the nulls that stand for optional properties left out (the wire made those nullable)."""
    if not isinstance(node, Mapping):
        return value
    if isinstance(value, list):
        first = node.get("prefixItems", ())
        return [_without_nulls(v, first[i] if i < len(first) else node.get("items")) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    properties, needed = node.get("properties", {}), node.get("required", ())
    present = {
        k: v for k, v in value.items() if v is not None or k in needed or k not in properties or normalize.is_nullable(properties[k])
    }
    return {k: _without_nulls(v, properties.get(k)) for k, v in present.items()}


def _cell(value: Any, column: Column) -> Any:
    cell = value if column.key is None else value.get(column.key) if isinstance(value, Mapping) else None
    if column.kind == "integer" and isinstance(cell, float):
        return int(cell)
    return (
        float(cell) if column.kind == "number" and _holds(column, cell) and isinstance(cell, int) and not isinstance(cell, bool) else cell
    )


def _holds(column: Column, cell: Any) -> bool:
    """Whether the column's dtype holds a number as it is: 64 bits a whole one, a float no infinity and no integer that it would round."""
    if column.kind == "number" and isinstance(cell, int | float):
        return math.isfinite(cell) if isinstance(cell, float) else abs(cell) <= sys.float_info.max and int(float(cell)) == cell
    return not isinstance(cell, int) or column.kind == "json" or -(2**63) <= cell < 2**63


def _describe_errors(errors: Iterable[tuple[Sequence[Any], Any]]) -> str:
    texts = [f"{'.'.join(str(p) for p in path) or 'the answer'}: {' '.join(str(message).split())[:200]}" for path, message in errors]
    more = f"; and {len(texts) - MAX_ERRORS} more" if len(texts) > MAX_ERRORS else ""
    return "; ".join(texts[:MAX_ERRORS]) + more


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
