"""A model's files to nodes that lack them, in pieces through Ray's object store: once a node, a few pieces at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

__all__ = ["read_here", "send"]

#: Pieces under way: one is written while the next ones come.
_WINDOW = 3

Piece = tuple[str, int, int]


def send(pieces: Sequence[Piece], read: Callable[[Piece], Any], seats: Sequence[Any], key: str, progress: Callable[[float], None]) -> float:
    """Send every piece to each of these seats, one a node. `read` gives a piece's reference in the object store. Returns seconds.

    Raises RayError where a node goes away meanwhile.
    """
    began, under_way = time.monotonic(), deque[list[Any]]()
    for number, piece in enumerate(pieces):
        reference = read(piece)
        under_way.append([seat.receive.remote(key, piece[0], piece[1], reference) for seat in seats])
        del reference  # the store frees a piece once every node has written it
        if len(under_way) >= _WINDOW:
            ray.get(under_way.popleft())
        progress(number / len(pieces))
    while under_way:
        ray.get(under_way.popleft())
    ray.get([seat.receive_done.remote(key) for seat in seats])
    return time.monotonic() - began


def read_here(folder: Path) -> Callable[[Piece], Any]:
    """Pieces of a folder of this machine."""

    def read(piece: Piece) -> Any:
        name, offset, size = piece
        with (folder / name).open("rb") as file:
            file.seek(offset)
            return ray.put(file.read(size))

    return read
