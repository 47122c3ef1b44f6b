"""Private folders for sockets, short enough for a socket's path, and the removal of those that dead processes left. Knows no records and no pools."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

__all__ = ["listened", "make", "mine", "remove", "sweep"]

#: A socket's path ends at 107 bytes (103 on macOS); the folder must leave room for the name inside it.
_LONGEST = 90
_PREFIX = "holynb-"
#: As mkdtemp names them, and what we put in: sockets, and the files by which ranks meet.
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
_MEETING = re.compile(r"meet\d+")
#: Seconds in which a process that has made a folder listens in it.
_YOUNG_S = 60.0


def make() -> Path:
    """A new 0700 folder. Raises OSError where no temporary folder is short enough."""
    for place in _places():
        if len(os.fsencode(place)) + len(_PREFIX) + 9 <= _LONGEST:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    raise OSError(f"no temporary folder is short enough for a socket path (TMPDIR is {tempfile.gettempdir()}); set TMPDIR=/tmp")


def remove(folder: Path) -> None:
    """Take such a folder away; nothing else."""
    if folder.name.startswith(_PREFIX) and folder.is_dir() and not folder.is_symlink() and mine(folder):
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Remove the folders in which nobody listens any more. How many.

    The socket is asked and not a process's number: another container may share this folder and number its processes anew.
    """
    if not hasattr(socket, "AF_UNIX"):
        return 0
    found = [f for place in _places() for f in place.glob(f"{_PREFIX}*") if _NAME.fullmatch(f.name) and _left(f)]
    for folder in found:
        remove(folder)
    return len(found)


def listened(path: Path) -> bool:
    """Whether somebody listens there, or nobody can tell."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)  # a listener whose queue is full would keep us waiting; it is one
            sock.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


def mine(place: Path) -> bool:
    """Whether this user made it: another one's file could lead us to a socket of theirs."""
    try:
        return not hasattr(os, "getuid") or place.stat().st_uid == os.getuid()
    except OSError:
        return False


def _places() -> list[Path]:
    """Temporary folders, the user's own first."""
    return [p for p in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))) if p.is_dir()]  # noqa: S108 - mkdtemp makes a private folder


def _left(folder: Path) -> bool:
    """Whether it is one of ours that is old, holds nothing but what we put in, and has no listener."""
    try:
        said = folder.lstat()
        if not stat.S_ISDIR(said.st_mode) or not mine(folder) or time.time() - said.st_mtime < _YOUNG_S:
            return False
        inside = list(folder.iterdir())
    except OSError:
        return False
    sockets = [f for f in inside if f.is_socket()]
    known = all(f in sockets or _MEETING.fullmatch(f.name) for f in inside)
    return known and not any(map(listened, sockets))
