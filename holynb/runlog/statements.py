"""What the writer is given: SQL statements with their rows, and whoever waits for them. Pure; knows no connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Statement"]

#: Bytes of a row that shares its text with the run it belongs to.
SHARED_ROW_BYTES = 300


@dataclass(slots=True, eq=False)
class Statement:
    """A statement for every row of `rows`, which can be read more than once.

    run:     whose it is: written again where the file is replaced while that run goes on. None: of no run.
    on_done: called on the writer's thread, once: with None when it is on disk, or kept in memory while the log cannot be written; else
             with what failed.
    durable: `on_done` waits for the disk, and for a locked log until `deadline` (of the monotonic clock).
    eager:   a run begins with it: tried at once, and a trouble that goes on is told again.
    last:    the run has ended with it.
    replay:  it is not written now, only where the file is replaced, after all else of its run.
    counts:  its rows are answers, and each is a row of the table of answers.
    """

    sql: str
    rows: Collection[Sequence[Any]]
    on_done: Callable[[Exception | None], None] | None = None
    run: str | None = None
    durable: bool = False
    deadline: float = 0.0
    eager: bool = False
    last: bool = False
    replay: bool = False
    counts: bool = False
    _done: bool = field(default=False, init=False)

    def done(self, failure: Exception | None) -> None:
        """Tell whoever waits. Idempotent."""
        if not self._done:
            self._done = True
            if self.on_done is not None:
                self.on_done(failure)

    @property
    def size(self) -> int:
        """About how many bytes of memory it holds."""
        if not isinstance(self.rows, list):
            return SHARED_ROW_BYTES * len(self.rows)
        return sum(len(value) if isinstance(value, str) else 16 for row in self.rows for value in row)
