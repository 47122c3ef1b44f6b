"""The lease of a pool on Ray, held by its end on this machine: renewed each second, which is its server's heartbeat too. No sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError

from holynb.pool.ray import node, sending
from holynb.pool.ray.bridge import PoolEnd
from holynb.pool.ray.cluster import connect, divided, obtain, with_devices
from holynb.pool.ray.config import NAMESPACE, ClusterRefusal, RayConfig
from holynb.pool.server.lifecycle import log

__all__ = ["LeaseHolder", "reach"]

#: Seconds between two renewals of the lease, which are the server's heartbeat too.
_RENEW_S = 1.0
#: How long it may take to answer one, and how many in a row may fail before it is killed, and Ray starts it again.
_ANSWER_S, _MISSED = 3.0, 2
#: How long Ray may take to be rid of a server.
_GONE_S = 15.0


def reach(config: RayConfig, devices: str, end: PoolEnd) -> LeaseHolder:
    """Connect to the cluster, and find the pool's server or start it. Raises ClusterRefusal, in one line."""
    packages, rest = divided(config.runtime_env)
    try:
        connect(config.address, packages)
        there, server = obtain(with_devices(replace(config, runtime_env=rest), devices))
    except (RayError, ConnectionError, RuntimeError) as exc:
        raise ClusterRefusal(f"the cluster went away while the pool {config.name} started: {_first_line(exc)}") from exc
    # Where it runs already it was perhaps started on another machine.
    return LeaseHolder(replace(there, home=config.home, address=config.address), server, end)


class LeaseHolder:
    """Owned by the loop of the pool's end. `on_way`: called where the server is reached another way."""

    def __init__(self, config: RayConfig, server: Any, end: PoolEnd) -> None:
        self.config, self.server, self.end = config, server, end
        self.bridge = end.bridge
        self._sending: asyncio.Task[None] | None = None

    async def keep(self, on_way: Callable[[], None]) -> None:
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
                return self.end.end("its server is gone from the cluster", 1)
            except (RayError, ConnectionError, RuntimeError) as exc:
                return self.end.end(f"the cluster is gone: {_first_line(exc)}", 1)
            else:
                missed = 0
                self._follow(facts, on_way)
            await asyncio.sleep(_RENEW_S)

    def _follow(self, facts: dict[str, Any], on_way: Callable[[], None]) -> None:
        way = (facts["address"], facts["port"], facts["secret"]) if facts["port"] else None
        if way is None:
            self.bridge.away("its server is being started")
        elif way != self.bridge.way:
            if self.bridge.way is not None:
                self.bridge.away("its server was started again")
            self.bridge.way = way
            on_way()
        if facts["state"] in ("ended", "failed"):
            self.end.end(str(facts["why"]), int(facts["state"] == "failed"))
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
            await asyncio.to_thread(ray.get, self.server.stop.remote(self.end.why), timeout=20)
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
