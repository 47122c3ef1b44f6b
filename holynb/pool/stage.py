"""A pipeline stage's place in a step: hidden states in before the model, out after it, tokens back to every stage. Knows no transport.

`Alone` is the stage of a whole model: nothing comes in, nothing goes out. With several stages as many steps are under way as
the mesh has flights, of different sequences, so that every stage has work while the others do theirs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from holynb.pool.shard import Group

__all__ = ["Alone", "Stage"]


class Alone:
    """One process from ids to tokens."""

    first = last = True
    ahead = 0

    def before(self, tokens: int) -> Tensor | None:  # noqa: ARG002 - a stage that is not first needs it
        """Hidden states for so many tokens; the first stage has none."""
        return None

    def after(self, hidden: Tensor) -> None:
        """Hand on what the model made; the last stage keeps it."""

    def tokens(self, found: list[int] | None, count: int) -> list[int]:  # noqa: ARG002 - a stage that is not last needs it
        """The step's tokens, whoever sampled them."""
        return found or []

    @property
    def busy(self) -> float:
        """Share of the time since the start in which this stage did not wait for another."""
        return 1.0


class Stage(Alone):
    """One of several. Waits are counted, so that the bubble can be seen."""

    def __init__(self, group: Group, hidden: int, like: Tensor) -> None:
        mesh = group.mesh
        self.group, self._hidden, self._like = group, hidden, like
        self.first, self.last = mesh.stage == 0, mesh.stage == mesh.pipe - 1
        self.ahead = mesh.flights - 1
        self._waited, self._since = 0.0, time.monotonic()

    def before(self, tokens: int) -> Tensor | None:
        if self.first:
            return None
        begin = time.monotonic()
        hidden = self.group.take_over(torch.empty(tokens, self._hidden, dtype=self._like.dtype, device=self._like.device))
        self._waited += time.monotonic() - begin
        return hidden

    def after(self, hidden: Tensor) -> None:
        if not self.last:
            self.group.pass_on(hidden.contiguous())

    def tokens(self, found: list[int] | None, count: int) -> list[int]:
        if self.last:
            self.group.spread(found or [])
            return found or []
        begin = time.monotonic()
        said = self.group.gather(count)
        self._waited += time.monotonic() - begin
        return said

    @property
    def busy(self) -> float:
        return 1.0 - self._waited / max(1e-9, time.monotonic() - self._since)
