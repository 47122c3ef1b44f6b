"""A run's frame as a file beside the notebook, or as text to paste, for a page that asked. Writes files; sends nothing.

The kernel writes, not the page: a frame has texts that were never sent there, and a download is each front end's own affair.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.translation import brief
from holynb.ui.live.protocol import ExportedMessage, ExportKind
from holynb.ui.output import clean
from holynb.words import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Export", "harmless", "missing_for_parquet"]

#: A cell that begins so is a formula to Excel, LibreOffice or Google Sheets; an apostrophe before it makes it text.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: Of what is copied: it goes through the page.
MAX_COPIED_CHARS = 300_000
#: What is copied of a row, beside its label and its prompt.
COPIED = ("text", "status", "error", "tokens_in", "tokens_out", "cost", "latency_s")

_written: dict[Path, tuple[str, int, int]] = {}
"""What this kernel has written: the run, and the size and the time of change by which a file is known again."""


class Export:
    """Of one run. name: as `%infer show` knows it. `frame()` is its value, `result()` all columns of its result, as they stand."""

    def __init__(
        self, name: str, prompts: Sequence[str], frame: Callable[[], pd.DataFrame], result: Callable[[], pd.DataFrame] | None = None
    ) -> None:
        self._name = name
        self._frame = frame
        self._result = result or frame
        self._prompts = prompts

    def answer(self, kind: ExportKind, rows: Sequence[int] = (), *, safe: bool = False) -> ExportedMessage:
        """Do it, and the message that says what was done. Never raises: what went wrong is said in the message.

        safe: no cell is a formula. rows: what is copied, in this order.
        """
        try:
            if kind == "copy":
                text, done = self.copied(rows, safe=safe)
                rest = "" if done == len(rows) else f" of {len(rows):,}; CSV has all"
                return {**_message(kind, brief(f"Copied: {counted(done, 'row')}{rest}.")), "text": text}
            return _message(kind, brief(f"Written: {self.write(kind, safe=safe)}"))
        except OSError as exc:
            path = f"holynb-{_file_name(self._name)}.{kind}"
            reason = f"{path} could not be written in {Path.cwd() if _has_folder() else 'a folder that is gone'}: {exc.strerror or exc}."
            return _message(kind, brief(f"{reason} %cd to a folder that you may write to, and press again."), failed=True)
        except Exception as exc:  # noqa: BLE001 - a page must hear of it, and the kernel's message loop go on
            return _message(kind, brief(f"The {kind} failed: {type(exc).__name__}: {str(exc)[:300]}"), failed=True)

    def write(self, kind: ExportKind, *, safe: bool = False) -> str:
        """Write the frame beside the notebook; the file's name. A file of somebody else's is left alone: the next number is taken."""
        df = self._frame()
        part = Path.cwd() / f".holynb-{secrets.token_hex(4)}.part"
        try:
            if kind == "parquet":
                _to_parquet(df, part)
            else:
                plain = _json_cells(df)
                (harmless(plain) if safe else plain).to_csv(
                    part, encoding="utf-8-sig" if safe else "utf-8", lineterminator="\r\n", errors="replace"
                )
            return self._place(part, kind)
        finally:
            part.unlink(missing_ok=True)

    def copied(self, rows: Sequence[int], *, safe: bool = False) -> tuple[str, int]:
        """These rows as tab-separated values with a head, up to a bound, and how many they are."""
        df = self._result()
        columns = list(COPIED)
        labels, picked = df.index.tolist(), df[columns]
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter="\t", lineterminator="\r\n")
        writer.writerow(["", "prompt", *columns])
        done = 0
        for row in rows:
            label = labels[row]
            cells = [
                ", ".join(map(str, label)) if isinstance(label, tuple) else label,
                self._prompts[row],
                *map(_plain, picked.iloc[row].tolist()),
            ]
            before = out.tell()
            writer.writerow([_harmless_cell(c) if safe else c for c in cells])
            if out.tell() > MAX_COPIED_CHARS and done:
                out.truncate(before)
                break
            done += 1
        return out.getvalue(), done

    def _place(self, part: Path, kind: ExportKind) -> str:
        """Give a written file its name, which nobody else's file has."""
        stem, number = f"holynb-{_file_name(self._name)}", 1
        while True:
            path = part.with_name(f"{stem}{f'-{number}' if number > 1 else ''}.{kind}")
            if _is_ours(path, self._name):
                part.replace(path)
                break
            try:
                path.open("x").close()  # claimed: two that ask for one name do not get the same
            except FileExistsError:
                number += 1
                continue
            part.replace(path)
            break
        made = path.stat()
        _written[path] = (self._name, made.st_size, made.st_mtime_ns)
        return path.name


def missing_for_parquet() -> str:
    """Why no Parquet file can be written; empty where one can."""
    return "" if importlib.util.find_spec("pyarrow") else "Parquet needs pyarrow: %pip install pyarrow"


def harmless(df: pd.DataFrame) -> pd.DataFrame:
    """A copy in which no text, label or name begins as a formula does. Numbers stay numbers."""
    copy = df.copy()
    copy.columns = [_harmless_cell(name) for name in df.columns]
    for place, dtype in enumerate(df.dtypes):
        if _holds_text(dtype):
            copy.isetitem(place, [_harmless_cell(value) for value in df.iloc[:, place]])
    index = df.index
    if index.nlevels > 1:
        copy.index = index.from_tuples(
            [tuple(map(_harmless_cell, label)) for label in index.tolist()], names=[_harmless_cell(name) for name in index.names]
        )
    elif _holds_text(index.dtype) or isinstance(index.name, str):
        copy.index = index.map(_harmless_cell) if _holds_text(index.dtype) else index
        copy.index.name = _harmless_cell(index.name)
    return copy


def _harmless_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _holds_text(dtype: Any) -> bool:
    return str(dtype) in ("object", "string", "str", "category")


def _json_cells(df: pd.DataFrame) -> pd.DataFrame:
    """Lists and objects as JSON: in a file, Python's own way of writing them is nobody's format."""
    places = [i for i, dtype in enumerate(df.dtypes) if str(dtype) == "object" and any(isinstance(v, list | dict) for v in df.iloc[:, i])]
    copy = df.copy(deep=False) if places else df
    for place in places:
        copy.isetitem(place, [_plain(value) if isinstance(value, list | dict) else value for value in df.iloc[:, place]])
    return copy


def _to_parquet(df: pd.DataFrame, path: Path) -> None:
    """As it is; where Arrow has no type for what a column of objects holds, lists and objects as JSON."""
    try:
        df.to_parquet(path, engine="pyarrow")
    except (ValueError, TypeError):  # Arrow's own errors derive from these
        _json_cells(df).to_parquet(path, engine="pyarrow")


def _plain(value: Any) -> str:
    """A cell as text; nothing where it is NA."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value else str(value)  # noqa: PLR0124 - NaN


def _is_ours(path: Path, run: str) -> bool:
    """Whether this kernel wrote it, of this run, and nobody has changed it since."""
    with suppress(OSError):
        now = path.stat()
        return _written.get(path) == (run, now.st_size, now.st_mtime_ns)
    return False


def _file_name(run: str) -> str:
    """A run's name as a part of a file's, whatever the system allows there."""
    return re.sub(r"[^\w.-]+", "-", run).strip("-.")[:80] or "run"


def _has_folder() -> bool:
    with suppress(OSError):
        return bool(Path.cwd())
    return False


def _message(kind: ExportKind, said: str, *, failed: bool = False) -> ExportedMessage:
    return {"kind": "exported", "what": kind, "said": clean(said), "text": "", "failed": failed}
