"""What becomes of every field of a model's files, as data: used, reset, refused, or without effect. Knows names and values; reads no model.

`modelfields.toml` is the list. Whoever reads a file of a model asks `check` about all of it, so that nothing is dropped in silence.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["FieldRefused", "ModelField", "check", "fields_of", "row_of", "unknown", "use_of"]

#: The most of a value that a message shows.
_SHOWN = 40


class FieldRefused(ValueError):
    """A file says something that would change the answer and that is not done here; one line that names file, field and value."""


@dataclass(frozen=True, slots=True)
class ModelField:
    """One row: a field of `file`.

    `use`: used, reset, refused or none; `unless`: values that change nothing; `families`: for which architectures the row is, none for
    all; `when`: it counts only where the file says true for this other field.
    """

    file: str
    name: str
    use: str
    why: str
    unless: tuple[Any, ...] = ()
    families: frozenset[str] = frozenset()
    when: str = ""

    def admits(self, value: Any, data: Mapping[str, Any]) -> bool:
        """Whether a file with this data may say this."""
        if self.use != "refused" or (self.when and not data.get(self.when)):
            return True
        return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.unless)


@cache
def fields_of(file: str) -> tuple[ModelField, ...]:
    """The rows of one kind of file."""
    return tuple(_row(file, name, use, row) for use, rows in _table()[file].items() for name, row in rows.items())


@cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    """The list as it is written: rows by file and use."""
    return tomllib.loads((files("holynb.pool") / "modelfields.toml").read_text("utf-8"))


def check(file: str, data: Mapping[str, Any], family: str = "") -> None:
    """Raises FieldRefused where `data`, the content of such a file, says what is refused."""
    for name, value in _leaves(file, data):
        row = row_of(file, name, family)
        if row is not None and not row.admits(value, data):
            raise FieldRefused(f"{file} says {name} {_quoted(value)} ({row.why}), which is not supported")


def unknown(file: str, data: Mapping[str, Any]) -> list[str]:
    """The fields of `data` that have no row, for no family."""
    exact, patterns, _ = _index(file)
    names = (name for name, _ in _leaves(file, data))
    return [name for name in names if name not in exact and not any(pattern.fullmatch(name) for pattern, _ in patterns)]


def use_of(file: str, name: str, family: str = "") -> str | None:
    """What becomes of a field; None where it has no row."""
    row = row_of(file, name, family)
    return None if row is None else row.use


def _row(file: str, name: str, use: str, row: str | Mapping[str, Any]) -> ModelField:
    if isinstance(row, str):
        return ModelField(file, name, use, row)
    return ModelField(file, name, use, row["why"], tuple(row.get("unless", ())), frozenset(row.get("families", ())), row.get("when", ""))


@cache
def _index(file: str) -> tuple[dict[str, list[ModelField]], list[tuple[re.Pattern[str], ModelField]], frozenset[str]]:
    """Rows by name, those with a placeholder as patterns, and the objects that have rows of their own."""
    exact: dict[str, list[ModelField]] = {}
    patterns = []
    for row in fields_of(file):
        if "{" in row.name:
            patterns.append((re.compile("[^.]+".join(map(re.escape, re.split(r"\{[^}]*\}", row.name)))), row))
        else:
            exact.setdefault(row.name, []).append(row)
    return exact, patterns, frozenset(row.name.rpartition(".")[0] for row in fields_of(file) if "." in row.name)


def row_of(file: str, name: str, family: str = "") -> ModelField | None:
    """The row of a field for this family; None where there is none."""
    exact, patterns, _ = _index(file)
    rows = exact.get(name) or [row for pattern, row in patterns if pattern.fullmatch(name)]
    return next((row for row in rows if family in row.families), None) or next((row for row in rows if not row.families), None)


def _leaves(file: str, data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that say something, those of an object that has rows of its own one by one."""
    objects = _index(file)[2]
    for key, value in data.items():
        name = prefix + key
        if isinstance(value, Mapping) and name in objects:
            yield from _leaves(file, value, f"{name}.")
        elif value is not None and value not in ([], {}):
            yield name, value


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
