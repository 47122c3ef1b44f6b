"""Who a process is: its number and when it started, so that a number used again is not taken for it. Signals to it and to its group.

Linux reads /proc; elsewhere psutil is asked. Knows no commands and no files.
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

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Process:
    """`start` is the system's own figure (clock ticks since boot on Linux, else milliseconds of an epoch): equal for the same process, nothing else."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None where there is none, or only its corpse (a zombie). Raises OSError where nobody can tell."""
        start = _start(pid)
        return None if start is None else cls(pid, start)

    @classmethod
    def mine(cls) -> Process:
        found = cls.of(os.getpid())
        if found is None:  # pragma: no cover - a running process that the system does not list
            raise OSError("this process is not listed by the system")
        return found

    @property
    def alive(self) -> bool:
        return _start(self.pid) == self.start

    def signal(self, number: int, *, group: bool = False) -> bool:
        """Send a signal to it, or to the whole group it leads. False where it is gone. A number used again is never hit."""
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
        """Wait until it is gone, at most so long. True where it is."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return True

    def stop(self, grace: float) -> bool:
        """Ask it to end, wait `grace` seconds, then kill it and its group. True where it is gone afterwards."""
        self.signal(signal.SIGTERM)
        if hasattr(signal, "SIGCONT"):
            self.signal(signal.SIGCONT)  # one that is stopped hears of its end no earlier
        if not self.wait(grace):
            self.signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
        return self.wait(5.0)


def _start(pid: int) -> int | None:
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError as exc:
            if shortage.out(exc):
                raise  # nobody may take a living process for a dead one because no file could be opened
            return None
        return None if fields[0] in "ZX" else int(fields[19])
    import psutil

    try:
        found = psutil.Process(pid)
        # psutil's own mark of a process, for the public time of creation follows the system's clock where that is put right.
        start = getattr(found, "_ident", (pid, None))[1] or found.create_time()
        return None if found.status() == psutil.STATUS_ZOMBIE else int(start * 1000)
    except psutil.Error:
        return None


def boot_id() -> str:
    """Changes at each boot of a Linux machine, whose processes' starts are counted from there. Raises OSError where nobody can tell.

    Elsewhere a start is a date, which a boot does not repeat, and the time of the boot moves with the clock.
    """
    if sys.platform != "linux":
        return "none"
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def host() -> str:
    """The machine's name; on macOS without the domain, which is the network's that a laptop is in."""
    name = socket.gethostname()
    return name.partition(".")[0] if sys.platform == "darwin" else name


def when_parent_dies(number: int) -> None:
    """From now on the system sends this process that signal when its parent dies (Linux; elsewhere nothing does)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """From now on the system kills this process when its parent dies (Linux). Ends at once where that already happened.

    A watcher of the control socket's end of file does the same on every system; the two together leave no gap.
    """
    when_parent_dies(getattr(signal, "SIGKILL", signal.SIGTERM))
    if os.getppid() != parent:
        os._exit(1)
