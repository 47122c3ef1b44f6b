"""The identity of a process: its pid and start time, so that a reused pid is not taken for it. Signals to it and to its group.

Reads /proc on Linux, and psutil elsewhere.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from kernels_support.jupyter import shortage

__all__ = ["Process", "boot_id", "die_with_parent", "host", "when_parent_dies"]

#: prctl(2) option: the signal that this process gets when its parent dies.
_PR_SET_PDEATHSIG = 1

_POLL_S = 0.02

#: How long a killed process may take to disappear.
_KILL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    """`start` is in the system's own unit (Linux: clock ticks since boot, else milliseconds since an epoch): compare for equality."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now; None where there is none, or a zombie. Raises OSError where that cannot be determined."""
        start = _start(pid)
        return None if start is None else cls(pid, start)

    @classmethod
    def mine(cls) -> Process:
        process = cls.of(os.getpid())
        if process is None:  # pragma: no cover - a running process that the system does not list
            raise OSError("this process is not listed by the system")
        return process

    @property
    def alive(self) -> bool:
        return _start(self.pid) == self.start

    def signal(self, number: int, *, group: bool = False) -> bool:
        """Send a signal to it, or to the whole group it leads. False where it is gone. A reused pid is never signalled."""
        if not self.alive:
            return False
        try:
            if group and hasattr(os, "killpg") and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until it is gone, at most `seconds`. True where it is."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True

    def stop(self, grace: float) -> bool:
        """SIGTERM, `grace` seconds of waiting, then SIGKILL to its group. True where it is gone afterwards."""
        self.signal(signal.SIGTERM)
        if hasattr(signal, "SIGCONT"):
            self.signal(signal.SIGCONT)  # a stopped process handles SIGTERM only once it continues
        if not self.wait(grace):
            self.signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
        return self.wait(_KILL_TIMEOUT_S)


def _start(pid: int) -> int | None:
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError as exc:
            if shortage.is_inconclusive(exc):
                raise  # a live process must not be taken for dead because no file could be opened
            return None
        started = fields[19] if len(fields) > 19 else ""
        # Where the system does not tell when it started, its number alone says which it is.
        return None if fields and fields[0] in "ZX" else int(started) if started.isascii() and started.isdigit() else 0
    import psutil

    try:
        process = psutil.Process(pid)
        # psutil's own identity of a process: the public creation time shifts when the system's clock is corrected.
        start = getattr(process, "_ident", (pid, None))[1] or process.create_time()
        return None if process.status() == psutil.STATUS_ZOMBIE else int(start * 1000)
    except psutil.Error:
        return None


def boot_id() -> str:
    """Differs for each boot on Linux, where start times count from the boot. Raises OSError where it cannot be read.

    Elsewhere start times are dates, which no boot repeats, and the time of the boot moves with the clock: always "none", as on a Linux
    that has no such file.
    """
    if sys.platform != "linux":
        return "none"
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii", errors="replace").strip() or "none"
    except (FileNotFoundError, PermissionError):
        return "none"


def host() -> str:
    """The machine's name; on macOS without the domain, which changes with the network."""
    name = socket.gethostname()
    return name.partition(".")[0] if sys.platform == "darwin" else name


def when_parent_dies(number: int) -> None:
    """Make the system send this process signal `number` when its parent dies (Linux only; elsewhere a no-op)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Make the system kill this process when its parent dies (Linux). Exits at once where the parent is dead already.

    Watching the control socket for end of file does the same on every system; the two together leave no gap.
    """
    when_parent_dies(getattr(signal, "SIGKILL", signal.SIGTERM))
    if os.getppid() != parent:
        os._exit(1)
