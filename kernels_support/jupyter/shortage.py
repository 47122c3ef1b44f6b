"""Which resource ran out, told from an exception's errno or message, and what to do about it."""

from __future__ import annotations

import errno

__all__ = ["describe", "is_inconclusive", "is_out_of_files", "is_out_of_memory"]

#: errno → advice, where the cause is the system and not the caller.
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

#: Reading a file or a process that fails with one of these tells nothing about it. The last two come from network disks.
_INCONCLUSIVE_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)

#: Messages of torch's CPU allocator and the CUDA libraries, which raise no exception type of their own.
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether memory ran out: on a CUDA device, in an allocator or in Python."""
    known_type = isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError"
    return known_type or any(m in str(exc) for m in _OUT_OF_MEMORY_MESSAGES)


def is_inconclusive(exc: OSError) -> bool:
    """Whether a resource ran out or did not respond, so that the error tells nothing about the file or process itself."""
    return exc.errno in _INCONCLUSIVE_ERRNOS


def is_out_of_files(exc: BaseException | None) -> bool:
    """Whether it, or one of the exceptions it was raised from, is the limit of open files."""
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def describe(exc: OSError) -> str:
    """One line: the system's message, the file, and what to do."""
    where = f" ({exc.filename})" if exc.filename else ""
    advice = _ADVICE.get(exc.errno or 0)
    return f"{exc.strerror or exc}{where}{f'. {advice}' if advice else ''}"
