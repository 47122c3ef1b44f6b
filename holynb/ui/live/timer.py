"""Repeated work on the kernel's own loop, after its cell has ended. Knows no run and no widget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["repeat", "start", "stop"]

_tasks: set[asyncio.Task[None]] = set()
"""A loop keeps no task alive by itself."""


def repeat(pause_s: float, call: Callable[[], bool]) -> asyncio.Task[None]:
    """Call every `pause_s` seconds until it returns False. Needs a running loop, as a kernel's main thread has."""
    return start(_repeat(pause_s, call))


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run `work` as a task of the running loop, until it ends or `stop` cancels it."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


def stop() -> None:
    """Cancel all tasks."""
    for task in list(_tasks):
        task.cancel()


async def _repeat(pause_s: float, call: Callable[[], bool]) -> None:
    while call():  # noqa: ASYNC110 - there is nothing to wait for but the next look
        await asyncio.sleep(pause_s)
