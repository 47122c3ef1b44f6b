"""Answers as data: a JSON Schema or a pydantic model, and whether an answer holds. Pure but for a schema's file; `shape` knows the schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holynb.errors import BadOption, closest
from holynb.schema import normalize
from holynb.schema.normalize import Column
from holynb.types import Message

__all__ = ["Checked", "Column", "Schema", "load"]

#: How many mistakes of an answer are told, and at how many places of it JSON is looked for.
TOLD, PLACES = 5, 50


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer that holds (`value`, `cells` by column name), or what is wrong with it in a sentence for the model (`error`)."""

    value: Any = None
    cells: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """`document` has no references. `wire` is what a server is told: objects closed, every property required, optional ones nullable.

    `held` remembers, by its text, each answer that was found to hold: a frame is asked for again and again. Written and read by any thread.
    """

    name: str
    document: Mapping[str, Any]
    wire: Mapping[str, Any]
    columns: tuple[Column, ...]
    model: Any = None
    held: dict[str, Checked] = field(default_factory=dict, compare=False, repr=False)

    def check(self, text: str) -> Checked:
        """Whether an answer is JSON of this schema. Words and code fences around it are looked past. What it holds is shared: do not change it."""
        if (known := self.held.get(text)) is not None:
            return known
        told = self._checked(text)
        if told.error is None:
            self.held[text] = told
        return told

    def _checked(self, text: str) -> Checked:
        first: str | None = None
        for value in _candidates(text, self.columns[0] == Column("value", None, "string")):
            told = self._told(value)
            if told.error is None:
                return told
            first = first or told.error
        return Checked(error=first or ("it is empty" if not text.strip() else "it is not JSON"))

    def _told(self, value: Any) -> Checked:
        if not normalize.is_object(self.document) and isinstance(value, dict) and set(value) == {"value"}:
            value = value["value"]
        kept = self._wrong(_without_nulls(value, self.document))
        if isinstance(kept, str):
            return Checked(error=kept)
        cells = {c.name: _cell(kept[0], c) for c in self.columns}
        large = [name for name, cell in cells.items() if isinstance(cell, int) and not -(2**63) <= cell < 2**63]
        return Checked(error=f"{large[0]} is too large a number") if large else Checked(kept[0], cells)

    def _wrong(self, value: Any) -> str | tuple[Any]:
        """What is wrong with a value, or the value as it is to be kept."""
        if self.model is not None:
            from pydantic import ValidationError

            try:
                return (self.model.model_validate(value).model_dump(mode="json", by_alias=True),)
            except ValidationError as exc:
                return _sentence((e["loc"], e["msg"]) for e in exc.errors())
        errors = sorted(normalize.validator(self.document).iter_errors(value), key=lambda e: [str(p) for p in e.absolute_path])
        return _sentence((tuple(e.absolute_path), e.message) for e in errors) if errors else (value,)

    def instruct(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages with the schema said in words, for servers that know no structured output."""
        told = f"Answer with JSON alone, no other words, that matches this JSON Schema:\n{_compact(self.wire)}"
        head = [m for m in messages if m.role == "system"]
        if not head:
            return (Message("system", told), *messages)
        return tuple(Message("system", f"{m.content}\n\n{told}") if m is head[0] else m for m in messages)

    def repair(self, messages: Sequence[Message], answer: str, error: str) -> tuple[Message, ...]:
        """The conversation that asks once more, with the answer that did not hold and what was wrong with it."""
        told = f"That does not hold: {error}. Answer again with JSON alone that matches this JSON Schema:\n{_compact(self.wire)}"
        # An empty turn of the assistant is refused by several servers.
        return (*messages, Message("assistant", answer.strip() or "(nothing)"), Message("user", told))


# -- where a schema comes from -------------------------------------------------------------------------------------------
def load(said: Any, variables: Mapping[str, Any] | None = None) -> Schema:
    """A schema from what `--schema` says: a JSON Schema, a pydantic model, the name of a variable that holds one, or a .json file.

    Raises BadOption where it is none, contains itself, points outside or holds an unknown word.
    """
    if not isinstance(said, str):
        return _made(said, getattr(said, "__name__", "schema"))
    if variables is not None and said in variables:
        return _made(variables[said], said)
    path = Path(said).expanduser()
    if path.is_file():
        return _made(_read(path), path.stem)
    names = [
        k for k, v in (variables or {}).items() if not k.startswith("_") and (isinstance(v, Mapping) or hasattr(v, "model_json_schema"))
    ]
    what = "file" if path.suffix else "variable or file"
    raise BadOption(f"--schema {said}: there is no such {what}.{closest(said, names)}")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, OSError) as exc:
        raise BadOption(f"--schema {path}: it is not JSON: {exc}.") from exc


def _made(said: Any, name: str) -> Schema:
    where = f"--schema {name}"
    model = said if isinstance(said, type) and hasattr(said, "model_json_schema") else None
    if model is not None:
        try:
            said = model.model_json_schema()
        except Exception as exc:
            raise BadOption(f"{where}: this model has no JSON Schema: {exc}".splitlines()[0]) from exc
    document = normalize.plain(said, where)
    # Structured output takes objects alone, so any other answer travels as {"value": …}.
    whole = document if normalize.is_object(document) else {"type": "object", "properties": {"value": document}, "required": ["value"]}
    return Schema(name, document, normalize.closed(whole), tuple(normalize.columns(document)), model)


# -- what an answer holds ------------------------------------------------------------------------------------------------
def _candidates(text: str, words: bool) -> Iterator[Any]:
    """What JSON an answer may mean: the whole of it, else what stands in a code fence or among words; with `words` the text itself, too."""
    bare = text.strip()
    try:
        whole = [DECODER.decode(bare)]
    except (ValueError, RecursionError):
        whole = list(_within(bare))
    yield from whole
    if words and bare:
        yield bare


def _within(text: str) -> Iterator[Any]:
    """The JSON objects and arrays that stand in a text. What is inside one that never closes is a torn answer's, and none."""
    depth = at = tried = 0
    while at < len(text) and tried < PLACES:
        if text[at] in "{[":
            if depth == 0:
                tried += 1
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


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _without_nulls(value: Any, node: Any) -> Any:
    """`value` without the nulls that stand for optional properties left out (the wire made those nullable)."""
    if not isinstance(node, Mapping):
        return value
    if isinstance(value, list):
        return [_without_nulls(v, node.get("items")) for v in value]
    if not isinstance(value, dict):
        return value
    properties, needed = node.get("properties", {}), node.get("required", ())
    kept = {k: v for k, v in value.items() if v is not None or k in needed or k not in properties or normalize.takes_null(properties[k])}
    return {k: _without_nulls(v, properties.get(k)) for k, v in kept.items()}


def _cell(value: Any, column: Column) -> Any:
    cell = value if column.key is None else value.get(column.key) if isinstance(value, Mapping) else None
    if column.kind == "integer" and isinstance(cell, float):
        return int(cell)
    return float(cell) if column.kind == "number" and isinstance(cell, int) and not isinstance(cell, bool) else cell


def _sentence(errors: Iterable[tuple[Sequence[Any], Any]]) -> str:
    told = [f"{'.'.join(str(p) for p in path) or 'the answer'}: {' '.join(str(message).split())[:200]}" for path, message in errors]
    more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return "; ".join(told[:TOLD]) + more


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
