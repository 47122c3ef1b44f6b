"""A file as a frame: which reader its name asks for, and what is said where it cannot be read."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from holynb.errors import BadOption, closest
from holynb.files import arrow, columns, content, delimited, jsonrows, workbook
from holynb.files.content import PACKINGS, Unreadable
from holynb.words import lines

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read"]

TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt", ".md")
WORKBOOKS = (".xlsx", ".xlsm")
TABLES = (".parquet", ".feather", ".arrow")


def read(path: str) -> pd.DataFrame:
    """The rows of a file, each value as the file says it. Of a .txt file each line that is not blank is a row, in the column `text`.

    Raises BadOption, one line that says what to do: there is no such file, or it cannot be read.
    """
    where = Path(path).expanduser()
    if not where.exists():
        near = closest(where.name, [p.name for p in where.parent.iterdir()] if where.parent.is_dir() else [])
        raise BadOption(f"There is no file {path!r}.{near}")
    try:
        return _read(where)
    except Unreadable as exc:
        raise BadOption(f"{path!r} {exc}") from exc
    except (ValueError, OSError) as exc:
        reason = " ".join(str(getattr(exc, "strerror", None) or exc).split())
        raise BadOption(f"{path!r} could not be read: {reason}") from exc


def _read(path: Path) -> pd.DataFrame:
    packing = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
    name = path.with_suffix("") if packing else path
    if packing == ".zip" and name.suffix.lower() not in TEXTS:
        name = Path(PurePath(content.inside(path)).name)
    suffix = name.suffix.lower()
    if suffix in TEXTS:
        return _of_text(content.decoded(content.unpacked(path, packing)), suffix)
    if not packing and suffix in WORKBOOKS:
        return columns.table(workbook.cells(path.read_bytes()))
    if not packing and suffix in TABLES:
        return arrow.frame(path)
    kinds = f"{', '.join(TEXTS)} (packed too: {', '.join(PACKINGS)}), {', '.join((*WORKBOOKS, *TABLES))}"
    raise BadOption(f"--file reads {kinds}, not {''.join(path.suffixes[-2:]) or path.name!r}. Read it yourself and use --df.")


def _of_text(text: str, suffix: str) -> pd.DataFrame:
    if suffix in (".csv", ".tsv"):
        return columns.table(delimited.cells(text, "\t" if suffix == ".tsv" else None))
    if suffix in (".txt", ".md"):
        return columns.table({"text": [line for line in lines(text) if line.strip()]})
    table = jsonrows.document(text) if suffix == ".json" else jsonrows.of_lines(text)
    return columns.table(table.columns, table.index)
