"""Files of this user alone, files that will be read, and how many may be open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["private_folder", "raise_limit", "read_ahead"]

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


def private_folder(folder: Path) -> None:
    """Make a folder, with those above it that are missing, for this user alone (0700) whatever the umask says. Raises OSError.

    `Path.mkdir(parents=True)` gives its mode to the last one only.
    """
    if not folder.is_dir():
        if folder.parent != folder:
            private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def read_ahead(paths: Iterable[Path]) -> None:
    """Ask the system to read these files into its cache, without waiting; nothing where it knows no such request."""
    if not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError):  # whoever reads them will say what is wrong
        for path in paths:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)
