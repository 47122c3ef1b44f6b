"""A pool's life: a lock, sockets and a record around what computes; it is started, watched, and buried. Knows no replicas and no vLLM.

It ends when told (SIGTERM), after an idle time, when its rendezvous file is gone, and when the service says so; then
sockets and files go with it. Its last line in the log says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from starlette.types import ASGIApp

from holynb.pool.server.config import PoolConfig
from holynb.pool.server.service import Service
from holynb.pool.server.sockets import Doors, PortTaken, bind, serving
from kernels_support.jupyter import files, rendezvous, shortage, socketdir
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

__all__ = ["PoolBackend", "StartError", "house", "run", "say"]

#: Seconds between two looks at the idle clock and at the rendezvous file.
_TICK = 1.0


class StartError(Exception):
    """The pool cannot start; one line that says why."""


class PoolBackend(Protocol):
    """What computes in a pool: processes of ours, or a foreign server. `record` is what the pool is found by."""

    record: Record

    async def start(self) -> None:
        """Bring it up; it may go on for as long as the pool lives. Raises StartError."""

    async def bury(self) -> None:
        """End every process of it, however far it came. Called once, with `start` over or cancelled."""


def run(plan: PoolConfig, service: Service, app: ASGIApp, engine: Callable[[Record], PoolBackend]) -> int:
    """A pool from its first moment to its last. The exit code: 0 where it was told to end or idled, 1 where it failed."""
    files.raise_limit()
    try:
        return asyncio.run(house(plan, service, app, engine))
    except OSError as exc:
        say(f"error: the pool {plan.name} cannot run: {shortage.describe(exc)}")
        return 1


async def house(plan: PoolConfig, service: Service, app: ASGIApp, engine: Callable[[Record], PoolBackend]) -> int:
    """Lock, sockets and record of a pool around its life, and none of them afterwards. The exit code, as of `run`. Raises OSError."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end, f"it was told to end ({number.name})")
    me = Process.mine()
    lock = rendezvous.lock(plan.run, plan.name)
    if not lock.take(0):
        say(f"error: a pool named {plan.name} is already running or starting; stop it first or use --name.")
        return 1
    place: Path | None = None
    try:
        socketdir.sweep()
        place = socketdir.make()
        doors = bind(place, plan.port)
        async with serving(app, doors):
            await _live(plan, service, engine(_record(plan, doors)))
    except PortTaken as exc:
        service.fail(str(exc))
    finally:
        if service.why is not None:  # before its record goes: who finds none any more looks for this line
            say(f"{'error: ' if service.state == 'failed' else ''}the pool {plan.name} ends: {service.why}")
        with contextlib.suppress(OSError):  # what cannot be removed now is stale, and the next one cleans it
            rendezvous.remove(plan.run, plan.name, owner=me)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        lock.free(remove=True)
    return 1 if service.state == "failed" else 0


async def _live(plan: PoolConfig, service: Service, engine: PoolBackend) -> None:
    """Start, watch, bury. What goes wrong is said before the burial, or the ends of what is buried would be taken for the reason."""
    rendezvous.write(plan.run, engine.record)
    start, watch, over = (asyncio.create_task(c) for c in (engine.start(), _watch(plan, service), _until(service.over)))
    try:
        await asyncio.wait({start, over}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
        await over
    except StartError as exc:
        service.fail(str(exc))
    except OSError as exc:
        service.fail(f"it cannot run: {shortage.describe(exc)}")
    finally:
        for task in (start, watch, over):
            task.cancel()
        await asyncio.gather(start, watch, over, return_exceptions=True)
        await engine.bury()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _watch(plan: PoolConfig, service: Service) -> None:
    """End the pool when nobody uses it, or when its rendezvous file is gone: nobody could find it any more.

    Two looks in a row: on a network disk a file that is there may be missed once.
    """
    missed = 0
    while True:
        await asyncio.sleep(min(_TICK, plan.idle))
        if service.requests == 0 and service.state == "ready" and time.monotonic() - service.used_at >= plan.idle:
            service.end(f"nobody used it for {plan.idle:g} s")
        with contextlib.suppress(OSError):  # no file can be opened now: many requests, and no sign that it is gone
            missed = missed + 1 if rendezvous.find(plan.run, plan.name) is None else 0
            if missed > 1:
                service.end("its rendezvous file is gone")


def _record(plan: PoolConfig, doors: Doors) -> Record:
    """What others find this pool by."""
    facts = {
        "model": plan.model,
        "devices": list(plan.devices),
        "started": time.time(),
        "dp": plan.dp,
        "tp": plan.tp,
        "pp": plan.pp,
        "dtype": plan.dtype,
        "max_len": plan.max_len,
    }
    return Record(plan.name, Process.mine(), str(doors.path), doors.port, doors.token, facts=facts)


def say(line: str) -> None:
    """Into the log. A disk that is full then takes the line, and not the pool."""
    with contextlib.suppress(OSError):
        print(line, flush=True)
