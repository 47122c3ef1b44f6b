"""A pipeline stage's place in a step: hidden states in before the model, out after it, tokens back to every stage. Knows no transport.

`Alone` is the stage of a whole model: nothing comes in, nothing goes out. With several stages as many steps are under way as
the mesh has flights, of different sequences, so that every stage has work while the others do theirs.
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

__all__ = ["Alone", "Stage"]


class Alone:
    """One process from ids to tokens."""

    first = last = True
    ahead = 0

    def before(self, tokens: int, into: Tensor | None = None) -> Tensor | None:  # noqa: ARG002 - a stage that is not first needs it
        """Hidden states for so many tokens, put `into` memory that is there; the first stage has none."""
        return None

    def after(self, hidden: Tensor) -> None:
        """Hand on what the model made; the last stage keeps it."""

    def ids(self, tokens: Tensor) -> None:
        """A step's tokens, from the last stage's `tokens` to every other's, device to device. Where there is one stage, nothing is to be done."""

    def working(self) -> AbstractContextManager[None]:
        """Around this stage's own work on a step."""
        return nullcontext()

    def rest(self) -> None:
        """There is nothing to do until more is said: time that counts for nobody."""

    @property
    def busy(self) -> float | None:
        """Share of the time with work under way in which this stage computes; None where there are no other stages, or was no work yet."""
        return None


class Stage(Alone):
    """One of several. Its work is timed (on a GPU by the GPU), so that the bubble can be seen."""

    #: Seconds of work under way after which what was before counts half.
    RECENT = 20.0

    def __init__(self, group: Group, hidden: int, like: Tensor) -> None:
        mesh = group.mesh
        self.group, self._hidden, self._like = group, hidden, like
        self.first, self.last = mesh.stage == 0, mesh.stage == mesh.pipe - 1
        self.ahead = mesh.flights - 1
        self._cuda = like.is_cuda
        self._marks: deque[tuple[Any, Any]] = deque()
        self._worked = self._open = 0.0
        self._since: float | None = None

    def before(self, tokens: int, into: Tensor | None = None) -> Tensor | None:
        if self.first:
            return None
        if into is None:
            into = torch.empty(tokens, self._hidden, dtype=self._like.dtype, device=self._like.device)
        return self.group.take_over(into)

    def after(self, hidden: Tensor) -> None:
        if not self.last:
            self.group.pass_on(hidden.contiguous())

    def ids(self, tokens: Tensor) -> None:
        if self.last:
            self.group.send_home(tokens.clone())
        else:
            self.group.come_home(tokens)

    @contextmanager
    def working(self) -> Iterator[None]:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if self._cuda:
            # Launching returns at once; what the device does in between is known when it has done it.
            event: Any = torch.cuda.Event
            begin, end = event(enable_timing=True), event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._marks.append((begin, end))
            self._gather()
        else:
            yield
            self._worked += time.monotonic() - now

    def rest(self) -> None:
        self._tick()
        self._since = None

    @property
    def busy(self) -> float | None:
        self._tick()
        return min(1.0, self._worked / self._open) if self._open else None

    def _gather(self) -> None:
        """What the device has finished."""
        while self._marks and self._marks[0][1].query():
            begin, end = self._marks.popleft()
            self._worked += begin.elapsed_time(end) / 1000

    def _tick(self) -> None:
        self._gather()
        if self._since is not None:
            now = time.monotonic()
            self._open, self._since = self._open + now - self._since, now
        if self._open > self.RECENT:
            self._open, self._worked = self._open / 2, self._worked / 2
