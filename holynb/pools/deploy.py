"""Puts a pool behind Ray Serve: runs `python -m holynb.pool.serve`, which speaks to the cluster. Imports neither Ray nor holynb.pool."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from typing import Any

from holynb import typed_path
from holynb.errors import BadOption, BadRoute
from holynb.pools.client import Notice
from holynb.pools.launch import check_model, recorded_model
from holynb.pools.options import EMBEDDED, PoolOptions

__all__ = ["deploy"]

#: What stands in the command line of `pool start`, too, and is checked as there.
_SHARED = ("name", "tp", "pp", "dtype", "kv", "max_len", "memory", "port")


def deploy(model: str = EMBEDDED, *, notice: Notice = lambda text: None, **options: Any) -> dict[str, Any]:
    """Deploy MODEL on a running cluster and return when it answers; with `write`, write the file that `serve deploy` takes instead.

    options: replicas (`N` or `LEAST..MOST`), target, gpus, cpus, address, version, home, write, and those of `start` that decide how a copy
    of the model is computed. Raises BadOption, BadRoute.
    """
    checked = PoolOptions.parse(model, {k: v for k, v in options.items() if k in _SHARED})
    check_model(model)
    if importlib.util.find_spec("ray") is None:
        raise BadRoute("pool deploy needs Ray: pip install 'holynb[ray]'")
    values = {k: v for k, v in options.items() if v not in (None, False)} | {"name": checked.pool_name}
    if (path := values.get("write")) is not None:
        values["write"] = str(typed_path.typed(path).absolute())
    argv = [sys.executable, "-P", "-m", "holynb.pool.serve", "--model", recorded_model(model)]
    for name, value in values.items():
        argv += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)]
    facts = _run(argv, notice)
    if "error" in facts:
        raise BadOption(str(facts["error"]))
    return {**facts, "name": checked.pool_name, "model": model}


def _run(argv: list[str], notice: Notice) -> dict[str, Any]:
    """The last of the lines of JSON that it prints; `notice` is told once the cluster has let it in."""
    last = ""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            try:
                for line in process.stdout or ():
                    last = line if line.strip() else last
                    if line.startswith('{"connected"'):
                        notice("Ray Serve starts the replicas; weights are fetched on the nodes that lack them")
            except BaseException:
                process.kill()
                raise
        if last and "connected" not in (facts := json.loads(last)):
            return dict(facts)
        errors.seek(0)
        return {"error": (errors.read().strip().splitlines() or ["it printed nothing"])[-1]}
