"""A pool's deployment as data: its options, what Serve is told of it, and the file that `serve deploy` takes. Imports no Ray."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["DEPLOYMENT", "Deployed", "bounds", "parsed", "schema", "serve_options"]

#: Its name within Serve's application.
DEPLOYMENT = "pool"
#: How long a replica that is replaced finishes what it has begun, seconds: a stream may take long.
DRAIN_S = 3600.0
#: Seconds of more requests than replicas are meant for, after which one comes: its weights are loaded for minutes of work, not for a burst.
GROWS_AFTER_S = 10.0
#: Requests that one replica takes at once; a pool queues by itself, and a full queue makes full batches.
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Deployed:
    """The options of `holynb pool deploy`. `replicas`: `N`, or `LEAST..MOST`; `target`: requests under way at a replica that Serve aims at.

    `cool_down`: seconds of fewer requests after which a replica goes. `version`: another one replaces all replicas. `home`: where each node
    keeps weights and logs; else as HOLYNB_HOME says there.
    """

    model: str
    name: str
    replicas: str = "1"
    target: float = 32.0
    cool_down: float = 600.0
    tp: int = 1
    pp: int = 1
    gpus: bool = False
    cpus: float = 1.0
    dtype: str | None = None
    kv: str | None = None
    max_len: int | None = None
    memory: float = 0.9
    version: str | None = None
    home: str | None = None

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Deployed:
        """From the `args` of Serve's configuration. Raises ValueError."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(args) - known):
            raise ValueError(f"unknown args {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        deployed = cls(**args)
        bounds(deployed.replicas)
        return deployed

    @property
    def folder(self) -> Path:
        """Where this node keeps weights and logs."""
        import platformdirs

        return Path(self.home or os.environ.get("HOLYNB_HOME") or platformdirs.user_data_dir("holynb", appauthor=False)).expanduser()

    @property
    def devices(self) -> list[str]:
        """One for each rank of a replica: Ray shows each replica its own GPUs alone."""
        return [f"cuda:{n}" if self.gpus else "cpu" for n in range(self.tp * self.pp)]

    @property
    def pool_args(self) -> list[str]:
        """The pool's command line."""
        args = ["--devices", ",".join(self.devices), "--tp", str(self.tp), "--pp", str(self.pp), "--memory", str(self.memory)]
        for flag, value in (("--dtype", self.dtype), ("--kv", self.kv), ("--max-len", self.max_len)):
            args += [] if value is None else [flag, str(value)]
        return args


def bounds(replicas: str | int) -> tuple[int, int]:
    """The fewest and the most replicas. Raises ValueError."""
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(replicas))
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise ValueError(f"--replicas takes a number, or the fewest and the most such as 1..8, not {replicas}")
    return least, most


def serve_options(deployed: Deployed) -> dict[str, Any]:
    """What Serve is told of the deployment: how many, when more, what each needs, and how one ends."""
    least, most = bounds(deployed.replicas)
    ranks = deployed.tp * deployed.pp
    actor: dict[str, Any] = {"num_cpus": deployed.cpus * ranks}
    if deployed.gpus:
        actor["num_gpus"] = ranks
    scaling: dict[str, Any] = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": deployed.target}
    scaling |= {"upscale_delay_s": GROWS_AFTER_S, "downscale_delay_s": deployed.cool_down}
    return {
        "max_ongoing_requests": max(AT_ONCE, int(deployed.target)),
        **({"num_replicas": least} if least == most else {"autoscaling_config": scaling}),
        "ray_actor_options": actor,
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_wait_loop_s": 1.0,
        "graceful_shutdown_timeout_s": DRAIN_S,
    }


def schema(deployed: Deployed, port: int) -> dict[str, Any]:
    """What `serve deploy` takes."""
    given = {k: v for k, v in asdict(deployed).items() if v is not None}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": deployed.name,
                "route_prefix": "/",
                "import_path": "holynb.pool.serve.deployment:build",
                "args": given,
                "deployments": [{"name": DEPLOYMENT, **serve_options(deployed)}],
            }
        ],
    }


def _parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="python -m holynb.pool.serve")
    for name in ("model", "name"):
        command.add_argument(f"--{name}", required=True)
    command.add_argument("--replicas", default="1")
    for name, kind in (
        ("target", float),
        ("cool-down", float),
        ("cpus", float),
        ("memory", float),
        ("tp", int),
        ("pp", int),
        ("max-len", int),
    ):
        command.add_argument(f"--{name}", type=kind)
    for name in ("dtype", "kv", "version", "home"):
        command.add_argument(f"--{name}")
    command.add_argument("--gpus", action="store_true")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--address", default="auto", help="the cluster; one has to run")
    command.add_argument("--write", help="write the file that `serve deploy` takes, and deploy nothing")
    return command


def parsed(argv: Sequence[str] | None) -> tuple[Deployed, argparse.Namespace]:
    """The deployment that a command line means, and all of it."""
    args = _parser().parse_args(argv)
    given = {f.name: v for f in fields(Deployed) if (v := getattr(args, f.name)) is not None}
    return Deployed.of(given), args
