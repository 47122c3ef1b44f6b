"""The cells of CSV and TSV, as text and as the numbers that are written as Python writes them. Knows no file and no frame."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from holynb.files.columns import Kind
from holynb.files.content import Unreadable
from holynb.files.cutting import Window, cut
from holynb.words import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cells", "unique", "windows"]

#: A dialect of Excel's: the first line says what divides the cells.
_SEP = re.compile(r"sep=(.)(?:\r\n|\n|\r)")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_LONGEST = 2**31 - 1  # where C's long is narrow


def windows(text: Callable[[], AbstractContextManager[TextIO]], delimiter: str | None) -> Iterator[Window]:
    """The columns of a CSV by name, their cells as text, a window of rows at a time; what divides the cells is found where `delimiter`
    is None. `text` opens it, with each line's end as it is. Raises Unreadable.
    """
    with _any_length():
        skipped = 0
        if delimiter is None:
            with text() as stream:
                named = _SEP.fullmatch(stream.readline(8))
            skipped = int(named is not None)
            delimiter = named[1] if named else _delimiter(text)
        with text() as stream, closing(_rows(islice(stream, skipped, None), delimiter)) as rows:
            if (first := next(rows, None)) is None:
                raise Unreadable("is empty: it has no line with the names of its columns.")
            header = unique(first[1])
            yield Window(0, {name: [] for name in header})
            fitted = (_fitted(row, len(header), line) for line, row in rows)
            for body in cut(fitted, lambda row: sum(map(len, row))):
                by_place = zip(header, zip(*body, strict=True), strict=True)
                yield Window(len(body), {name: [cell or None for cell in column] for name, column in by_place})


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


class Cells:
    """A column of texts: numbers, or booleans, where every cell is one; an empty cell is None, and nothing else is."""

    def __init__(self) -> None:
        self._text = Kind()
        self._ways: list[tuple[Callable[[str], Any], Kind]] = [(_number, Kind()), (_boolean, Kind())]
        """What the cells so far can be."""

    def see(self, cells: Sequence[str | None]) -> None:
        """Take note of the next cells."""
        for way in list(self._ways):
            if (values := _converted(cells, way[0])) is None:
                self._ways.remove(way)
            else:
                way[1].see(values)
        self._text.see(cells)

    def series(self, cells: Sequence[str | None]) -> pd.Series[Any]:
        """Cells as what all of the column is."""
        for convert, kind in self._ways:
            if (values := _converted(cells, convert)) is not None:
                return kind.series(values)
        return self._text.series(cells)


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
def _any_length() -> Iterator[None]:
    """The csv module's longest cell, which is one for the whole process, as long as it can be."""
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(lines: Iterable[str], delimiter: str) -> Generator[tuple[int, list[str]], None, None]:
    """The line that each row ends in, and its cells. A blank line is no row."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
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


def _delimiter(text: Callable[[], AbstractContextManager[TextIO]]) -> str:
    """What divides the cells: a comma; a semicolon (Excel in much of Europe), a tab or a bar, where the header and the first row say so."""
    heads = {d: _head(text, d) for d in ",;\t|"}
    best = max(heads, key=lambda d: len(heads[d][0]) if heads[d] else 0)
    return best if len({len(row) for row in heads[best]}) == 1 else ","


def _head(text: Callable[[], AbstractContextManager[TextIO]], delimiter: str) -> list[list[str]]:
    """The header and the first row, as far as they can be read with this delimiter."""
    with text() as stream, closing(_rows(stream, delimiter)) as rows, suppress(Unreadable):  # what is wrong is said where the file is read
        return [row for _, row in islice(rows, 2)]
    return []
