"""The cells of CSV and TSV, as text and as the numbers that are written as Python writes them. Knows no file and no frame."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import Any

from holynb.files.content import Unreadable
from holynb.words import counted

__all__ = ["cells", "unique"]

#: A dialect of Excel's: the first line says what divides the cells.
_SEP = re.compile(r"sep=(.)(?:\r\n|\n|\r)")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_LONGEST = 2**31 - 1  # where C's long is narrow


def cells(text: str, delimiter: str | None) -> dict[str, list[Any]]:
    """The columns of a CSV by name; what divides its cells is found where `delimiter` is None. Raises Unreadable."""
    if delimiter is None and (named := _SEP.match(text)):
        delimiter, text = named[1], text[named.end() :]
    with _any_length(text), closing(_rows(text, delimiter or _delimiter(text))) as rows:
        if (first := next(rows, None)) is None:
            raise Unreadable("is empty: it has no line with the names of its columns.")
        header = unique(first[1])
        body = [_fitted(row, len(header), line) for line, row in rows]
    by_place = zip(*body, strict=True) if body else [()] * len(header)
    return {name: _typed([cell or None for cell in column]) for name, column in zip(header, by_place, strict=True)}


def unique(header: Sequence[str]) -> list[str]:
    """Headers as names, the way pandas makes them: without one `Unnamed: 2`, the second `a` is `a.1`."""
    written = {name for name in header if name}
    names: dict[str, None] = {}
    for place, given in enumerate(header):
        first = name = given or f"Unnamed: {place}"
        n = 0
        while name in names or (name != given and name in written):
            n += 1
            name = f"{first}.{n}"
        names[name] = None
    return list(names)


# -- values ------------------------------------------------------------------------------------------------------------
def _number(text: str) -> int | float | None:
    """The number that a text is; None for one that Python writes otherwise (`007`, `+4`, `1.10`, `1e5`), and for a word."""
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
        number = float(text)
    except ValueError:  # also an integer of more digits than Python makes one from
        return None
    return number if repr(number) == text and math.isfinite(number) else None


def _boolean(text: str) -> bool | None:
    return {"True": True, "False": False}.get(text)


def _typed(column: list[str | None]) -> list[Any]:
    """Numbers, or booleans, where every cell is one; an empty cell is None, and nothing else is."""
    for convert in (_number, _boolean):
        if (converted := _converted(column, convert)) is not None:
            return converted
    return column


def _converted(column: Sequence[str | None], convert: Callable[[str], Any]) -> list[Any] | None:
    """The column converted; None where one cell is something else, so that all of it stays text."""
    out = []
    for text in column:
        out.append(value := None if text is None else convert(text))
        if value is None and text is not None:
            return None
    return out


# -- rows --------------------------------------------------------------------------------------------------------------
@contextmanager
def _any_length(text: str) -> Iterator[None]:
    """The csv module's longest cell, which is one for the whole process, as long as the text."""
    before = csv.field_size_limit()
    csv.field_size_limit(min(max(len(text), before), _LONGEST))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(text: str, delimiter: str) -> Generator[tuple[int, list[str]], None, None]:
    """The line that each row ends in, and its cells. A blank line is no row."""
    # newline="": a row ends at \n, \r\n and \r, and those inside quotes stay as they are.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
            begin = reader.line_num + 1
    except csv.Error as exc:
        if "unexpected end" in str(exc):
            reason = f"has an unclosed quote in the row that begins in line {begin}"
        else:
            reason = f"continues after a closing quote in line {reader.line_num}, where {delimiter!r} should be"
        raise Unreadable(
            f'{reason}. A quote inside a quoted cell is written twice (""). Fix it, or read it yourself and use --df.'
        ) from exc


def _fitted(row: list[str], n: int, line: int) -> list[str]:
    """A row of `n` cells: missing ones at its end are empty, empty ones too many are dropped."""
    if len(row) == n:
        return row
    if any(row[n:]):
        raise Unreadable(
            f"has {counted(len(row), 'cell')} in line {line}, and {counted(n, 'name')} in its first. Put quotes around a cell that holds "
            "the delimiter, or read it yourself and use --df."
        )
    return row[:n] + [""] * (n - len(row))


def _delimiter(text: str) -> str:
    """What divides the cells: a comma; a semicolon (Excel in much of Europe), a tab or a bar, where the header and the first row say so."""
    heads = {d: _head(text, d) for d in ",;\t|"}
    best = max(heads, key=lambda d: len(heads[d][0]) if heads[d] else 0)
    return best if len({len(row) for row in heads[best]}) == 1 else ","


def _head(text: str, delimiter: str) -> list[list[str]]:
    """The header and the first row, as far as they can be read with this delimiter."""
    with closing(_rows(text, delimiter)) as rows, suppress(Unreadable):  # what is wrong is said where the file is read
        return [row for _, row in islice(rows, 2)]
    return []
