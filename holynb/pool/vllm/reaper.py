"""Runs a foreign program and ends it, with all of its children, when the pool ends, however that ends. Knows processes; nothing of vLLM.

A foreign program does not watch our control socket, so this process does, as the leader of the session of the program and its
children. Killing the program alone would leave its workers behind (vllm-project/vllm#55510).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from socket import socket

from kernels_support.jupyter import supervisor
from kernels_support.jupyter.process import Process, when_parent_dies

__all__ = ["kill_session", "main", "members"]

#: Seconds between SIGTERM and SIGKILL to the program.
_GRACE_S = 3.0
#: Environment variables not passed on: a program from another environment must not find our packages before its own.
_DROPPED_ENV = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def members(session: int) -> list[Process]:
    """The processes of a session, its leader among them."""
    import psutil

    processes = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session and (process := Process.of(pid)) is not None:
                processes.append(process)
    return processes


def kill_session(session: int, *, keep: int = 0) -> None:
    """Kill the processes of a session, and wait until they are gone. The process `keep` stays."""
    while left := [p for p in members(session) if p.pid != keep]:
        for process in left:
            process.signal(signal.SIGKILL)
        for process in left:
            process.wait(5.0)


def main(argv: Sequence[str] | None = None) -> int:
    """`… -- PROGRAM ARGUMENTS`. Ends as the program ended: with its exit code, or by the same signal."""
    args = list(sys.argv[1:] if argv is None else argv)
    program = args[args.index("--") + 1 :]
    stop_requested = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_requested.set())
    sock = supervisor.control()
    when_parent_dies(signal.SIGTERM)  # not SIGKILL, as for a rank: the program and its children would stay
    try:
        popen = subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k not in _DROPPED_ENV},
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no other thread runs yet
        )
    except OSError as exc:
        print(f"error: {program[0]} cannot be started: {exc.strerror}", flush=True)
        return 1
    threading.Thread(target=_wait_disconnect, args=(sock, stop_requested), daemon=True).start()
    while popen.poll() is None and not stop_requested.wait(0.1):
        pass
    code = _end(popen) if stop_requested.is_set() else popen.wait()
    kill_session(os.getsid(0), keep=os.getpid())
    if code < 0 and not stop_requested.is_set():
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    return 0 if stop_requested.is_set() else code


def _end(popen: subprocess.Popen[bytes]) -> int:
    popen.terminate()
    try:
        return popen.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        return popen.wait()


def _wait_disconnect(sock: socket, stop_requested: threading.Event) -> None:
    """Until the control socket ends: the pool is gone, or closed it to stop this process."""
    with contextlib.suppress(OSError):
        while sock.recv(4096):
            pass
    stop_requested.set()


def _die_with_parent() -> None:
    """Runs in the child before exec: it dies with this process."""
    when_parent_dies(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
