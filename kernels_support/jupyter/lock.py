"""A lock between processes, held through an open file, so that the system releases it however its owner dies."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from kernels_support.jupyter.files import private_folder

__all__ = ["Lock"]

_POLL_S = 0.05


class Lock:
    """`with Lock(path): …`, or `take(seconds)` and `free()`; `free(remove=True)` also removes the file. A forked process holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, seconds: float | None = None) -> bool:
        """Try for `seconds` (None: for ever; 0: once). False where another process held it all the time."""
        private_folder(self.path.parent)
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            # The owner may have removed the file after we opened and before we locked it: then the lock is on no path any more.
            if _try_lock(file) and _is_same(file, self.path):
                self._file = file
                _held.add(self)
                return True
            os.close(file)
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)

    def free(self, *, remove: bool = False) -> None:
        if self._file is None:
            return
        removed = remove and _unlink(self.path)
        os.close(self._file)
        self._file = None
        if remove and not removed and os.name == "nt":  # Windows removes no open file, nor one that another process has opened by now
            _unlink(self.path)

    def _leave(self) -> None:
        """Close the file without a word: the lock stays with the parent, and ends with it, though this process lives on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.free()


#: The locks of this process.
_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _leave_all() -> None:
    for lock in list(_held):
        lock._leave()  # noqa: SLF001 - this module's own
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def _unlink(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.unlink()
        return True
    return False


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        with contextlib.suppress(OSError):
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
            return True
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
