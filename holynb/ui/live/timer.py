"""Something done again and again on the kernel's own loop, after its cell has ended. Knows no run and no widget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["beat", "start", "stop"]

_beating: set[asyncio.Task[None]] = set()
"""Tasks are held here: a loop keeps no task alive by itself."""


def beat(pause: float, call: Callable[[], bool]) -> asyncio.Task[None]:
    """Call every `pause` seconds until it says False. Needs a running loop, as a kernel's main thread has."""
    return start(_beat(pause, call))


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Let `work` go on by itself on the running loop."""
    task = asyncio.get_running_loop().create_task(work)
    _beating.add(task)
    task.add_done_callback(_beating.discard)
    return task


def stop() -> None:
    """End all of them."""
    for task in list(_beating):
        task.cancel()


async def _beat(pause: float, call: Callable[[], bool]) -> None:
    while call():  # noqa: ASYNC110 - there is nothing to wait for but the next look
        await asyncio.sleep(pause)
