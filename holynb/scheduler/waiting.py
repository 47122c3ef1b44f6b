"""Waiting no longer than so many seconds. asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

__all__ = ["within"]


async def within(awaitable: Awaitable[object], seconds: float | None) -> bool:
    """Await for at most `seconds` (None: for ever), and return whether it came.

    `asyncio.wait_for` swallows a cancellation in Python 3.11 when both come in one tick.
    """
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return False
    return True
