"""A pool on Ray as its command line has it, and the names it goes by there. Knows flags; starts nothing and imports no Ray."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from holynb.pool.fit.known import with_organisation
from holynb.pool.server.config import RUNNER

__all__ = ["NAMESPACE", "VERSION", "ClusterRefusal", "RayConfig", "parse_args"]

#: Nodes and clients must have the same.
VERSION = version("holynb")

#: The variable that carries Ray's runtime_env, as JSON, to this process.
RUNTIME_ENV = "HOLYNB_RAY_RUNTIME_ENV"

#: The variable with the address, port and secret of a server that runs, as JSON: nobody else may read it.
WAY = "HOLYNB_RAY_WAY"

#: Ray's namespace of all our pools: names of others cannot collide with them.
NAMESPACE = "holynb"


class ClusterRefusal(Exception):
    """The pool cannot be started or reached; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class RayConfig:
    """A pool's settings. `dp`: fewest and most replicas; `cpus`: of a rank; `gpu`: each rank has one; `spread`: stages on many nodes.

    `idle`: seconds without a request, `lease`: seconds without a client, after which the pool ends. `wait`: how long it waits for nodes
    that are not there or not free. `home`: the client's. `runner` is a JobRunner class (`module:Class`).
    `attach`: a pool that runs is wanted, and none is started. `way`: address, port and secret of its server, where they were known.
    """

    name: str
    model: str
    home: Path
    address: str = "auto"
    dp: tuple[int, int] = (1, 1)
    tp: int = 1
    pp: int = 1
    micro: int = 0
    gpu: bool = False
    cpus: int = 1
    spread: bool = False
    dtype: str | None = None
    kv: str | None = None
    max_len: int | None = None
    memory: float = 0.9
    idle: float = 1800.0
    lease: float = 600.0
    wait: float = 0.0
    runner: str = RUNNER
    attach: bool = False
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    way: tuple[str, int, str] | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Ranks of one replica."""
        return self.tp * self.pp

    @property
    def server(self) -> str:
        """The name of the server's actor."""
        return f"{self.name}/server"

    @property
    def same(self) -> tuple[Any, ...]:
        """What must be equal for two to be one pool."""
        return (self.model, self.dp, self.tp, self.pp, self.dtype, self.kv, self.max_len, self.gpu)

    @property
    def flags(self) -> str:
        """Its way to divide the model, as flags."""
        low, high = self.dp
        return f"--dp {low if low == high else f'{low}..{high}'} --tp {self.tp} --pp {self.pp}"


def parse_args(argv: list[str] | None) -> tuple[RayConfig, str]:
    """The command line as a RayConfig, and the word for devices (auto, cpu, gpu). Exits where it is invalid."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.ray")
    parser.add_argument("--tag", default="holynb-pool", help="what a list of processes shows")
    for name, kind in (("name", str), ("model", with_organisation), ("home", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--address", default="auto", help="ray://HOST:PORT, HOST:PORT, or auto: the cluster that runs here")
    parser.add_argument("--dp", type=_bounds, default=(1, 1), help="replicas, or bounds: 2..8")
    for name in ("tp", "pp"):
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--micro", type=int, default=0, help="batches in flight (0: as many as stages)")
    parser.add_argument("--devices", choices=("auto", "cpu", "gpu"), default="auto", help="auto: GPUs, where the cluster has any")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs for each rank")
    parser.add_argument("--spread", action="store_true", help="stages on as many nodes as there are")
    parser.add_argument("--dtype")
    parser.add_argument("--kv", help="fp8: keys and values in eight bits")
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=0.9)
    parser.add_argument("--idle", type=float, default=1800.0, help="seconds without a request after which the pool ends")
    parser.add_argument("--lease", type=float, default=600.0, help="seconds without a client after which the pool ends")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for nodes that are not free yet")
    parser.add_argument("--runner", default=os.environ.get("HOLYNB_POOL_RUNNER", RUNNER), help="module:Class that computes")
    parser.add_argument("--attach", action="store_true", help="only where the pool runs already")
    args = vars(parser.parse_args(argv))
    del args["tag"]
    # Not on the command line, which everybody may read: it may hold keys.
    args["runtime_env"] = json.loads(os.environ.pop(RUNTIME_ENV, "{}"))
    if args["attach"] and (way := json.loads(os.environ.pop(WAY, "null"))):
        args["way"] = tuple(way)
    devices = args.pop("devices")
    return RayConfig(**args), devices


def _bounds(word: str) -> tuple[int, int]:
    low, _, high = word.partition("..")
    return int(low), int(high or low)
