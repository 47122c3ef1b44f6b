"""Machine code made in memory and called: where a processor has more than torch's products use, and no compiler may be looked for.

oneDNN, inside torch, does the same. Knows pages and processors; knows no tensors.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Function", "MachineCode", "OpenMp", "lanes", "openmp"]


@cache
def lanes() -> int:
    """Numbers of float32 in a register that our code may use here: 16 (AVX-512), 8 (AVX2), or 0 where it may not run at all: another
    processor or system, or one that runs no code made in memory.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return 0
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except (OSError, ValueError):
        return 0
    flags = next((set(line.split()) for line in info.splitlines() if line.startswith("flags")), set())
    if not {"avx2", "fma", "f16c"} <= flags:
        return 0
    return 16 if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags else 8


@dataclass(frozen=True, slots=True)
class OpenMp:
    """`parallel` of a function's address, of what it is given, of a number of threads and of flags; where `thread_number` begins."""

    parallel: Callable[[int, int, int, int], None]
    thread_number: int


@cache
def openmp() -> OpenMp | None:
    """The library that torch has loaded for all to see, whose threads are torch's; None where it has none such."""
    own = ctypes.CDLL(None)
    try:
        parallel, number = own.GOMP_parallel, own.omp_get_thread_num
    except AttributeError:
        return None
    parallel.argtypes, parallel.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return OpenMp(parallel, ctypes.cast(number, ctypes.c_void_p).value or 0)


class MachineCode:
    """Functions of one pointer, `void f(void *)`, in pages of their own. `kept`: what they point at."""

    def __init__(self, code: bytes, kept: Any = None) -> None:
        self._pages = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._pages.write(code)
        self._kept = kept
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))

    def function(self, start: int) -> Callable[[int], None]:
        """What begins there. While it runs, other threads do."""
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address + start)


class Function:
    """A function of machine code that is given numbers of eight bytes each, at last the address of a room of its own (`scratch` bytes)."""

    __slots__ = ("_call", "_code", "_fields", "_put", "_rooms", "_size")

    def __init__(self, code: MachineCode, start: int, fields: int, scratch: int = 0) -> None:
        self._code, self._call = code, code.function(start)
        self._fields, self._size = 8 * (fields + 1), fields + 1 + -(-scratch // 8)
        self._put = struct.Struct(f"{fields + 1}q").pack_into
        # Whoever calls takes one out, so that several threads may.
        self._rooms: list[Any] = []

    def __call__(self, *numbers: int) -> None:
        room = self._rooms.pop() if self._rooms else (ctypes.c_int64 * self._size)()
        start = ctypes.addressof(room)
        self._put(room, 0, *numbers, start + self._fields)
        self._call(start)
        self._rooms.append(room)
