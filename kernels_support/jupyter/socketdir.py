"""Private folders for sockets, with paths short enough for a socket address, and the removal of those that dead processes left."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

__all__ = ["has_listener", "make", "mine", "remove", "sweep"]

#: A socket's path has at most 107 bytes (103 on macOS), which include the socket's name.
_MAX_FOLDER_BYTES = 90
_PREFIX = "holynb-"
#: Folder names as mkdtemp makes them, and what is in them beside sockets: the files of torch.distributed's rendezvous.
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
_RENDEZVOUS_FILE = re.compile(r"meet\d+")
#: How long a process may take from making its folder to listening in it.
_STARTUP_GRACE_S = 60.0


def make() -> Path:
    """A new 0700 folder. Raises OSError where no temporary folder is short enough."""
    for place in _places():
        if len(os.fsencode(place)) + len(_PREFIX) + 9 <= _MAX_FOLDER_BYTES:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    raise OSError(f"no temporary folder is short enough for a socket path (TMPDIR is {tempfile.gettempdir()}); set TMPDIR=/tmp")


def remove(folder: Path) -> None:
    """Remove a folder that `make` made; nothing else."""
    if folder.name.startswith(_PREFIX) and folder.is_dir() and not folder.is_symlink() and mine(folder):
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Remove the folders without a listener. Returns how many.

    The socket decides and not a pid: another container with its own pids may share this folder.
    """
    if not hasattr(socket, "AF_UNIX"):
        return 0
    abandoned = [f for place in _places() for f in place.glob(f"{_PREFIX}*") if _NAME.fullmatch(f.name) and _is_abandoned(f)]
    for folder in abandoned:
        remove(folder)
    return len(abandoned)


def has_listener(path: Path) -> bool:
    """Whether a process listens there, or that cannot be determined."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)  # a listener whose backlog is full would block us; it counts as one
            sock.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


def mine(place: Path) -> bool:
    """Whether this user owns it: another user's file could lead us to a socket of theirs."""
    try:
        return not hasattr(os, "getuid") or place.stat().st_uid == os.getuid()
    except OSError:
        return False


def _places() -> list[Path]:
    """Temporary folders, the user's own first."""
    places = Path(tempfile.gettempdir()), Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder
    return [p for p in dict.fromkeys(places) if p.is_dir()]


def _is_abandoned(folder: Path) -> bool:
    """Whether it is ours, past its startup, contains only what we put there, and has no listener."""
    try:
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or not mine(folder) or time.time() - info.st_mtime < _STARTUP_GRACE_S:
            return False
        files = list(folder.iterdir())
    except OSError:
        return False
    sockets = [f for f in files if f.is_socket()]
    known = all(f in sockets or _RENDEZVOUS_FILE.fullmatch(f.name) for f in files)
    return known and not any(map(has_listener, sockets))
