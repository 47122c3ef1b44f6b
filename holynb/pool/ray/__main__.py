"""Main of the client's end of a pool on Ray: starts the pool or finds it, and serves it on a Unix socket of this machine.

It ends the pool where it is told to end (`pool stop`). Where it is killed the pool lives on, until its lease ends, and whoever asks next
on this machine starts it again: it goes on with the server's address. It can be found before Ray is loaded and connected, which takes
seconds, on a busy cluster minutes. What it cannot do itself it says in its last line, as a pool's server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.pool.ray.bridge import PoolEnd
from holynb.pool.ray.config import ClusterRefusal, RayConfig, parse_args
from holynb.pool.server.lifecycle import log
from kernels_support.jupyter import files, rendezvous, shortage, socketdir
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

if TYPE_CHECKING:
    from holynb.pool.ray.lease import LeaseHolder

__all__ = ["main"]

#: How the reason begins of a pool that is stopped.
TOLD = "it was told to end"
#: How long it may still take to connect, where it is told so meanwhile.
_REACHED_S = 20.0


def _reach(config: RayConfig, devices: str, end: PoolEnd) -> LeaseHolder:
    """As `lease.reach`, and Ray is loaded first."""
    from holynb.pool.ray.lease import reach

    return reach(config, devices, end)


async def serve(config: RayConfig, devices: str) -> int:
    """Serve the pool until it ends. Returns the exit code. Raises OSError."""
    run, end, started = config.home / "run", PoolEnd(), time.time()
    loop = asyncio.get_running_loop()
    holder: LeaseHolder | None = None
    end.bridge.way, end.bridge.stage = config.way, f"connecting to the cluster at {config.address}"
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.end, f"{TOLD} ({number.name})")
    folder = socketdir.make()

    def record() -> None:
        rendezvous.write(run, _record(config if holder is None else holder.config, folder / "s", end.bridge.way, started))

    async def keep() -> None:
        nonlocal holder
        try:
            holder = await asyncio.to_thread(_reach, config, devices, end)
        except ClusterRefusal as exc:
            end.end(str(exc), 1)
        else:
            record()
            await holder.keep(record)

    keeping = None
    try:
        async with end.bridge.serving(_bound(folder / "s")):
            record()
            keeping = asyncio.create_task(keep())
            await end.ended.wait()
            end.bridge.state = "ended"
            if end.why.startswith(TOLD):
                until = loop.time() + _REACHED_S
                while holder is None and loop.time() < until:  # noqa: ASYNC110 - a thread connects
                    await asyncio.sleep(0.05)
                keeping.cancel()
                if holder is not None:
                    await holder.stop()
    finally:
        if keeping is not None:
            keeping.cancel()
        ends = "" if holder is None and end.code else f"the pool {config.name} ends: "  # what never began does not end
        log(f"{'error: ' if end.code else ''}{ends}{end.why or 'its client failed'}")
        with contextlib.suppress(OSError):
            rendezvous.remove(run, config.name, owner=Process.mine())
        shutil.rmtree(folder, ignore_errors=True)
    return end.code


def _bound(path: Path) -> Any:
    import socket

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    return sock


def _record(config: RayConfig, path: Path, way: tuple[str, int, str] | None, started: float) -> Record:
    low, _ = config.dp
    facts = {
        "model": config.model,
        "devices": [f"{'cuda' if config.gpu else 'cpu'}:{n}" for n in range(low * config.size)],
        "started": started,
        "dp": low,
        "tp": config.tp,
        "pp": config.pp,
        "dtype": config.dtype,
        "kv": config.kv,
        "max_len": config.max_len,
        "on": config.address,
        "way": None if way is None else way[:2],
        "argv": sys.argv,
    }
    return Record(config.name, Process.mine(), str(path), token=None if way is None else way[2], facts=facts)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    config, devices = parse_args(argv)
    files.raise_limit()
    os.umask(0o077)
    lock = rendezvous.lock(config.home / "run", config.name)
    if not lock.take(0):
        log(f"error: a pool named {config.name} is already running or starting; stop it first or use --name.")
        return 1
    try:
        return asyncio.run(serve(config, devices))
    except OSError as exc:
        log(f"error: the pool {config.name} cannot run: {shortage.describe(exc)}")
    finally:
        lock.free(remove=True)
    return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Ray's threads may wait for a cluster that is gone
