"""The limit of open files of this process, raised to what the system grants. Changes no other limit."""

from __future__ import annotations

import contextlib

__all__ = ["raise_limit"]

#: OPEN_MAX: what macOS grants at most, even where the hard limit is reported as higher.
_MACOS_MAX_OPEN_FILES = 10240


def raise_limit() -> int | None:
    """Raise the soft limit of open files: each row has a connection, and the usual 256 (macOS) or 1,024 do not suffice.

    Returns the new limit; None where there is none.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return int(soft)
    for wanted in (hard, _MACOS_MAX_OPEN_FILES):
        if wanted != resource.RLIM_INFINITY and wanted <= soft:
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return int(wanted)
    return int(soft)
