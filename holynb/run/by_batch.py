"""What a run by batch can be asked beside what every run can: how its batches stand, and to be let go without a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from holynb import loop
from holynb.run import session

if TYPE_CHECKING:
    from holynb.config import Options
    from holynb.run.batched import Batched

__all__ = ["ByBatch"]


class ByBatch(session.InProcess):
    """Of a run's batches. `_leaves`: it ends here, and goes on at its provider; `_once`: it looks once, and ends."""

    _batched: Batched | None = None
    _once = _leaves = stopped = False

    if TYPE_CHECKING:

        @property
        def options(self) -> Options: ...
        def cancel(self) -> None: ...
        def _cancel(self, hard: bool) -> None: ...
        async def _main(self) -> None: ...

    def look_once(self) -> Self:
        """Look at the batches that are submitted, read what is there, and end; the session does not list it. Returns at once."""
        self._once = True
        self._future = loop.submit(self._main())
        return self

    def end_there(self) -> Self:
        """Ask the provider for the end of what an earlier kernel submitted, read what is there, and end. Returns at once."""
        self.stopped = True
        return self.look_once()

    def release(self) -> None:
        """Let go without a stop: what is in a batch goes on there, and any later kernel collects it. A run without --batch is stopped."""
        if not self.options.batch:
            self.cancel()
            return
        self._leaves = True
        loop.call(self._cancel, True)

    @property
    def accepted(self) -> bool:
        """Whether every row is in a batch that its provider has accepted, or waits for one."""
        return self._batched is not None and self._batched.accepted

    def batches(self) -> list[str]:
        """A line for each batch that is not done."""
        return self._batched.lines() if self._batched is not None else []

    def look_now(self) -> None:
        """Ask now how the batches stand."""
        if self._batched is not None:
            loop.call(self._batched.look_now)
