"""Puts a pool behind Ray Serve: runs `python -m holynb.pool.serve`, which speaks to the cluster. Imports neither Ray nor holynb.pool."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

from holynb import typed_path
from holynb.errors import BadOption, BadRoute
from holynb.pools.launch import recorded_model
from holynb.pools.options import EMBEDDED, PoolOptions

__all__ = ["deploy"]

#: What stands in the command line of `pool start`, too, and is checked as there.
_SHARED = ("name", "tp", "pp", "dtype", "kv", "max_len", "memory", "port")


def deploy(model: str = EMBEDDED, **options: Any) -> dict[str, Any]:
    """Deploy MODEL on a running cluster and return when it answers; with `write`, write the file that `serve deploy` takes instead.

    options: replicas (`N` or `LEAST..MOST`), target, gpus, cpus, address, version, home, write, and those of `start` that decide how a copy
    of the model is computed. Raises BadOption, BadRoute.
    """
    checked = PoolOptions.parse(model, {k: v for k, v in options.items() if k in _SHARED})
    if importlib.util.find_spec("ray") is None:
        raise BadRoute("pool deploy needs Ray: pip install 'holynb[ray]'")
    values = {k: v for k, v in options.items() if v not in (None, False)} | {"name": checked.pool_name}
    if (path := values.get("write")) is not None:
        values["write"] = str(typed_path.typed(path).absolute())
    argv = [sys.executable, "-P", "-m", "holynb.pool.serve", "--model", recorded_model(model)]
    for name, value in values.items():
        argv += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    facts: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]}
    if "error" in facts:
        raise BadOption(str(facts["error"]))
    return {**facts, "name": checked.pool_name, "model": model}
