"""What a machine has run out of, as an exception says it: the fact, and what to do. Knows errors' numbers and words only."""

from __future__ import annotations

import errno

__all__ = ["behind", "memory", "out", "words"]

#: What to do where it is not the caller's mistake.
_ADVICE = {
    errno.EMFILE: "Raise this process's limit of open files (ulimit -n), or run fewer things in it.",
    errno.ENFILE: "The whole machine has no open file left: end what holds many.",
    errno.ENOSPC: "Free some space there, or set HOLYNB_HOME to a folder on another disk.",
    errno.EDQUOT: "Your share of that disk is used up: free some, or set HOLYNB_HOME to a folder on another disk.",
    errno.EACCES: "It is closed to you: set HOLYNB_HOME to a folder of your own.",
    errno.EROFS: "Nothing can be written there: set HOLYNB_HOME to a folder on another disk.",
    errno.ENOMEM: "The machine's memory is used up: end what holds much.",
    errno.EAGAIN: "No further process may be started (ulimit -u): end some.",
}

#: A look at a file or a process that fails for one of these says nothing about the file or the process. The last two are a network disk's.
_BLIND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


#: How torch's CPU allocator and the CUDA libraries say that memory ran out, where they have no type for it.
_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def memory(exc: BaseException) -> bool:
    """Whether it says that memory ran out: CUDA's, an allocator's or Python's own."""
    return isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError" or any(w in str(exc) for w in _NO_MEMORY)


def out(exc: OSError) -> bool:
    """Whether it says that something ran out or did not answer, and nothing of what was looked at."""
    return exc.errno in _BLIND


def behind(exc: BaseException | None) -> bool:
    """Whether it, or what it was raised from, says that no further file may be opened."""
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def words(exc: OSError) -> str:
    """One line: what the system says, where, and what to do."""
    where = f" ({exc.filename})" if exc.filename else ""
    advice = _ADVICE.get(exc.errno or 0)
    return f"{exc.strerror or exc}{where}{f'. {advice}' if advice else ''}"
