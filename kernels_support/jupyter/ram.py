"""The memory of this machine, or of the container it runs in where that is less. What the system does not tell is None; nothing raises."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["CGROUPS", "Ram", "ram", "resident"]

#: Limit and usage of the container (cgroup v2, v1).
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class Ram(NamedTuple):
    """Bytes. `free` is what could be taken."""

    total: int | None
    free: int | None


def ram() -> Ram:
    """The memory of this machine, or of its container. Where a container does not say what it uses, nobody knows what is free."""
    total, free = _machine()
    for limit_file, usage_file in CGROUPS:
        limit, used = _number(limit_file), _number(usage_file)
        if not limit or (total is not None and limit >= total):  # `max`, or a number beyond any machine: no limit here
            continue
        total = limit
        free = None if used is None else max(0, limit - used if free is None else min(free, limit - used))
    return Ram(total, free)


def resident(pid: int | None = None) -> int | None:
    """Resident bytes of a process (this one without `pid`); None where it is gone or the system does not tell."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError, ValueError, LookupError, RuntimeError):  # psutil leaves what it cannot parse to Python's errors
        return None


def _machine() -> Ram:
    import psutil

    try:
        memory = psutil.virtual_memory()
    except (psutil.Error, OSError, ValueError, LookupError, RuntimeError):
        return Ram(None, None)
    return Ram(int(memory.total), int(memory.available)) if memory.total else Ram(None, None)


def _number(path: str) -> int | None:
    """The number that a file of the system holds; None where it is not there, empty, or holds anything else."""
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
