"""The io loop: one asyncio loop in a thread of its own, on which all requests run. Knows no prompts and no engines.

ipykernel's loop stalls background tasks once a cell ends, and a busy notebook would slow requests; this loop does neither.
The thread starts at the first `submit` and ends at `close`; it never prints and never touches a widget. A forked process begins its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["call", "close", "running", "submit"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
#: Loops of the processes that this one was forked from.
_left: list[asyncio.AbstractEventLoop] = []


def submit(coro: Coroutine[Any, Any, T]) -> Future[T]:
    """Run `coro` on the io loop. The future is thread-safe; cancelling it cancels the coroutine."""
    return asyncio.run_coroutine_threadsafe(coro, _running_loop())


def call(function: Callable[..., Any], *args: Any) -> None:
    """Schedule `function` on the io loop, from any thread. Does nothing where the loop is not running."""
    with _lock:
        if _loop is not None and not _loop.is_closed():
            _loop.call_soon_threadsafe(function, *args)


def running() -> bool:
    """Whether the io thread is alive."""
    return _thread is not None and _thread.is_alive()


def close(timeout: float = 10.0) -> None:
    """Cancel the tasks that are left and end the thread. Idempotent; the next `submit` starts a new one."""
    global _loop, _thread
    with _lock:
        loop, thread, _loop, _thread = _loop, _thread, None, None
    if loop is None or thread is None:
        return
    asyncio.run_coroutine_threadsafe(_drain(), loop).result(timeout)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout)


def _forget() -> None:
    """In a process that was forked: the thread is not there, and its lock may be held for ever.

    The loop is left as it is: closing it would take the parent's sockets out of the selector that both share.
    """
    global _lock, _loop, _thread
    if _loop is not None:
        _left.append(_loop)
    _lock, _loop, _thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


async def _drain() -> None:
    current = asyncio.current_task()
    tasks = [t for t in asyncio.all_tasks() if t is not current]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread  # noqa: PLW0603 - as above
    with _lock:
        if _loop is None or _thread is None or not _thread.is_alive():
            _loop = _new_loop()
            _thread = threading.Thread(target=_serve, args=(_loop,), name="holynb-io", daemon=True)
            _thread.start()
        return _loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """Of asyncio itself, whatever policy a program or Ray's workers set: uvloop's connections do not take all that ours are asked for."""
    loop_type: type[asyncio.AbstractEventLoop] = getattr(
        asyncio, "ProactorEventLoop", asyncio.SelectorEventLoop
    )  # the first on Windows alone
    return loop_type()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
