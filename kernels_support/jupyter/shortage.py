"""What a machine has run out of, as an OSError says it: the fact, and what to do. Knows numbers of errors only."""

from __future__ import annotations

import errno

__all__ = ["out", "words"]

#: What to do where it is not the caller's mistake.
_ADVICE = {
    errno.EMFILE: "Raise this process's limit of open files (ulimit -n), or run fewer things in it.",
    errno.ENFILE: "The whole machine has no open file left: end what holds many.",
    errno.ENOSPC: "Free some space there, or set HOLYNB_HOME to a folder on another disk.",
    errno.EDQUOT: "Your share of that disk is used up: free some, or set HOLYNB_HOME to a folder on another disk.",
    errno.ENOMEM: "The machine's memory is used up: end what holds much.",
    errno.EAGAIN: "No further process may be started (ulimit -u): end some.",
}

#: A look at a file or a process that fails for one of these says nothing about the file or the process.
_BLIND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


def out(exc: OSError) -> bool:
    """Whether it says that something ran out, and nothing of what was looked at."""
    return exc.errno in _BLIND


def words(exc: OSError) -> str:
    """One line: what the system says, where, and what to do."""
    where = f" ({exc.filename})" if exc.filename else ""
    advice = _ADVICE.get(exc.errno or 0)
    return f"{exc.strerror or exc}{where}{f'. {advice}' if advice else ''}"
