"""Rows in windows, each of so many that reading one is quick and holding one is cheap. Knows no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["WINDOW", "WINDOW_SIZE", "Window", "cut"]

T = TypeVar("T")

#: The most rows of a window, and the size, such as characters, from which on it takes no more.
WINDOW, WINDOW_SIZE = 2_048, 1 << 22


@dataclass(frozen=True, slots=True)
class Window:
    """`n` rows, as columns by name."""

    n: int
    columns: Mapping[str, list[Any]]


def cut(rows: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The rows in lists, none of them empty. `size`: how large one is."""
    window: list[T] = []
    total = 0
    for row in rows:
        window.append(row)
        total += size(row)
        if len(window) >= WINDOW or total >= WINDOW_SIZE:
            yield window
            window, total = [], 0
    if window:
        yield window
