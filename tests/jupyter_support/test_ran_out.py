"""What has run out is told from what is broken, and said with what to do."""

from __future__ import annotations

import errno
import os

import pytest

from kernels_support.jupyter import shortage


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOSPC, "Free some space there, or set HOLYNB_HOME"),
        (errno.EACCES, "HOLYNB_HOME to a folder of your own"),
        (errno.EROFS, "on another disk"),
        (errno.EAGAIN, "ulimit -u"),
    ],
)
def test_one_line_with_the_place_and_what_to_do(number: int, advice: str) -> None:
    words = shortage.describe(OSError(number, os.strerror(number), "/home/me/run"))
    assert words.startswith(f"{os.strerror(number)} (/home/me/run). ")
    assert advice in words
    assert "\n" not in words


def test_what_nobody_knows_a_cure_for_is_said_as_it_is() -> None:
    assert shortage.describe(OSError(errno.EEXIST, "File exists")) == "File exists"
    assert shortage.describe(OSError("just words")) == "just words"


def test_files_that_ran_out_are_found_behind_what_was_raised_for_them() -> None:
    outer: BaseException | None = None
    try:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as exc:
            raise ValueError("a row failed") from exc
    except ValueError as exc:
        outer = exc
    assert shortage.is_out_of_files(outer)
    assert not shortage.is_out_of_files(ValueError("a row failed"))
    assert not shortage.is_out_of_files(OSError(errno.ENOENT, "No such file"))
    assert not shortage.is_out_of_files(None)


@pytest.mark.parametrize(
    ("exc", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried"), True),
        (RuntimeError("[enforce fail] can't allocate memory: you"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_memory_is_told_from_other_faults(exc: BaseException, is_memory: bool) -> None:
    assert shortage.is_out_of_memory(exc) is is_memory
