"""A pool's lifecycle: a lock, sockets and a record around a backend that is started, watched and stopped. Knows no replicas and no vLLM.

The pool ends on SIGTERM, after an idle time, when its rendezvous file is gone, and when the service fails or ends; its
sockets and files are then removed. The last line of its log is the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from starlette.types import ASGIApp

from holynb.pool.server.clients import Clients
from holynb.pool.server.config import PoolConfig
from holynb.pool.server.service import Service
from holynb.pool.server.sockets import PoolSockets, PortTaken, bind, serving
from kernels_support.jupyter import files, rendezvous, shortage, socketdir
from kernels_support.jupyter.limits import limit_memory
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

__all__ = ["PoolBackend", "StartError", "log", "run", "serve"]

#: What a server may take: it holds no weights.
_SERVER_BYTES = 4 * 10**9

#: Seconds between two checks of the idle clock and of the rendezvous file.
_CHECK_INTERVAL_S = 1.0


class StartError(Exception):
    """The pool cannot start; the message is one line with the reason."""


class PoolBackend(Protocol):
    """What computes in a pool: our own replicas, or a foreign server. `record` goes into the rendezvous file."""

    record: Record

    async def start(self) -> None:
        """Start it; may run for as long as the pool lives. Raises StartError."""

    async def stop(self) -> None:
        """End all of its processes, however far it came. Called once, with `start` done or cancelled."""


def run(config: PoolConfig, service: Service, app: ASGIApp, backend_of: Callable[[Record], PoolBackend]) -> int:
    """Run a pool until it ends. Returns the exit code: 0 where it was told to end or idled, 1 where it failed."""
    files.raise_limit()
    os.umask(0o077)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a prompt is one text: a thread for each core would only take memory
    limit_memory(_SERVER_BYTES)
    try:
        return asyncio.run(serve(config, service, app, backend_of))
    except OSError as exc:
        log(f"error: the pool {config.name} cannot run: {shortage.describe(exc)}")
        return 1


async def serve(config: PoolConfig, service: Service, app: ASGIApp, backend_of: Callable[[Record], PoolBackend]) -> int:
    """Hold a pool's lock, sockets and record while it runs, and remove them afterwards. Returns the exit code of `run`. Raises OSError."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end, f"it was told to end ({number.name})")
    owner = Process.mine()
    lock = rendezvous.lock(config.run, config.name)
    if not lock.take(0):
        log(f"error: a pool named {config.name} is already running or starting; stop it first or use --name.")
        return 1
    folder: Path | None = None
    try:
        socketdir.sweep()
        folder = socketdir.make()
        sockets = bind(folder, config.port)
        service.clients = Clients(config.home)
        async with serving(app, sockets, service.name_of):
            await _run_backend(config, service, backend_of(_record(config, sockets)))
    except PortTaken as exc:
        service.fail(str(exc))
    finally:
        if service.why is not None:  # before the record is removed: a client that finds none looks for this line
            log(f"{'error: ' if service.state == 'failed' else ''}the pool {config.name} ends: {service.why}")
        with contextlib.suppress(OSError):  # a record that cannot be removed now is stale, and the next pool removes it
            rendezvous.remove(config.run, config.name, owner=owner)
        await service.clients.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        lock.free(remove=True)
    return 1 if service.state == "failed" else 0


async def _run_backend(config: PoolConfig, service: Service, backend: PoolBackend) -> None:
    """Start, watch, stop. Errors are recorded before the stop, or the ends of the stopped processes would be taken for the reason."""
    rendezvous.write(config.run, backend.record)
    start, watch, stopped = (asyncio.create_task(c) for c in (backend.start(), _watch(config, service), _wait(service.stopped)))
    try:
        await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
        await stopped
    except StartError as exc:
        service.fail(str(exc))
    except OSError as exc:
        service.fail(f"it cannot run: {shortage.describe(exc)}")
    finally:
        for task in (start, watch, stopped):
            task.cancel()
        await asyncio.gather(start, watch, stopped, return_exceptions=True)
        await backend.stop()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _watch(config: PoolConfig, service: Service) -> None:
    """End the pool when it is idle for too long, or when its rendezvous file is gone: no client could find it any more.

    Two misses in a row: on a network disk a file that exists may be missed once.
    """
    missed = 0
    while True:
        await asyncio.sleep(min(_CHECK_INTERVAL_S, config.idle))
        if service.requests == 0 and service.state == "ready" and time.monotonic() - service.used_at >= config.idle:
            service.end(f"it was idle for {config.idle:g} s")
        with contextlib.suppress(OSError):  # no file can be opened now (many requests): not a sign that it is gone
            missed = missed + 1 if rendezvous.find(config.run, config.name) is None else 0
            if missed > 1:
                service.end("its rendezvous file is gone")


def _record(config: PoolConfig, sockets: PoolSockets) -> Record:
    """The rendezvous record of this pool."""
    facts = {
        "model": config.model,
        "devices": list(config.devices),
        "started": time.time(),
        "dp": config.dp,
        "tp": config.tp,
        "pp": config.pp,
        "dtype": config.dtype,
        "kv": config.kv,
        "max_len": config.max_len,
    }
    return Record(config.name, Process.mine(), str(sockets.path), sockets.port, sockets.token, facts=facts)


def log(line: str) -> None:
    """Write a line to the log. On a full disk the line is lost; the pool goes on."""
    with contextlib.suppress(OSError):
        print(line, flush=True)
