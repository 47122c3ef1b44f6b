"""The server of a pool on Ray, an actor: HTTP, tokenizing and dispatch on a loop of its own. Ray restarts it; it holds no weights,
and takes over the ranks that do.

It listens on its node's address, for bridges (`bridge.py`) and ranks that know its secrets. The pool ends where it is told to, after an
idle time, when its last replica is gone for good, and when no client has renewed its lease: all groups are removed then, and the actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError

from holynb.pool.ray.config import NAMESPACE, VERSION, RayConfig
from holynb.pool.ray.group import sweep
from holynb.pool.ray.remote import Door
from holynb.pool.ray.replicas import RayReplicas
from holynb.pool.ray.scaling import scale
from holynb.pool.ray.takeover import come_again
from holynb.pool.ray.view import health_of, rank_logs, watch_nodes
from holynb.pool.server import Identity, Service, lifecycle
from holynb.pool.server.app import application
from holynb.pool.server.connection import PortConnection
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.sockets import serving_on

__all__ = ["PoolServer", "guarded"]

#: Seconds between two looks at the idle clock and the lease.
_CHECK_S = 0.5
#: How long an ended server stays for its clients to read why.
_LINGER_S = 5.0
#: How long `stop` waits for everything to be gone.
_STOP_S = 25.0


def guarded(secret: bytes) -> type[PortConnection]:
    """A connection that must begin with `secret`; without it, it ends without a word."""

    class Guarded(PortConnection):
        _heard: bytes | None = b""

        def data_received(self, data: bytes) -> None:
            if self._heard is None:
                super().data_received(data)
                return
            self._heard += data
            if len(self._heard) < len(secret) and secret.startswith(self._heard):
                return
            if not secrets.compare_digest(self._heard[: len(secret)], secret):
                self.transport.close()
                return
            rest, self._heard = self._heard[len(secret) :], None
            if rest:
                super().data_received(rest)

    return Guarded


def _restarted() -> bool:
    """Whether Ray started this actor before: its ranks may live, with their weights."""
    try:
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)
    except (RayError, RuntimeError):  # the cluster does not tell: all is placed anew
        return False


class PoolServer:
    """The actor. Its methods are called by clients and return at once, but `stop`; all else is on the thread `holynb-pool`."""

    def __init__(self, config: RayConfig, key: str) -> None:
        self._config, self._key = config, key
        self._address: str = ray.util.get_node_ip_address()
        self._secret = secrets.token_hex(32)
        self._port = 0
        self._renewed_at = time.monotonic()
        self._service: Service | None = None
        self._replicas: RayReplicas | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = threading.Event()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        threading.Thread(target=self._run, name="holynb-pool", daemon=True).start()

    # -- called by clients -----------------------------------------------------------------------------------------------
    def renew(self) -> dict[str, Any]:
        """Renew the lease. Returns how the pool is and how it is reached; `port` is 0 while it is not."""
        self._renewed_at = time.monotonic()
        service, config = self._service, self._config
        return {
            "address": self._address,
            "port": self._port,
            "secret": self._secret,
            "config": config,
            "version": VERSION,
            "pid": os.getpid(),
            "state": "starting" if service is None else service.state,
            "why": None if service is None else service.why,
            "needs": {} if self._replicas is None else self._replicas.weights.needs,
            "key": self._key,
        }

    def delivered(self, refusal: str = "") -> None:
        """A client has sent the model to all that need it, or says why it cannot."""
        if self._loop is not None and self._replicas is not None:
            self._loop.call_soon_threadsafe(self._replicas.weights.delivered, refusal)

    def stop(self, why: str) -> bool:
        """End the pool. Returns when nothing of it is left but this actor: whether that is so."""
        if self._loop is not None and self._service is not None:
            self._loop.call_soon_threadsafe(self._service.end, why)
        return self._over.wait(_STOP_S)

    # -- the thread ------------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            restarted = _restarted()
            if not restarted:
                sweep(self._config.name)  # of a pool that had this name
            asyncio.run(self._serve(restarted=restarted))
        finally:
            with contextlib.suppress(RayError):
                sweep(self._config.name)
            self._over.set()
            time.sleep(_LINGER_S)
            with contextlib.suppress(ValueError, RayError):
                ray.kill(ray.get_actor(self._config.server, NAMESPACE), no_restart=True)

    async def _serve(self, *, restarted: bool) -> None:
        config = self._config
        self._loop = asyncio.get_running_loop()
        service = Service(Identity(config.name, config.model))
        door = Door(self._address)
        replicas = RayReplicas(config, service, door, self._key)
        service.more_health = lambda: health_of(replicas)
        self._replicas, self._service = replicas, service
        listening = socket.create_server((self._address, 0), backlog=2048)
        app = rank_logs(application(service), replicas)
        try:
            async with serving_on([(app, listening, guarded(self._secret.encode()))]):
                self._port = listening.getsockname()[1]
                await self._until_end(service, replicas, restarted=restarted)
        finally:
            self._port = 0
            door.close()

    async def _until_end(self, service: Service, replicas: RayReplicas, *, restarted: bool) -> None:
        start = come_again(replicas) if restarted else replicas.start()
        watch = self._watch(service, served=restarted)
        work = [asyncio.create_task(c) for c in (start, watch, scale(self._config, service, replicas), watch_nodes(replicas))]
        stopped = asyncio.create_task(service.stopped.wait())
        try:
            await asyncio.wait({work[0], stopped}, return_when=asyncio.FIRST_COMPLETED)
            if work[0].done():
                work[0].result()
            await stopped
        except StartError as exc:
            service.fail(str(exc))
        except (RayError, OSError) as exc:
            service.fail(f"it cannot run: {exc}")
        finally:
            for task in (*work, stopped):
                task.cancel()
            await asyncio.gather(*work, stopped, return_exceptions=True)
            lifecycle.log(f"the pool {self._config.name} ends: {service.why}")
            await replicas.stop()

    async def _watch(self, service: Service, *, served: bool) -> None:
        """End the pool where its time is over; an idle one once it has `served`, before or now."""
        config = self._config
        while True:
            await asyncio.sleep(min(_CHECK_S, config.idle, config.lease))
            now = time.monotonic()
            served |= service.state == "ready"
            if service.requests == 0 and served and now - service.used_at >= config.idle:
                service.end(f"it was idle for {config.idle:g} s")
            if now - self._renewed_at >= config.lease:
                service.end(f"no client renewed its lease for {config.lease:g} s")
            sys.stdout.flush()
