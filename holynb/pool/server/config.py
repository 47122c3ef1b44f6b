"""What a pool is told to run: its command line as a PoolConfig, and from it each rank's command and load. Knows flags and cores; starts nothing."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from holynb.pool.fit import Mesh
from holynb.pool.protocol import LoadModel
from kernels_support.jupyter.supervisor import Command

__all__ = ["RUNNER", "PoolConfig", "command", "load", "plan_of"]

#: What computes, where nothing else is asked for.
RUNNER = "holynb.pool.engine.runner:Runner"


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What to run. `devices` has one entry a rank, replica by replica, stage by stage; `runner` is the class that computes (`module:Class`).

    `restart`: how many times in all a replica that dies is started again. `micro`: batches in flight on a pipeline (0: as many as stages).
    """

    name: str
    model: str
    home: Path
    devices: tuple[str, ...] = ("cpu",)
    tp: int = 1
    pp: int = 1
    micro: int = 0
    restart: int = 0
    dtype: str | None = None
    max_len: int | None = None
    memory: float = 0.9
    port: int | None = None
    idle: float = 1800.0
    runner: str = RUNNER

    @property
    def size(self) -> int:
        """Ranks of one replica."""
        return self.tp * self.pp

    @property
    def dp(self) -> int:
        """Replicas."""
        return len(self.devices) // self.size

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def tag(self) -> str:
        return f"holynb-pool:{self.name}"

    def log(self, rank: int | None = None) -> Path:
        return self.home / "logs" / f"pool-{self.name.replace('/', '_')}{'' if rank is None else f'.rank{rank}'}.log"


def command(plan: PoolConfig, number: int) -> Command:
    """How rank `number` of the whole pool is started. Its log begins anew."""
    argv = [sys.executable, "-P", "-m", "holynb.pool.worker", "--tag", plan.tag, "--runner", plan.runner]
    log = plan.log(number)
    with contextlib.suppress(OSError):  # where it cannot be taken away it goes on
        log.unlink()
    # Spinning OpenMP threads take a shared core away from everybody, themselves included (92 → 18 tokens/s).
    env = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    if plan.size > 1 and sys.platform == "linux":
        # Ranks of one replica are of one machine: what they say to each other stays on it.
        env |= {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    return Command(argv, env=env, log=log, cores=_cores(plan, number))


def load(plan: PoolConfig, folder: Path, number: int, meet: Path) -> LoadModel:
    """What rank `number` of the whole pool is told to load. `meet` is a file that is not there yet, where its replica's ranks find each other."""
    mesh = Mesh(plan.tp, plan.pp, number % plan.size, plan.micro, f"file://{meet}") if plan.size > 1 else None
    return LoadModel(str(folder), plan.devices[number], plan.dtype, plan.max_len, plan.memory, mesh)


def _cores(plan: PoolConfig, number: int) -> frozenset[int] | None:
    """The cores of one of several ranks on CPU: each its own share, or their threads would take turns on all of them."""
    if len(plan.devices) == 1 or plan.devices[number] != "cpu" or not hasattr(os, "sched_getaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))
    count = plan.devices.count("cpu")
    at = plan.devices[:number].count("cpu")
    return frozenset(mine[at::count] or [mine[at % len(mine)]])


def plan_of(argv: list[str] | None) -> PoolConfig:
    """The server's command line as a plan. Ends the process where it makes none."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.server")
    parser.add_argument("--tag", default="holynb-pool", help="what a list of processes shows")
    for name, kind in (("name", str), ("model", str), ("home", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--devices", default="cpu", help="one a rank, with commas")
    for name in ("tp", "pp"):
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--micro", type=int, default=0, help="batches in flight (0: as many as stages)")
    parser.add_argument("--restart", type=int, default=0, help="how often a dead replica is started again")
    parser.add_argument("--dtype")
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=0.9)
    parser.add_argument("--port", type=int)
    parser.add_argument("--idle", type=float, default=1800.0, help="seconds without a request after which the pool ends")
    parser.add_argument("--runner", default=os.environ.get("HOLYNB_POOL_RUNNER", RUNNER), help="module:Class that computes")
    said = vars(parser.parse_args(argv))
    del said["tag"]
    plan = PoolConfig(**{**said, "devices": tuple(said["devices"].split(","))})
    if min(plan.tp, plan.pp) < 1 or len(plan.devices) % plan.size:
        parser.error(f"{len(plan.devices)} devices are no replicas of --tp {plan.tp} × --pp {plan.pp}")
    return plan
