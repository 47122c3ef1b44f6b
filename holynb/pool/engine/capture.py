"""Work on a GPU as captured graphs, each captured when it is first wanted. Knows streams and graphs; knows nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Capture"]


class Capture:
    """Captures work that reads and writes memory which never moves.

    `blank`: buffers, and the number each is filled with while work is captured, so that it finds nothing to do.
    """

    def __init__(self, blank: dict[Tensor, int]) -> None:
        self._buffers = blank
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run once so that everything is compiled and allocated, then once into a graph. Neither run does anything. Returns the graph's replay."""
        with self._blank(), torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                work()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        replay: Callable[[], None] = graph.replay
        return replay

    @contextmanager
    def _blank(self) -> Iterator[None]:
        """While inside, the buffers say that there are no rows; afterwards they are as before."""
        kept = [b.clone() for b in self._buffers]
        for buffer, nothing in self._buffers.items():
            buffer.fill_(nothing)
        try:
            yield
        finally:
            for buffer, was in zip(self._buffers, kept, strict=True):
                buffer.copy_(was)
