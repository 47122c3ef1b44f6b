"""CUDA graphs: work on a GPU is captured once and replayed, without the host's launch costs. Knows streams and graphs; no models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Capture"]


class Capture:
    """Captures work that reads and writes memory which never moves, as CUDA graphs require.

    `blank`: input buffers, and the value each is filled with during capture, so that the work has no rows to process.
    """

    def __init__(self, blank: dict[Tensor, int]) -> None:
        self._buffers = blank
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run once to compile and allocate, then once to capture, both on blank inputs. Returns the graph's replay."""
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
        """Blank the input buffers; restore them afterwards."""
        saved = [buffer.clone() for buffer in self._buffers]
        for buffer, value in self._buffers.items():
            buffer.fill_(value)
        try:
            yield
        finally:
            for buffer, content in zip(self._buffers, saved, strict=True):
                buffer.copy_(content)
