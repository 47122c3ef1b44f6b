"""Records of processes that outlive their kernel: one 0600 JSON file each, validated before it is trusted.

A record is live when its host and boot are the current ones and its process still has the recorded start time. Stale records are removed
and reported, together with what they name (the socket's folder, orphaned ranks).
"""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from kernels_support.jupyter import shortage, socketdir
from kernels_support.jupyter.files import private_folder
from kernels_support.jupyter.lock import Lock
from kernels_support.jupyter.process import Process, boot_id, host

__all__ = ["Record", "find", "listing", "lock", "remove", "write"]

#: How long the threads of a dead owner may take to release its lock.
_LOCK_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Record:
    """One running process. `ranks` are the processes it started; `facts` is whatever else its owner stores."""

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
        """Whether it belongs to this machine (several may share a home folder)."""
        return self.host == host()

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and self.process.alive


def write(folder: Path, record: Record) -> Path:
    """Write or replace the file of this record, atomically; readable by its owner only."""
    private_folder(folder)
    path, host_path = _paths(folder, record.name)
    existing = _read(path)
    if host_path.exists() or (existing is not None and not existing.here):
        path = host_path
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".tmp")  # mkstemp: 0600 from the first byte
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def listing(folder: Path, on_stale: Callable[[Record], None] = lambda record: None) -> tuple[list[Record], list[str]]:
    """Live records, by name, and one line for each stale file that was removed. Records of other hosts are listed unchecked.

    `on_stale` gets each record that was removed. Files of other users are ignored. Raises OSError where the files cannot be read.
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
            on_stale(record)
            notes.append(f"{record.name} (process {record.process.pid}) is gone without a goodbye; what it left was cleaned away.")
        elif path.exists():
            path.unlink(missing_ok=True)
            notes.append(f"{path.name} was not a readable record; it was removed.")
    return records, notes


def find(folder: Path, name: str) -> Record | None:
    """The live record of this name, on this host and of this user. Raises OSError where it cannot be read."""
    for path in _paths(folder, name):
        record = _read(path) if socketdir.mine(path) else None
        if record is not None and record.name == name and record.here and record.alive:
            return record
    return None


def remove(folder: Path, name: str, owner: Process | None = None) -> None:
    """Remove the file; with `owner`, only where it is still that process's. Other hosts' files stay."""
    for path in _paths(folder, name):
        record = _read(path)
        if record is None or not record.here:
            continue
        if owner is None or record.process == owner:
            path.unlink(missing_ok=True)


def lock(folder: Path, name: str) -> Lock:
    """The lock that the owner of this name holds while it lives, so that a host never has two."""
    return Lock(_paths(folder, name)[1].with_suffix(".lock"))


def _clean(path: Path, record: Record) -> None:
    """Remove what a dead owner left: its ranks, its socket's folder, its file. Nothing that is not clearly its own."""
    if record.boot == boot_id():
        for rank in record.ranks:
            rank.signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
    path.unlink(missing_ok=True)
    guard = lock(path.parent, record.name)
    if guard.take(_LOCK_TIMEOUT_S):  # its last threads may still hold the lock and the socket
        guard.free(remove=True)
    if record.socket is not None and not socketdir.has_listener(Path(record.socket)):
        socketdir.remove(Path(record.socket).parent)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    """The two possible files of a record: by its name, or with the host's name added where another host that shares the folder has that."""
    plain = re.sub(r"[^\w.:-]", "_", name)
    # A checksum keeps names apart that differ only in characters a file name cannot hold.
    stem = plain if plain == name else f"{plain}-{crc32(name.encode()):08x}"
    here = re.sub(r"[^\w.-]", "_", host())
    return folder / f"{stem}.json", folder / f"{stem}@{here}.json"


def _read(path: Path) -> Record | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["process"] = Process(**raw["process"])
        raw["ranks"] = tuple(Process(**r) for r in raw["ranks"])
        record = Record(**raw)
        return record if _is_valid(record) else None
    except OSError as exc:
        if shortage.is_inconclusive(exc):
            raise  # a file that cannot be opened now is not a missing file
        return None
    except (ValueError, TypeError, KeyError):
        return None


def _is_valid(record: Record) -> bool:
    """Whether every field has its type: processes are signalled and files removed on the strength of a record."""
    numbers = [n for p in (record.process, *record.ranks) for n in (p.pid, p.start)]
    words = [record.name, record.host, record.boot, *(w for w in (record.socket, record.token) if w is not None)]
    return (
        all(isinstance(n, int) for n in (*numbers, record.port or 0))
        and all(isinstance(w, str) for w in words)
        and isinstance(record.facts, dict)
    )
