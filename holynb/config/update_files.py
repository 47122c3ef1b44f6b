"""The files of updates: newer tables of prices and models, kept in the user's own HOLYNB_HOME. Knows nothing of what is in them.

A project's file may set HOLYNB_HOME, but must not bring a table of prices with it: hence `own_home`.
"""

from __future__ import annotations

import json
import os
import stat as stat_module
import tempfile
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from holynb.config.home import own_home
from holynb.errors import BadSetting
from kernels_support.jupyter.files import private_folder

__all__ = ["Stamp", "document", "entries", "read", "remove", "stamp", "write"]

#: Path, mtime in ns and size of a file: what tells a changed one.
Stamp = tuple[str, int, int]

#: A stamp is looked up again after so many seconds: prices are asked for with every row.
STAMP_S = 1.0

#: Name → (time it was looked up, stamp).
_stamps: dict[str, tuple[float, Stamp | None]] = {}


def stamp(name: str) -> Stamp | None:
    """What tells this version of a kept table from others; None where there is none."""
    known, now = _stamps.get(name), time.monotonic()
    if known is None or now - known[0] > STAMP_S:
        known = _stamps[name] = now, _look(own_home() / name)
    return known[1]


def _look(path: Path) -> Stamp | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return (str(path), info.st_mtime_ns, info.st_size) if stat_module.S_ISREG(info.st_mode) else None


def read(name: str) -> Mapping[str, Any] | None:
    """A kept document whole, with its `source` and `date`; None where there is none. Raises BadSetting."""
    version = _look(own_home() / name)
    return None if version is None else document(version)


def document(of: Stamp) -> Mapping[str, Any]:
    """The document of a stamp. Raises BadSetting, in one line that says how to be rid of it."""
    path = Path(of[0])
    way_out = f"Remove the file, or take a new one: %infer {path.name.partition('.')[0]} update"
    try:
        value = json.loads(path.read_text("utf-8"), parse_float=Decimal)
    except (OSError, ValueError, RecursionError) as exc:
        raise BadSetting(f"{path} cannot be read ({type(exc).__name__}). {way_out}") from exc
    if not isinstance(value, dict) or not isinstance(value.get("entries"), list):
        raise BadSetting(f"{path} holds no table. {way_out}")
    return value


def entries(of: Stamp) -> Sequence[Mapping[str, Any]]:
    """The entries of a kept table. Raises BadSetting."""
    listed: Sequence[Mapping[str, Any]] = document(of)["entries"]
    return listed


def write(name: str, value: Mapping[str, Any]) -> Path:
    """Keep a document for this user alone, whole or not at all. Raises BadSetting where the folder cannot be written."""
    folder = own_home()
    try:
        private_folder(folder)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{name}", encoding="utf-8", delete=False) as file:  # 0600
            json.dump(value, file, ensure_ascii=False, default=_plain)
        os.replace(file.name, folder / name)  # noqa: PTH105 - a Path of the same words
    except OSError as exc:
        raise BadSetting(f"{folder} cannot be written: {exc.strerror}.") from exc
    _stamps.clear()
    return folder / name


def _plain(value: Any) -> Any:
    """A figure as JSON has it: the shortest float that reads as the same decimal."""
    return float(value) if isinstance(value, Decimal) else str(value)


def remove(name: str) -> bool:
    """Remove a kept table; whether there was one."""
    path = own_home() / name
    there = path.exists()
    path.unlink(missing_ok=True)
    _stamps.clear()
    return there
