"""A run's batches, for whoever has the run: how they stand, one look at them, their end, and to be let go without a stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holynb import loop

if TYPE_CHECKING:
    from holynb.run.batch.lifecycle import Batched

__all__ = ["BatchHandle"]


class BatchHandle:
    """Of one run, which `begin` starts and `cancel` cuts off. A run without --batch has one too, of no batches.

    once: it looks once, and ends. leaves: it ends here, and goes on at its provider. ends: it asks for the end there.
    """

    def __init__(self, begin: Callable[[], None], cancel: Callable[[bool], None]) -> None:
        self._begin, self._cancel = begin, cancel
        self._batched: Batched | None = None
        self.once = self.leaves = self.ends = False

    def look_once(self) -> None:
        """Look at the batches that are submitted, read what is there, and end; the session does not list it. Returns at once."""
        self.once = True
        self._begin()

    def end_there(self) -> None:
        """Ask the provider for the end of what an earlier kernel submitted, read what is there, and end. Returns at once."""
        self.ends = True
        self.look_once()

    def release(self) -> None:
        """Let go without a stop: what is in a batch goes on there, and any later kernel collects it."""
        self.leaves = True
        loop.call(self._cancel, True)

    @property
    def accepted(self) -> bool:
        """Whether every row is in a batch that its provider has accepted, or waits for one."""
        return self._batched is not None and self._batched.accepted

    def lines(self) -> list[str]:
        """A line for each batch that is not done."""
        return self._batched.lines() if self._batched is not None else []

    def look_now(self) -> None:
        """Ask now how the batches stand."""
        if self._batched is not None:
            loop.call(self._batched.look_now)

    # -- on the io loop --------------------------------------------------------------------------------------------
    def hold(self, batched: Batched, *, stopped: bool) -> None:
        """These are the run's batches. `stopped`: the run is stopped already."""
        self._batched = batched
        if stopped or self.ends:
            batched.stop()

    def stop(self) -> bool:
        """Stop them; returns False where there are none yet."""
        if self._batched is not None:
            self._batched.stop()
        return self._batched is not None
