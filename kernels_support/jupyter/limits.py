"""The address space that this process may take (Linux). Its children get what it had before."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["limit_memory", "unlimited"]

#: mallopt(3) option: how many pools of memory the C library makes for threads. Each reserves 64 MB, and there may be eight for each core.
_M_ARENA_MAX = -8

_before: tuple[int, int] | None = None
"""The limits before `limit_memory`."""


def limit_memory(size: int) -> None:
    """Let this process have at most `size` bytes: what would take more fails with MemoryError. No effect outside Linux."""
    if sys.platform != "linux":
        return
    import ctypes
    import resource

    global _before  # noqa: PLW0603 - a limit is of the whole process
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    _before = _before or (soft, hard)
    if soft == resource.RLIM_INFINITY or soft > size:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def unlimited(pid: int) -> None:
    """Give a child that was just started the limits that this process had before `limit_memory`."""
    if _before is None or sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(OSError):  # it has ended already
        resource.prlimit(pid, resource.RLIMIT_AS, _before)
