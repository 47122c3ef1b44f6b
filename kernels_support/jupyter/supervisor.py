"""Starts and watches the commands it is given as data. Knows no prompts, no HTTP, no torch.

Two ways to start one: `bound` children end with us (a control socket whose end of file they watch, and the system's own
signal on Linux), free ones outlive us. Both run in a session of their own, so that a kernel's interrupt, restart or
shutdown, which go to the kernel's process group, never reach them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernels_support.jupyter.process import Process, die_with_parent

__all__ = ["Child", "Command", "control", "spawn", "tail"]

#: Environment variables that carry the control socket's number and the parent's to a bound child.
_FD, _PARENT = "KERNELS_CONTROL_FD", "KERNELS_PARENT_PID"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `env` is added to ours; what it writes goes to `log` (0600, appended), or nowhere; `cores`: it may use these alone."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    cwd: Path | None = None
    cores: frozenset[int] | None = None


class Child:
    """A process that was started. `control` is our end of its private socket; None for a free one."""

    def __init__(self, popen: subprocess.Popen[bytes], control: socket.socket | None, command: Command) -> None:
        self._popen = popen
        self.control = control
        self.command = command
        self.pid = popen.pid
        self.process = Process.of(popen.pid)

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal's number where one killed it; None while it runs."""
        return self._popen.poll()

    @property
    def alive(self) -> bool:
        return self.code is None

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long. True where it has ended."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace: float = 3.0) -> int | None:
        """Close its socket, ask it to end, and after `grace` seconds kill it with its group. Its exit code."""
        if self.control is not None:
            self.control.close()
        if self.alive:
            self._popen.terminate()
        if not self.wait(grace):
            self.kill()
        return self.code

    def kill(self) -> None:
        """Kill it with its group, and wait until the system has buried it."""
        if self.alive and hasattr(os, "killpg"):
            os.killpg(self.pid, signal.SIGKILL)
        elif self.alive:
            self._popen.kill()
        self._popen.wait(10.0)

    def how(self) -> str:
        """How it ended, in words."""
        code = self.code
        if code is None:
            return "runs"
        if code >= 0:
            return f"ended with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (the system's out-of-memory killer sends it too)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"

    def tail(self, lines: int = 5) -> list[str]:
        """The last lines it wrote."""
        return tail(self.command.log, lines)


def spawn(command: Command, *, bound: bool) -> Child:
    """Start it in a new session. A bound child gets a control socket and ends when we do. Raises OSError where it cannot start."""
    ours, theirs = socket.socketpair() if bound else (None, None)
    env = {**os.environ, **command.env}
    env.pop(_FD, None)
    if theirs is not None:
        env |= {_FD: str(theirs.fileno()), _PARENT: str(os.getpid())}
    log = _open_log(command.log)
    try:
        popen = subprocess.Popen(
            list(command.argv),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=command.cwd, env=env,
            start_new_session=True, pass_fds=() if theirs is None else (theirs.fileno(),),
        )  # fmt: skip
    except OSError:
        if ours is not None:
            ours.close()
        raise
    finally:
        if log != subprocess.DEVNULL:
            os.close(log)
        if theirs is not None:
            theirs.close()
    if command.cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(ProcessLookupError):  # it has ended already, and its exit code will say why
            os.sched_setaffinity(popen.pid, command.cores)
    return Child(popen, ours, command)


def control() -> socket.socket:
    """In a bound child: its end of the control socket, and from now on it dies with its parent. Raises KeyError in any other process."""
    sock = socket.socket(fileno=int(os.environ.pop(_FD)))
    die_with_parent(int(os.environ.pop(_PARENT)))
    sock.set_inheritable(False)
    return sock


def tail(log: Path | None, lines: int) -> list[str]:
    """The last lines of a log; empty where there is none."""
    if log is None or not log.exists():
        return []
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65536))
        text = file.read().decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def _open_log(path: Path | None) -> int:
    if path is None:
        return subprocess.DEVNULL
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
