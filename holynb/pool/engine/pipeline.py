"""A pipeline stage's part of a step: hidden states in before the model, out after it, tokens back to every stage. Knows no transport.

`SingleStage` is a whole model: nothing comes in, nothing goes out. With several stages as many steps are in flight as the mesh has
lanes, of different sequences, so that every stage has work while the others do theirs (micro-batches, as in GPipe, Huang et al., 2019).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from holynb.pool.engine.group import Group

__all__ = ["PipelineStage", "SingleStage"]


class SingleStage:
    """A model without pipeline parallelism. `lookahead`: steps that are launched before the oldest is read back."""

    first = last = True
    lookahead = 0

    def receive_hidden(self, tokens: int, into: Tensor | None = None) -> Tensor | None:  # noqa: ARG002 - a stage that is not first needs it
        """Hidden states (tokens, hidden) of the previous stage, in `into` if given; None on the first stage."""
        return None

    def send_hidden(self, hidden: Tensor) -> None:
        """Send the model's output to the next stage, if there is one."""

    def broadcast_tokens(self, tokens: Tensor) -> None:
        """Copy a step's tokens from the last stage into every other stage's `tokens`, device to device."""

    def timed(self) -> AbstractContextManager[None]:
        """Context around this stage's own computation, which counts as busy."""
        return nullcontext()

    def pause_clock(self) -> None:
        """The replica is idle: until the next step, time is neither busy nor waiting."""

    @property
    def busy(self) -> float | None:
        """Share of the time with steps in flight in which this stage computes; None without other stages, or before the first step."""
        return None


class PipelineStage(SingleStage):
    """One of several stages. Its computation is timed (on a GPU by events), so that the pipeline bubble can be measured."""

    #: Once this much time has been counted, all of it is weighted by half.
    DECAY_S = 20.0

    def __init__(self, group: Group, hidden: int, like: Tensor) -> None:
        mesh = group.mesh
        self.group, self._hidden, self._like = group, hidden, like
        self.first, self.last = mesh.stage == 0, mesh.stage == mesh.pipe - 1
        self.lookahead = mesh.lanes - 1
        self._cuda = like.is_cuda
        self._events: deque[tuple[Any, Any]] = deque()
        self._busy_s = self._active_s = 0.0
        self._active_since: float | None = None

    def receive_hidden(self, tokens: int, into: Tensor | None = None) -> Tensor | None:
        if self.first:
            return None
        if into is None:
            into = torch.empty(tokens, self._hidden, dtype=self._like.dtype, device=self._like.device)
        return self.group.receive_hidden(into)

    def send_hidden(self, hidden: Tensor) -> None:
        if not self.last:
            self.group.send_hidden(hidden.contiguous())

    def broadcast_tokens(self, tokens: Tensor) -> None:
        if self.last:
            self.group.send_tokens(tokens.clone())
        else:
            self.group.receive_tokens(tokens)

    @contextmanager
    def timed(self) -> Iterator[None]:
        now = time.monotonic()
        if self._active_since is None:
            self._active_since = now
        if self._cuda:
            # Launching returns at once; the device's time is known when it is done.
            event: Any = torch.cuda.Event
            begin, end = event(enable_timing=True), event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
            self._collect_events()
        else:
            yield
            self._busy_s += time.monotonic() - now

    def pause_clock(self) -> None:
        self._tick()
        self._active_since = None

    @property
    def busy(self) -> float | None:
        self._tick()
        return min(1.0, self._busy_s / self._active_s) if self._active_s else None

    def _collect_events(self) -> None:
        """Count the computations that the device has finished."""
        while self._events and self._events[0][1].query():
            begin, end = self._events.popleft()
            self._busy_s += begin.elapsed_time(end) / 1000

    def _tick(self) -> None:
        self._collect_events()
        if self._active_since is not None:
            now = time.monotonic()
            self._active_s, self._active_since = self._active_s + now - self._active_since, now
        if self._active_s > self.DECAY_S:
            self._active_s, self._busy_s = self._active_s / 2, self._busy_s / 2
