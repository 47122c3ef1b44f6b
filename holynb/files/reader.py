"""A file as a frame, or of many rows as a stored table: which reader its name asks for, and what is said where it cannot be read."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from holynb import typed_path
from holynb.errors import BadOption, closest
from holynb.files import arrow, arrow_table, columns, content, cutting, delimited, jsonrows, stored, workbook
from holynb.files.content import PACKINGS, Unreadable
from holynb.spool import MANY

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read", "stream"]

TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt", ".md")
WORKBOOKS = (".xlsx", ".xlsm")
TABLES = (".parquet", ".feather", ".arrow")


def read(path: str) -> pd.DataFrame:
    """The rows of a file, each value as the file says it. Of a .txt file each line that is not blank is a row, in the column `text`.

    Raises BadOption, one line that says what to do: there is no such file, or it cannot be read.
    """
    return stored.whole(stream(path))


def stream(path: str, folder: Path | None = None) -> pd.DataFrame | stored.StoredTable:
    """As `read`, but of many rows a table that lies on the disk, in `folder`: as the file is now, whatever becomes of it."""
    where = typed_path.typed(path)
    if not typed_path.is_there(where):
        near = closest(where.name, [p.name for p in where.parent.iterdir()] if typed_path.is_folder(where.parent) else [])
        raise BadOption(f"There is no file {path!r}.{near}")
    try:
        rows = _read(where, folder)
        return rows if len(rows) >= MANY else stored.whole(rows)
    except Unreadable as exc:
        raise BadOption(f"{path!r} {exc}") from exc
    except (ValueError, OSError) as exc:
        reason = " ".join(str(getattr(exc, "strerror", None) or exc).split())
        raise BadOption(f"{path!r} could not be read: {reason}") from exc


def _read(path: Path, folder: Path | None) -> pd.DataFrame | stored.StoredTable:
    packing = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
    name = path.with_suffix("") if packing else path
    if packing == ".zip" and name.suffix.lower() not in TEXTS:
        name = Path(PurePath(content.inside(path)).name)
    suffix = name.suffix.lower()
    if suffix in TEXTS:
        return _of_text(path, packing, suffix, folder)
    if not packing and suffix in WORKBOOKS:
        return columns.table(workbook.cells(path.read_bytes()))
    if not packing and suffix in TABLES:
        with arrow.opened(path, cutting.WINDOW) as (schema, parts):
            if arrow_table.can_be_stored(schema):
                return arrow_table.spooled(schema, parts, folder, is_indexed=True)
            return arrow.frame_of(arrow.together(schema, parts))
    kinds = f"{', '.join(TEXTS)} (packed too: {', '.join(PACKINGS)}), {', '.join((*WORKBOOKS, *TABLES))}"
    raise BadOption(f"--file reads {kinds}, not {''.join(path.suffixes[-2:]) or path.name!r}. Read it yourself and use --df.")


def _of_text(path: Path, packing: str, suffix: str, folder: Path | None) -> stored.StoredTable:
    if suffix in (".csv", ".tsv"):
        text = partial(content.opened, path, packing, newline="")
        windows = delimited.windows(text, "\t" if suffix == ".tsv" else None)
        return stored.gathered(windows, delimited.Cells, folder)
    with content.opened(path, packing) as stream:
        if suffix in (".txt", ".md"):
            filled = (line for row in stream if (line := row.removesuffix("\n")).strip())
            parts = (cutting.Window(len(part), {"text": part}) for part in cutting.cut(filled, len))
            return stored.gathered(chain([cutting.Window(0, {"text": []})], parts), columns.Kind, folder)
        table = jsonrows.document(stream.read()) if suffix == ".json" else jsonrows.of_lines(stream)
        return stored.gathered(table.windows, columns.Kind, folder, table.index)
