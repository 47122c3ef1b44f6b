"""Another system, as far as Python sees it: first on the path of a process, this makes it macOS or Windows, as HOLYNB_TEST_SYSTEM says.

Libraries choose their parts when they load, so those that have parts of their own are loaded before.
"""

from __future__ import annotations

import asyncio  # noqa: F401
import ctypes.util  # noqa: F401
import os
import pathlib
import signal
import socket
import subprocess  # noqa: F401
import sys
import sysconfig
import urllib.request  # noqa: F401
from types import ModuleType
from typing import Any

import psutil  # noqa: F401

_UNIX = socket.AF_UNIX
_read_text, _socketpair = pathlib.Path.read_text, socket.socketpair

#: What Windows' Python has not.
_MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
_OF_OS = ("getuid", "geteuid", "setsid", "killpg", "getpgid", "getsid", "fork", "uname")
_SIGNALS = ("SIGKILL", "SIGCONT", "SIGSTOP", "SIGHUP")


def _no_proc(self: pathlib.Path, *args: Any, **kwargs: Any) -> str:
    if str(self).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", str(self))
    return _read_text(self, *args, **kwargs)


def _msvcrt() -> ModuleType:
    """Of Windows' own runtime what is called: a lock on an open file, which another one's attempt finds taken."""
    import fcntl

    made = ModuleType("msvcrt")
    vars(made).update(LK_NBLCK=2, locking=lambda file, mode, size: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
    return made


def _without(module: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


if (system := os.environ.get("HOLYNB_TEST_SYSTEM")) is not None:
    sysconfig.get_config_vars()
    sys.platform = system
    pathlib.Path.read_text = _no_proc  # type: ignore[method-assign]
    _without(os, ("sched_getaffinity", "sched_setaffinity"))
    if system == "win32":
        runtime = _msvcrt()
        sys.modules |= dict.fromkeys(_MODULES) | {"msvcrt": runtime}  # type: ignore[arg-type]
        _without(os, _OF_OS)
        _without(signal, _SIGNALS)
        _without(socket, ("AF_UNIX",))
        socket.socketpair = lambda *_: _socketpair(_UNIX)  # type: ignore[assignment]
