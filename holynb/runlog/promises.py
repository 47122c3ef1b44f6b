"""Futures of whoever waits for the disk, which the writer's thread resolves. asyncio only; knows no SQL.

Every call into a loop wakes it, which costs more than the row that was written: what a group resolves goes there in one call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Failed", "Promises", "call"]

#: Told on the loop of a failed write.
Failed = Callable[[Exception], None]


def call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call it on the loop, from any thread. Not where the loop is closed: no one waits any more."""
    if not loop.is_closed():
        with suppress(RuntimeError):  # closed in between
            loop.call_soon_threadsafe(function, *args)


class Promises:
    """Futures of one loop, made there and resolved on the writer's thread. `_called`: the loop has been called and has yet to answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._resolved: deque[tuple[asyncio.Future[None], Failed | None, Exception | None]] = deque()
        self._called = False

    def resolve(self, future: asyncio.Future[None], failed: Failed | None, failure: Exception | None) -> None:
        """Resolve a future of this loop soon. Where there is a failure, `failed` is told it there; without `failed` the future fails."""
        self._resolved.append((future, failed, failure))  # first, so that a call which begins now takes it along
        if not self._called:
            self._called = True
            call(self.loop, self._settle)

    def _settle(self) -> None:
        self._called = False
        while self._resolved:
            future, failed, failure = self._resolved.popleft()
            if failure is not None and failed is not None:
                failed(failure)
            if future.done():
                continue
            if failure is None or failed is not None:
                future.set_result(None)
            else:
                future.set_exception(failure)
