"""Which files of `--out` are whose: what a run has written there, kept in HOLYNB_HOME, and by which a file is known again.

A file that nobody has claimed, or that was changed since, belongs to its user and is never replaced. Standard library and settings only.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from holynb.config import settings

__all__ = ["Claim", "Mark", "mark", "read", "write"]

#: A file's size and time of change, by which it is known again. A rename keeps both.
Mark = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """run: who wrote the file. question: the key of the first row that it asks. rows: how many rows it is about.

    marks: of the file, and of the one that takes its place now: whichever a kill left is known.
    """

    run: str
    name: str | None
    question: str | None
    rows: int
    marks: tuple[Mark, ...]


def mark(path: Path) -> Mark | None:
    """What is there now; None where nothing is. Raises OSError."""
    with suppress(FileNotFoundError):
        now = path.stat()
        return now.st_size, now.st_mtime_ns
    return None


def read(path: Path) -> Claim | None:
    """What is known of this file; None where that is nothing."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(_place(path).read_text(encoding="utf-8"))
        marks = tuple((int(size), int(at)) for size, at in stored["marks"])
        return Claim(str(stored["run"]), stored["name"], stored["question"], int(stored["rows"]), marks)
    return None


def write(path: Path, claim: Claim) -> None:
    """Keep it, before the file is replaced. One that cannot be kept leaves a file that no later run replaces."""
    place = _place(path)
    part = place.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.touch(mode=0o600)
        part.write_text(json.dumps({"path": str(path), **asdict(claim)}), encoding="utf-8")
        part.replace(place)


def _place(path: Path) -> Path:
    return settings.home() / "out" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
