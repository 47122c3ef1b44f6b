"""The limiters of this process: concurrent runs on one endpoint and key share one quota."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

from holynb.scheduler.limiter import Limiter

__all__ = ["shared_limiter"]

_limiters: WeakValueDictionary[Hashable, Limiter] = WeakValueDictionary()


def shared_limiter(key: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """The limiter of this endpoint and key on this loop, for a run that begins; created if there is none."""
    key = (id(asyncio.get_running_loop()), key)
    limiter = _limiters.get(key)
    if limiter is None:
        limiter = _limiters[key] = make()
    limiter.start_run()
    return limiter
