"""How busy one's own servers are while a run goes on: their page of metrics, as events of its journal. Asks; holds nothing up.

Only servers that somebody here runs are asked (`engines.servers.is_self_hosted`): no hosted provider has such a page. One without it is asked once.
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
from holynb.types import Gauge, Load

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.types import Endpoint

__all__ = ["events", "watch"]

PAUSE = 1.0
#: Seconds that one look may take, and looks in a row that may fail before a server is left alone.
LOOK_S, PATIENCE = 3.0, 3


def watch(run: Run, pause: float = PAUSE) -> list[Future[None]]:
    """Append what the run's own servers say to its journal until it is done. Cancelling the futures ends it sooner."""
    asked = {e.base_url: e for e in run.plan.targets.endpoints if servers.is_self_hosted(e)}
    return [loop.submit(_follow(run, endpoint, pause)) for endpoint in asked.values()]


async def _follow(run: Run, endpoint: Endpoint, pause: float) -> None:
    missed = 0
    await asyncio.sleep(pause / 2)  # a run that is over by then has no use for a chart
    while not run.done and missed < PATIENCE:
        try:
            async with asyncio.timeout(LOOK_S):
                found = await servers.load(endpoint, run.plan.targets.secrets.get(endpoint.route))
        except (Fault, TimeoutError):
            missed += 1
        else:
            if found is None:
                return
            missed = 0
            for event in events(endpoint, found, time.time()):
                run.journal.append(event)
        await asyncio.sleep(pause)


def events(endpoint: Endpoint, found: servers.ServerLoad, at: float) -> Iterator[Load | Gauge]:
    """What a page said, as events."""
    if (found.running, found.waiting, found.kv) != (None, None, None):
        yield Load(str(endpoint.route), at, found.running, found.waiting, found.kv)
    if found.memory is not None:
        yield Gauge(f"{endpoint.route.provider} server", found.memory, 0, at)
