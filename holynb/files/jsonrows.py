"""Rows of JSON and JSON Lines, each value as it is written. Knows no file and no frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from holynb.files.content import Unreadable
from holynb.files.cutting import Window, cut
from holynb.words import lines

__all__ = ["Table", "document", "of_lines"]

#: Numbers of so few characters, and without an exponent, have at most 15 digits: a float holds each as it is written.
_SURE = 16
_ORDINAL = re.compile(r"0|[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name, a window of rows at a time, each with the columns that were seen so far, in order, missing values None; `index` are
    the rows' labels, None where they have none.
    """

    windows: Iterable[Window]
    index: list[Any] | None = None


def of_lines(text: Iterable[str]) -> Table:
    """JSON Lines: a value a line. Raises Unreadable, as the windows are taken."""
    # Files put together have a mark inside.
    filled = ((number, line) for number, line in enumerate(text, 1) if line.strip())
    return Table(_of_rows((_value(line.removeprefix("\ufeff"), number), len(line)) for number, line in filled))


def document(text: str) -> Table:
    """A JSON document: an array of rows, an object of columns, or one row. Raises Unreadable."""
    if not text.strip():
        raise Unreadable("is empty.")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        if exc.msg == "Extra data":  # JSON Lines under the name of .json
            return of_lines(lines(text))
        raise Unreadable(_described(exc, f"in line {exc.lineno}")) from None
    except (ValueError, RecursionError) as exc:
        raise Unreadable(_described(exc, "")) from None
    if isinstance(value, dict):
        return _of_object(value)
    return Table(_of_rows((row, 0) for row in (value if isinstance(value, list) else [value])))


# -- values ------------------------------------------------------------------------------------------------------------
def _value(line: str, number: int) -> Any:
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError) as exc:
        hint = " JSON Lines have a value in each line; one document is a .json file." if number == 1 else ""
        raise Unreadable(_described(exc, f"in line {number}") + hint) from None


def _described(exc: Exception, where: str) -> str:
    reason = "it is nested too deeply" if isinstance(exc, RecursionError) else getattr(exc, "msg", str(exc))
    return f"could not be read as JSON{where and ' ' + where}: {reason}."


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys are each written once: which of two values is meant is not for a reader to say."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(k for k in keys if keys.count(k) > 1)!r} twice")
    return value


def _decimal(text: str) -> float | Decimal:
    """A number with a point or an exponent: a float, and a Decimal where a float would be another number."""
    number = float(text)
    if len(text) <= _SURE and "e" not in text and "E" not in text:
        return number
    exact = Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


def _constant(name: str) -> float | None:
    """NaN is how Python and pandas write a missing number; the infinities are numbers."""
    return None if name == "NaN" else float(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_decimal, parse_constant=_constant)


# -- shapes ------------------------------------------------------------------------------------------------------------
def _of_rows(rows: Iterable[tuple[Any, int]]) -> Iterator[Window]:
    """Objects are rows, and a key that one lacks is missing in it; values without names are a column `text`, as lines of a .txt are.

    With each row its size.
    """
    names: dict[str, None] = {}
    first = None
    for window in cut(_alike(rows), lambda row: row[1]):
        first = window[0][0] if first is None else first
        if isinstance(first, dict):
            names |= dict.fromkeys(name for row, _ in window for name in row)
            yield Window(len(window), {name: [row.get(name) for row, _ in window] for name in names})
        else:
            yield Window(len(window), {"text": [row for row, _ in window]})


def _alike(rows: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    """Rows, each of which is an object, or none."""
    named, at = None, -1
    for at, (row, size) in enumerate(rows):
        named = isinstance(row, dict) if named is None else named
        if isinstance(row, list) or isinstance(row, dict) is not named:
            other, place = (row, at) if named or not at else (None, 0)
            what = "an array" if isinstance(other, list) else "a value"
            raise Unreadable(f'has {what} in place of row {place}, and rows are objects: {{"column": value, …}}.')
        yield row, size
    if at < 0:
        raise Unreadable("has no rows.")


def _of_object(value: Mapping[str, Any]) -> Table:
    """Columns by name, as lists or (pandas' own to_json) as objects of one set of labels; any other object is one row."""
    columns = list(value.values())
    if columns and all(isinstance(c, list) for c in columns):
        if len({len(c) for c in columns}) > 1:
            lengths = ", ".join(f"{name} {len(c)}" for name, c in list(value.items())[:5])
            raise Unreadable(
                f'is an object of arrays that differ in length ({lengths}). Make it an array of rows: [{{"column": value, …}}, …].'
            )
        return Table([Window(len(columns[0]), value)])
    if columns and all(isinstance(c, dict) for c in columns) and len({frozenset(c) for c in columns}) == 1:
        labels = list(columns[0])
        rows = {name: [c[label] for label in labels] for name, c in value.items()}
        return Table([Window(len(labels), rows)], _index(labels))
    return Table(_of_rows([(value, 0)]))


def _index(labels: Iterable[str]) -> list[Any]:
    """Labels of rows, which JSON makes text: whole numbers where all are."""
    labels = list(labels)
    return [int(label) for label in labels] if all(map(_ORDINAL.fullmatch, labels)) else labels
