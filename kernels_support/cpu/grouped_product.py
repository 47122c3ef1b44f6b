"""Functions of x · Wᵀ, made when they are first asked for, and how they are called by one thread or several."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from kernels_support.cpu.grouped_code import FIELDS, Layout, Writer
from kernels_support.cpu.grouped_integers import IntegerWriter
from kernels_support.cpu.machine_code import Function, MachineCode, lanes, openmp

__all__ = ["Product", "max_rows", "product"]


@dataclass(frozen=True, slots=True)
class Product:
    """A function for so many rows of x. `run`: on this thread, with its fields but the scratch. `parallel`: where it begins for OpenMP,
    each of whose threads takes fields of its own, in order. `scratch`: bytes of its room, a multiple of eight. `code`: what keeps both.
    """

    run: Function
    parallel: int
    scratch: int
    code: MachineCode

    def run_parallel(self, fields: Sequence[tuple[int, ...]]) -> None:
        """One call on several threads, each with its fields."""
        library, threads = openmp(), len(fields)
        if library is None:
            raise RuntimeError("several threads without OpenMP")
        room = (ctypes.c_int64 * (threads * (FIELDS + self.scratch // 8)))()
        start = ctypes.addressof(room)
        for i, own in enumerate(fields):
            room[FIELDS * i : FIELDS * i + FIELDS - 1] = [*own, start + 8 * FIELDS * threads + i * self.scratch]
        library.parallel(self.parallel, start, threads, 0)


@cache
def max_rows() -> int:
    """Rows of x at most that meet each number of W that is read once: as many as there are registers for."""
    return 8 if lanes() == 16 else 4


@cache
def product(layout: Layout, columns: int, rows: int) -> Product:
    """The function for W of so many columns, and this many rows of x."""
    width = lanes()
    writer = (IntegerWriter if IntegerWriter.takes(layout, width) else Writer)(layout, columns, rows, width)
    code, start = writer.written()
    return Product(Function(code, start, FIELDS - 2, writer.scratch), code.address, writer.scratch, code)
