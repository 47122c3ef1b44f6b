"""The command of a pool on Ray, and how one is found again whose process on this machine was killed. Imports no Ray."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from holynb.pools import logfiles
from holynb.pools.environment import variables
from holynb.pools.options import PoolOptions
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Child, Command, spawn

__all__ = ["RUNTIME_ENV", "address", "argv", "find_again"]

#: The variable that carries `--runtime-env` to the pool's process: it may hold keys, and everybody may read a command line.
RUNTIME_ENV = "HOLYNB_RAY_RUNTIME_ENV"

#: The variable with the address, port and secret of a pool's server: its process goes on with them, and connects to Ray afterwards.
WAY = "HOLYNB_RAY_WAY"

#: How long it may take to be found again: Ray is loaded, and the cluster asked.
_FOUND_S = 60.0
_POLL_S = 0.1


def argv(wanted: PoolOptions, model: str, home: Path) -> list[str]:
    """The command of the pool's process on this machine. `model`: as the pool records it."""
    words = _command(wanted.pool_name, model, home, str(wanted.on))
    words += ["--devices", wanted.devices or "auto", "--dp", f"{wanted.dp}..{wanted.dp_most or wanted.dp}"]
    words += ["--tp", str(wanted.tp), "--pp", str(wanted.pp), "--memory", str(wanted.memory), "--idle", str(wanted.idle)]
    words += ["--spread"] * wanted.spread
    for flag, value in (
        ("--dtype", wanted.dtype),
        ("--kv", wanted.kv),
        ("--max-len", wanted.max_len),
        ("--micro", wanted.micro_batches),
        ("--cpus", wanted.cpus),
        ("--lease", wanted.lease),
        ("--wait", wanted.wait_nodes),
    ):
        words += [] if value is None else [flag, str(value)]
    return words


def _command(name: str, model: str, home: Path, on: str) -> list[str]:
    words = [sys.executable, "-P", "-m", "holynb.pool.ray", "--tag", f"holynb-pool:{name}", "--name", name]
    return [*words, "--model", model, "--home", str(home), "--address", address(on)]


def address(on: str) -> str:
    """The cluster's address of this `--on`, as Ray takes it."""
    return "auto" if on == "ray" else on


def find_again(record: Record, home: Path) -> Child | None:
    """Start the process of a pool on Ray again, whose last one is gone; the pool itself may well live. None where the pool does not.

    Returns when it can be found. Raises OSError where no process can be started.
    """
    model, on = str(record.facts.get("model")), str(record.facts.get("on"))
    command = [*_command(record.name, model, home, on), "--attach"]
    way = record.facts.get("way")
    own = {WAY: json.dumps([*way, record.token])} if isinstance(way, list) and record.token else {}
    child = spawn(
        Command(command, env=own, inherits=variables(model, on_ray=True), log=logfiles.path(home, record.name), cwd=home), bound=False
    )
    until = time.monotonic() + _FOUND_S
    while child.alive and time.monotonic() < until:
        if rendezvous.find(home / "run", record.name) is not None:
            return child
        time.sleep(_POLL_S)
    child.kill()
    return None
