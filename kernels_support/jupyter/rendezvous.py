"""How a process that outlives its kernel is found again: one 0600 JSON file each, checked before it is believed.

A file is believed when its host is this one, its boot is this one, and its process still has the start time it had. What
is stale is removed together with what it names (its socket's folder, ranks it left behind), and said so. Knows no pools.
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from kernels_support.jupyter import shortage, socketdir
from kernels_support.jupyter.lock import Lock
from kernels_support.jupyter.process import Process, boot_id, host

__all__ = ["Record", "find", "listing", "lock", "remove", "write"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one running thing. `ranks` are the processes it started; `facts` is whatever else its owner keeps."""

    name: str
    process: Process
    socket: str | None = None
    port: int | None = None
    token: str | None = field(default=None, repr=False)
    ranks: tuple[Process, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    host: str = field(default_factory=host)
    boot: str = field(default_factory=boot_id)

    @property
    def here(self) -> bool:
        """It runs on this machine (a home folder may be shared by several)."""
        return self.host == host()

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and self.process.alive


def write(folder: Path, record: Record) -> Path:
    """Write or replace the file of this record. Whole or not at all; readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, beside = _paths(folder, record.name)
    before = _read(path)
    if beside.exists() or (before is not None and not before.here):
        path = beside
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")  # mkstemp: 0600 from the first byte
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def listing(folder: Path) -> tuple[list[Record], list[str]]:
    """What runs, by name, and one line for each stale file that was cleaned away. Those of other hosts are listed, never judged.

    What belongs to another user is neither. Raises OSError where this process cannot look.
    """
    records, notes = [], []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        if not socketdir.mine(path):
            continue
        record = _read(path)
        if record is not None and (not record.here or record.alive):
            records.append(record)
        elif record is not None:
            _clean(path, record)
            notes.append(f"{record.name} (process {record.process.pid}) is gone without a goodbye; what it left was cleaned away.")
        elif path.exists():
            path.unlink(missing_ok=True)
            notes.append(f"{path.name} was not a readable record; it was removed.")
    return records, notes


def find(folder: Path, name: str) -> Record | None:
    """The record of this name, where it runs here and is this user's. Raises OSError where this process cannot look."""
    for path in _paths(folder, name):
        record = _read(path) if socketdir.mine(path) else None
        if record is not None and record.name == name and record.here and record.alive:
            return record
    return None


def remove(folder: Path, name: str, owner: Process | None = None) -> None:
    """Take the file away; with `owner`, only where it is still that process's. Another host's stays."""
    for path in _paths(folder, name):
        record = _read(path)
        if record is None or not record.here:
            continue
        if owner is None or record.process == owner:
            path.unlink(missing_ok=True)


def lock(folder: Path, name: str) -> Lock:
    """What the owner of this name holds while it lives, so that two of one host never do."""
    return Lock(_paths(folder, name)[1].with_suffix(".lock"))


def _clean(path: Path, record: Record) -> None:
    """What a dead owner left: its ranks, its socket's folder, its file. Nothing that is not clearly its own."""
    if record.boot == boot_id():
        for rank in record.ranks:
            rank.signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
    path.unlink(missing_ok=True)
    guard = lock(path.parent, record.name)
    if guard.take(0.5):  # its last threads may still be ending, and hold the lock and the socket
        guard.free(remove=True)
    if record.socket is not None and not socketdir.listened(Path(record.socket)):
        socketdir.remove(Path(record.socket).parent)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    """Where a record of this name may be: under its name, or, where another host that shares the folder has that, beside it."""
    plain = re.sub(r"[^\w.:-]", "_", name)
    # Names that differ in what a file's name cannot hold are two names all the same.
    stem = plain if plain == name else f"{plain}-{crc32(name.encode()):08x}"
    here = re.sub(r"[^\w.-]", "_", host())
    return folder / f"{stem}.json", folder / f"{stem}@{here}.json"


def _read(path: Path) -> Record | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["process"] = Process(**raw["process"])
        raw["ranks"] = tuple(Process(**r) for r in raw["ranks"])
        record = Record(**raw)
        return record if _sound(record) else None
    except OSError as exc:
        if shortage.out(exc):
            raise  # a file that cannot be opened now is not one that is gone
        return None
    except (ValueError, TypeError, KeyError):
        return None


def _sound(record: Record) -> bool:
    """Whether everything is of its kind: what is believed here leads to signals and to files that are removed."""
    numbers = [n for p in (record.process, *record.ranks) for n in (p.pid, p.start)]
    words = [record.name, record.host, record.boot, *(w for w in (record.socket, record.token) if w is not None)]
    return (
        all(isinstance(n, int) for n in (*numbers, record.port or 0))
        and all(isinstance(w, str) for w in words)
        and isinstance(record.facts, dict)
    )
