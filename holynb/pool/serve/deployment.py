"""The class that Ray Serve runs: each of its replicas is a pool of one copy of the model, with our application in front. No torch here.

A rank stays a process of its own below Serve's, as in any pool: a crash or an out-of-memory there is an error of its rows. Where the
model's processes are gone for good the health check fails, and Serve starts another replica.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from holynb.pool.serve.deploying import DEPLOYMENT, Deployed, serve_options
from holynb.pool.server import Identity, Service, parse_args
from holynb.pool.server.__main__ import Replicas
from holynb.pool.server.app import application
from holynb.pool.server.lifecycle import StartError
from kernels_support.jupyter import socketdir
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

__all__ = ["PoolReplica", "build"]

#: How often the processes of a replica are started again before Serve replaces it.
RESTARTS = 3

#: The one of this process: Serve asks for the application after it has made the replica, and without it.
_services: list[Service] = []


class Unlisted(Replicas):
    """Replicas that no rendezvous file names: Serve knows where they are."""

    def _write_record(self) -> None:
        """Nothing."""


class PoolReplica:
    """One replica of Serve's. Made and ended on its loop."""

    async def __init__(self, args: Mapping[str, Any]) -> None:  # type: ignore[misc]
        deployed = Deployed.of(args)
        # Several may be on one machine, and each has logs of its own.
        name, home = f"{deployed.name}-serve-{os.getpid()}", deployed.folder
        config = parse_args(
            ["--name", name, "--model", deployed.model, "--home", str(home), "--restart", str(RESTARTS), *deployed.pool_args]
        )
        self._service = Service(Identity(deployed.name, deployed.model))
        self._folder = socketdir.make()
        self._replicas = Unlisted(config, self._service, Record(name, Process.mine(), str(self._folder / "pool.sock")))
        _services[:] = [self._service]
        try:
            await self._replicas.start()
        except (StartError, OSError) as exc:
            self._service.fail(str(exc))
            await self._end()
            raise RuntimeError(f"The pool of {deployed.model} cannot start: {exc}") from exc

    async def check_health(self) -> None:
        """What Serve asks every few seconds. Raises RuntimeError where this replica answers no more."""
        if self._service.state != "ready":
            raise RuntimeError(f"{self._service.identity.name}: {self._service.why or self._service.stage}")

    async def __del__(self) -> None:
        """Serve's name for the end: all its requests are done."""
        self._service.end("Serve ends this replica")
        await self._end()

    async def _end(self) -> None:
        await self._replicas.stop()
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder)


def served() -> ASGIApp:
    """The application over this process' replica."""
    return application(_services[0])


def build(args: Mapping[str, Any]) -> Any:
    """Serve's application, from `args` of its configuration (`import_path: holynb.pool.serve.deployment:build`). Raises ValueError."""
    from ray import serve

    deployed = Deployed.of(args)
    deployment = serve.deployment(serve.ingress(served)(PoolReplica), name=DEPLOYMENT, **serve_options(deployed))
    return deployment.bind(dict(args))
