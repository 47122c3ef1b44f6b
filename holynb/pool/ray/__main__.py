"""Main of the client's end of a pool on Ray: starts the pool or finds it, renews its lease, and serves it on a Unix socket of this machine.

It ends the pool where it is told to end (`pool stop`). Where it is killed the pool lives on, until its lease ends, and whoever asks next
on this machine starts it again. What it cannot do itself it says in its last line, as a pool's server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from holynb.pool.ray import node, sending
from holynb.pool.ray.bridge import PoolBridge
from holynb.pool.ray.cluster import ClusterRefusal, connect, obtain, with_devices
from holynb.pool.ray.config import NAMESPACE, RayConfig, parse_args
from holynb.pool.server.lifecycle import log
from kernels_support.jupyter import files, rendezvous, shortage, socketdir
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

__all__ = ["main"]

#: Seconds between two renewals of the lease, which are the server's heartbeat too.
_RENEW_S = 1.0
#: How long it may take to answer one, and how many in a row may fail before it is killed, and Ray starts it again.
_ANSWER_S, _MISSED = 5.0, 2
#: How long a new server may take to listen.
_LISTEN_S = 60.0
#: How the reason begins of a pool that is stopped.
TOLD = "it was told to end"
#: How long Ray may take to be rid of a server.
_GONE_S = 15.0


class LeaseHolder:
    """The pool's end on this machine. Written by its loop."""

    def __init__(self, config: RayConfig, server: Any) -> None:
        self.config, self.server = config, server
        self.bridge = PoolBridge()
        self.ended = asyncio.Event()
        self.why, self.code = "", 0
        self._facts: dict[str, Any] = {}
        self._sending: asyncio.Task[None] | None = None

    def end(self, why: str, code: int = 0) -> None:
        if not self.ended.is_set():
            self.why, self.code = why, code
            self.ended.set()

    async def keep(self) -> None:
        """Renew the lease for ever; follow the server where Ray restarts it; notice its end."""
        missed = 0
        while True:
            try:
                facts = await asyncio.to_thread(ray.get, self.server.renew.remote(), timeout=_ANSWER_S)
            except GetTimeoutError:
                missed += 1
                if missed >= _MISSED:
                    self.bridge.away("its server does not answer, and Ray is asked to start it again")
                    log("the pool's server does not answer: it is killed, and Ray starts it again")
                    self.server = await asyncio.to_thread(_killed, self.server)
                    missed = 0
            except ActorUnavailableError:
                self.bridge.away("its server is being started again by Ray")
            except (ActorDiedError, ValueError):
                return self.end("its server is gone from the cluster", 1)
            except (RayError, ConnectionError, RuntimeError) as exc:
                return self.end(f"the cluster is gone: {_first_line(exc)}", 1)
            else:
                missed = 0
                self._follow(facts)
            await asyncio.sleep(_RENEW_S)

    def _follow(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        way = (facts["address"], facts["port"], facts["secret"]) if facts["port"] else None
        if way is None:
            self.bridge.away("its server is being started")
        elif way != self.bridge.way:
            if self.bridge.way is not None:
                self.bridge.away("its server was started again")
            self.bridge.way = way
        if facts["state"] in ("ended", "failed"):
            self.end(str(facts["why"]), int(facts["state"] == "failed"))
        if facts["needs"] and (self._sending is None or self._sending.done()):
            self._sending = asyncio.create_task(self._send(dict(facts["needs"]), str(facts["key"])))

    async def _send(self, needs: dict[str, str], key: str) -> None:
        """Send the model to the nodes that lack it."""
        folder, refusal = Path(self.config.model), ""
        if not await asyncio.to_thread(folder.is_dir):
            refusal = f"{folder} is no folder on node {', '.join(needs)}, nor on the machine that asks"
        else:
            log(f"sending {folder} to {', '.join(needs)}")
            try:
                seats = [await asyncio.to_thread(ray.get_actor, name, NAMESPACE) for name in needs.values()]
                pieces = node.pieces(folder)
                took = await asyncio.to_thread(sending.send, pieces, sending.read_here(folder), seats, key, lambda share: None)
                log(f"sent {sum(size for _, _, size in pieces) / 1e6:.1f} MB to each in {took:.1f} s")
            except (RayError, ValueError, OSError) as exc:
                refusal = f"{folder} could not be sent to {', '.join(needs)}: {_first_line(exc)}"
        await asyncio.to_thread(ray.get, self.server.delivered.remote(refusal))

    async def stop(self) -> None:
        """End the pool, and see that nothing of it is left in the cluster."""
        with contextlib.suppress(RayError, ValueError, ConnectionError, RuntimeError):
            await asyncio.to_thread(ray.get, self.server.stop.remote(self.why), timeout=20)
            await asyncio.to_thread(ray.kill, self.server, no_restart=True)
            until = time.monotonic() + _GONE_S
            while time.monotonic() < until:
                await asyncio.to_thread(ray.get_actor, self.config.server, NAMESPACE)  # ValueError: gone
                await asyncio.sleep(0.1)


def _killed(server: Any) -> Any:
    """Kill a server that hangs, so that Ray starts it again; the actor stays the same."""
    with contextlib.suppress(RayError, ValueError):
        ray.kill(server, no_restart=False)
    return server


def _first_line(exc: BaseException) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)[:300]


async def serve(config: RayConfig, server: Any) -> int:
    """Serve the pool until it ends. Returns the exit code. Raises OSError."""
    run, client = config.home / "run", LeaseHolder(config, server)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, client.end, f"{TOLD} ({number.name})")
    keeping = asyncio.create_task(client.keep())
    folder = None
    try:
        folder = socketdir.make()
        sock = _bound(folder / "s")
        async with client.bridge.serving(sock):
            rendezvous.write(run, _record(config, folder / "s"))
            await client.ended.wait()
            client.bridge.state = "ended"
            keeping.cancel()
            if client.why.startswith(TOLD):
                await client.stop()
    finally:
        keeping.cancel()
        log(f"{'error: ' if client.code else ''}the pool {config.name} ends: {client.why or 'its client failed'}")
        with contextlib.suppress(OSError):
            rendezvous.remove(run, config.name, owner=Process.mine())
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return client.code


def _bound(path: Path) -> Any:
    import socket

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    return sock


def _record(config: RayConfig, path: Path) -> Record:
    low, _ = config.dp
    facts = {
        "model": config.model,
        "devices": [f"{'cuda' if config.gpu else 'cpu'}:{n}" for n in range(low * config.size)],
        "started": time.time(),
        "dp": low,
        "tp": config.tp,
        "pp": config.pp,
        "dtype": config.dtype,
        "kv": config.kv,
        "max_len": config.max_len,
        "on": config.address,
        "argv": sys.argv,
    }
    return Record(config.name, Process.mine(), str(path), facts=facts)


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
        connect(config.address)
        there, server = obtain(with_devices(config, devices))
        # Where it runs already it was perhaps started on another machine.
        return asyncio.run(serve(replace(there, home=config.home, address=config.address), server))
    except ClusterRefusal as exc:
        log(f"error: {exc}")
    except (RayError, ConnectionError, RuntimeError) as exc:
        log(f"error: the cluster went away while the pool {config.name} started: {_first_line(exc)}")
    except OSError as exc:
        log(f"error: the pool {config.name} cannot run: {shortage.describe(exc)}")
    finally:
        lock.free(remove=True)
    return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Ray's threads may wait for a cluster that is gone
