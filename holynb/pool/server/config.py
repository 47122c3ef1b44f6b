"""A pool's command line as a PoolConfig, and from it each rank's command and LoadModel frame. Knows flags and cores; starts nothing."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from holynb.pool.fit import Mesh
from holynb.pool.fit.known import with_organisation
from holynb.pool.protocol import LoadModel
from kernels_support.jupyter.supervisor import Command

__all__ = ["RUNNER", "PoolConfig", "bytecode_cache", "load_model", "parse_args", "rank_command"]

#: The default of --runner.
RUNNER = "holynb.pool.engine.runner:Runner"

#: What only the process that fetches the weights needs of the server's environment: the model hub's token, and pip's index.
_FOR_FETCHING = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PIP_")


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """A pool's settings. `devices` has one entry per rank, ordered by replica, then stage; `runner` is a JobRunner class (`module:Class`).

    `restart`: how many dead replicas in all are started again. `micro`: batches in flight on a pipeline (0: as many as stages).
    `idle`: seconds without a request after which the pool ends. `memory`: share of a device's memory.
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
    kv: str | None = None
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


def rank_command(config: PoolConfig, number: int) -> Command:
    """The command of rank `number` of the whole pool. Removes its old log."""
    argv = [sys.executable, "-P", "-m", "holynb.pool.worker", "--tag", config.tag, "--runner", config.runner]
    argv += ["--device", config.devices[number]]
    log = config.log(number)
    with contextlib.suppress(OSError):  # a log that cannot be removed is continued
        log.unlink()
    # Spinning OpenMP threads starve everything on shared cores, themselves included (92 → 18 tokens/s).
    env = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"} | bytecode_cache(config.home)
    if config.size > 1 and sys.platform == "linux":
        # Ranks of one replica are on one machine: their traffic stays on loopback.
        env |= {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    inherits = {name: value for name, value in os.environ.items() if not name.startswith(_FOR_FETCHING)}
    return Command(argv, env=env, inherits=inherits, log=log, cores=_cores(config, number))


def bytecode_cache(home: Path) -> dict[str, str]:
    """Where a rank keeps compiled Python if torch's is not compiled where it lies; else nothing.

    Images with PYTHONDONTWRITEBYTECODE or a folder that nobody may write to have no .pyc files: each start would compile 700 modules.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin or Path(importlib.util.cache_from_source(spec.origin)).exists():
        return {}
    return {"PYTHONPYCACHEPREFIX": str(home / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}


def load_model(config: PoolConfig, folder: Path, number: int, meet: Path) -> LoadModel:
    """The first frame to rank `number` of the whole pool. `meet` is a path without a file, where its replica's ranks find each other."""
    mesh = Mesh(config.tp, config.pp, number % config.size, config.micro, f"file://{meet}") if config.size > 1 else None
    return LoadModel(str(folder), config.devices[number], config.dtype, config.max_len, config.memory, mesh, config.kv)


def _cores(config: PoolConfig, number: int) -> frozenset[int] | None:
    """The cores of one of several ranks on CPU: disjoint shares, or their threads would compete for all cores."""
    if len(config.devices) == 1 or config.devices[number] != "cpu" or not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    count = config.devices.count("cpu")
    index = config.devices[:number].count("cpu")
    return frozenset(cores[index::count] or [cores[index % len(cores)]])


def parse_args(argv: list[str] | None) -> PoolConfig:
    """The server's command line as a PoolConfig. Exits where it is invalid."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.server")
    parser.add_argument("--tag", default="holynb-pool", help="what a list of processes shows")
    for name, kind in (("name", str), ("model", with_organisation), ("home", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--devices", default="cpu", help="one a rank, with commas")
    for name in ("tp", "pp"):
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--micro", type=int, default=0, help="batches in flight (0: as many as stages)")
    parser.add_argument("--restart", type=int, default=0, help="how often a dead replica is started again")
    parser.add_argument("--dtype")
    parser.add_argument("--kv", help="fp8: keys and values in eight bits")
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=0.9)
    parser.add_argument("--port", type=int)
    parser.add_argument("--idle", type=float, default=1800.0, help="seconds without a request after which the pool ends")
    parser.add_argument("--runner", default=os.environ.get("HOLYNB_POOL_RUNNER", RUNNER), help="module:Class that computes")
    args = vars(parser.parse_args(argv))
    del args["tag"]
    config = PoolConfig(**{**args, "devices": tuple(args["devices"].split(","))})
    if min(config.tp, config.pp) < 1 or len(config.devices) % config.size:
        parser.error(f"{len(config.devices)} devices are no replicas of --tp {config.tp} × --pp {config.pp}")
    return config
