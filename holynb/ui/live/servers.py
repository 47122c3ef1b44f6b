"""Load of the user's own servers during a run: their metrics page, as events of its journal. Polls; holds nothing up.

Only the user's own servers are polled (`engines.servers.is_self_hosted`): no hosted provider has such a page. A server without it is polled
once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from holynb import loop
from holynb.engines import servers
from holynb.errors import Fault
from holynb.events import Gauge, Load

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.types import Endpoint

__all__ = ["events", "watch"]

PAUSE_S = 1.0
#: Of one poll; and polls in a row that may fail before a server is left alone.
TIMEOUT_S, MAX_FAILURES = 3.0, 3


def watch(run: Run, pause: float = PAUSE_S) -> list[Future[None]]:
    """Append the load of the run's own servers to its journal until it is done. Cancel the futures to end it sooner."""
    endpoints = {e.base_url: e for e in run.plan.targets.endpoints if servers.is_self_hosted(e)}
    return [loop.submit(_follow(run, endpoint, pause)) for endpoint in endpoints.values()]


async def _follow(run: Run, endpoint: Endpoint, pause: float) -> None:
    failures = 0
    await asyncio.sleep(pause / 2)  # a run that is over by then has no use for a chart
    while not run.done and failures < MAX_FAILURES:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                metrics = await servers.load(endpoint, run.plan.targets.secrets.get(endpoint.route))
        except (Fault, TimeoutError):
            failures += 1
        else:
            if metrics is None:
                return
            failures = 0
            for event in events(endpoint, metrics, time.time()):
                run.journal.append(event)
        await asyncio.sleep(pause)


def events(endpoint: Endpoint, metrics: servers.ServerLoad, at: float) -> Iterator[Load | Gauge]:
    """A metrics page as events."""
    if (metrics.running, metrics.waiting, metrics.kv) != (None, None, None):
        yield Load(str(endpoint.route), at, metrics.running, metrics.waiting, metrics.kv)
    if metrics.memory is not None:
        yield Gauge(f"{endpoint.route.provider} server", metrics.memory, 0, at)
