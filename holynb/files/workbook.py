"""The cells of an Excel workbook's first sheet, as Excel stores and shows them. Knows no frame; needs openpyxl."""

from __future__ import annotations

import datetime as dt
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

from holynb.files.content import Unreadable
from holynb.files.delimited import unique

__all__ = ["cells"]

#: Excel counts in floats of 15 digits: a whole one is a whole number.
_WHOLE = 10**15
_PADDED = re.compile("0{2,20}")


def cells(data: bytes) -> dict[str, list[Any]]:
    """The columns of the first sheet by name; its first row holds the names, rows without any value are none. Raises Unreadable."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise Unreadable("needs openpyxl: pip install openpyxl") from None
    try:
        rows = _rows(load_workbook, data, computed=True)
        if any(value is None for row in rows for value in row):
            _refuse_uncomputed(rows, _rows(load_workbook, data, computed=False))
    except Unreadable:
        raise
    except Exception as exc:  # whatever is in the archive, openpyxl and the XML parser raise what they come across
        raise Unreadable(f"is not a workbook that openpyxl reads: {exc}. Save it again as .xlsx.") from exc
    rows = [row for row in rows if any(value is not None for value in row)]
    if not rows:
        raise Unreadable("has nothing in its first sheet.")
    width = max(place for row in rows for place, value in enumerate(row, 1) if value is not None)
    padded = [[*row, *[None] * (width - len(row))][:width] for row in rows]
    header = unique(["" if value is None else str(value) for value in padded[0]])
    return {name: [row[place] for row in padded[1:]] for place, name in enumerate(header)}


def _rows(load: Any, data: bytes, *, computed: bool) -> list[list[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles, headers and validations that openpyxl does not know
        book = load(io.BytesIO(data), read_only=True, data_only=computed)
        if not book.worksheets:
            raise Unreadable("has no sheet with cells.")
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write a wrong size
        return [[_shown(cell) if computed else cell.value for cell in row] for row in sheet.iter_rows()]


def _shown(cell: Any) -> Any:
    """A cell's value. A day without a time is a date, a whole number is one, and a format of zeros alone puts zeros before it."""
    from openpyxl.styles.numbers import is_datetime
    from openpyxl.utils.escape import unescape

    value = cell.value
    if isinstance(value, str):
        return unescape(value) or None
    if isinstance(value, dt.datetime):
        day_only = is_datetime(cell.number_format) == "date" and value.time() == dt.time()
        return value.date() if day_only else value
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        value = int(value)
    if type(value) is int and value >= 0 and _PADDED.fullmatch(cell.number_format or ""):
        return str(value).zfill(len(cell.number_format))
    return value


def _refuse_uncomputed(rows: Sequence[Sequence[Any]], formulas: Sequence[Sequence[Any]]) -> None:
    """Raises Unreadable for a formula whose value nobody has computed yet: read as it is, it would be an empty cell."""
    from openpyxl.utils import get_column_letter

    for y, (row, written) in enumerate(zip(rows, formulas, strict=True), 1):
        for x, (value, formula) in enumerate(zip(row, written, strict=True), 1):
            if value is None and formula is not None and formula != "":
                raise Unreadable(
                    f"has a formula in {get_column_letter(x)}{y} that was never computed. Open it in Excel or LibreOffice and save it, "
                    "or read it yourself and use --df."
                )
