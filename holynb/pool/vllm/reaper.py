"""Holds a foreign server and all that it starts: they end when the pool does, however it ends. Knows processes; nothing of vLLM.

A foreign program watches no socket of ours, so this process does it instead, as the leader of a session in which the program
and its children are. Killing the program alone would leave its workers behind (vllm-project/vllm#55510).
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

__all__ = ["main", "members", "sweep"]

#: Seconds in which the program may end by itself once it is told to.
_GRACE = 3.0
#: What is ours alone: a program from another environment must not find our packages before its own.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def members(session: int) -> list[Process]:
    """The processes of a session, its leader among them."""
    import psutil

    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session and (process := Process.of(pid)) is not None:
                found.append(process)
    return found


def sweep(session: int, *, but: int = 0) -> None:
    """Kill what is left of a session, and wait until it is gone. The process `but` lives on."""
    while left := [p for p in members(session) if p.pid != but]:
        for process in left:
            process.signal(signal.SIGKILL)
        for process in left:
            process.wait(5.0)


def main(argv: Sequence[str] | None = None) -> int:
    """`… -- PROGRAM ARGUMENTS`. Ends as the program ended: with its code, or by the same signal."""
    words = list(sys.argv[1:] if argv is None else argv)
    program = words[words.index("--") + 1 :]
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    sock = supervisor.control()
    when_parent_dies(signal.SIGTERM)  # not SIGKILL, as a rank: the program and its children would stay
    try:
        popen = subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k not in _OURS},
            preexec_fn=_mortal,  # noqa: PLW1509 - no other thread runs yet
        )
    except OSError as exc:
        print(f"error: {program[0]} cannot be started: {exc.strerror}", flush=True)
        return 1
    threading.Thread(target=_listen, args=(sock, told), daemon=True).start()
    while popen.poll() is None and not told.wait(0.1):
        pass
    code = _end(popen) if told.is_set() else popen.wait()
    sweep(os.getsid(0), but=os.getpid())
    if code < 0 and not told.is_set():
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    return 0 if told.is_set() else code


def _end(popen: subprocess.Popen[bytes]) -> int:
    popen.terminate()
    try:
        return popen.wait(_GRACE)
    except subprocess.TimeoutExpired:
        popen.kill()
        return popen.wait()


def _listen(sock: socket, told: threading.Event) -> None:
    """The end of the socket: the pool is gone, or wants this end."""
    with contextlib.suppress(OSError):
        while sock.recv(4096):
            pass
    told.set()


def _mortal() -> None:
    """In the program, before it begins: it dies with this process."""
    when_parent_dies(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
