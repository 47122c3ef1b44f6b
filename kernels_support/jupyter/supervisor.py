"""Starts and watches child processes.

`bound` children end with this process (they watch a control socket for end of file, and on Linux the system signals them), free ones
outlive it. Both run in a session of their own, so that a kernel's interrupt, restart or shutdown, which go to the kernel's process
group, never reach them.
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

from kernels_support.jupyter.files import private_folder
from kernels_support.jupyter.limits import unlimited
from kernels_support.jupyter.process import Process, die_with_parent

__all__ = ["Child", "Command", "control", "spawn", "tail"]

#: Environment variables that carry the control socket's file descriptor and the parent's pid to a bound child.
_FD_VARIABLE, _PARENT_VARIABLE = "KERNELS_CONTROL_FD", "KERNELS_PARENT_PID"

#: How long a killed child may take to be reaped.
_KILL_TIMEOUT_S = 10.0

#: How much of the end of a log is read.
_TAIL_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. Output is appended to `log` (0600), or discarded; `cores`: its CPU affinity.

    `inherits`: the environment that it gets from us, None being all of ours; `env` is added to it.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    inherits: Mapping[str, str] | None = None
    log: Path | None = None
    cwd: Path | None = None
    cores: frozenset[int] | None = None


class Child:
    """A started process. `control` is our end of its private socket; None for a free one."""

    def __init__(self, popen: subprocess.Popen[bytes], control: socket.socket | None, command: Command) -> None:
        self._popen = popen
        self.control = control
        self.command = command
        self.pid = popen.pid
        self.process = Process.of(popen.pid)

    @property
    def code(self) -> int | None:
        """Its exit code, negative the signal that killed it; None while it runs."""
        return self._popen.poll()

    @property
    def alive(self) -> bool:
        return self.code is None

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most `seconds`. True where it has ended."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace: float = 3.0) -> int | None:
        """Close its socket, SIGTERM it, and after `grace` seconds kill it with its group. Returns its exit code."""
        if self.control is not None:
            self.control.close()
        if self.alive:
            self._popen.terminate()
        if not self.wait(grace):
            self.kill()
        return self.code

    def kill(self) -> None:
        """Kill it with its group, and wait until it is reaped. Its socket stays, so that whoever reads from it learns of the end."""
        if self.alive and hasattr(os, "killpg"):
            os.killpg(self.pid, signal.SIGKILL)
        elif self.alive:
            self._popen.kill()
        self._popen.wait(_KILL_TIMEOUT_S)

    @property
    def label(self) -> str:
        """Which process it is, in words."""
        return f"process {self.pid}"

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
        """The last lines of its log."""
        return tail(self.command.log, lines)


def spawn(command: Command, *, bound: bool, control: socket.socket | None = None) -> Child:
    """Start it in a new session. A bound child gets a control socket and ends when we do. Raises OSError where it cannot start.

    `control`: a socket that the child gets as its own, and that is closed here: whoever has its other end controls the child. Without
    one, the other end is the returned child's.
    """
    ours, theirs = (None, control) if control is not None else socket.socketpair() if bound else (None, None)
    env = {**(os.environ if command.inherits is None else command.inherits), **command.env}
    env.pop(_FD_VARIABLE, None)
    if theirs is not None:
        env |= {_FD_VARIABLE: str(theirs.fileno()), _PARENT_VARIABLE: str(os.getpid())}
    log = _open_log(command.log)
    try:
        popen = subprocess.Popen(
            list(command.argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=command.cwd,
            env=env,
            start_new_session=True,
            pass_fds=() if theirs is None else (theirs.fileno(),),
        )
    except OSError:
        if ours is not None:
            ours.close()
        raise
    finally:
        if log != subprocess.DEVNULL:
            os.close(log)
        if theirs is not None:
            theirs.close()
    unlimited(popen.pid)
    if command.cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(ProcessLookupError):  # it has ended already, and its exit code tells why
            os.sched_setaffinity(popen.pid, command.cores)
    return Child(popen, ours, command)


def control() -> socket.socket:
    """In a bound child: tie its life to its parent's and return its end of the control socket. Raises KeyError in any other process."""
    sock = socket.socket(fileno=int(os.environ.pop(_FD_VARIABLE)))
    die_with_parent(int(os.environ.pop(_PARENT_VARIABLE)))
    sock.set_inheritable(False)
    return sock


def tail(log: Path | None, lines: int) -> list[str]:
    """The last lines of a log; empty where there is none."""
    if log is None or not log.exists():
        return []
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def _open_log(path: Path | None) -> int:
    if path is None:
        return subprocess.DEVNULL
    private_folder(path.parent)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
