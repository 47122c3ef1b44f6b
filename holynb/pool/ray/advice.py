"""How a model could be started on a cluster, as one JSON object: `python -m holynb.pool.ray.advice MODEL --address ray://HOST:10001`.

Asks the cluster for its nodes, what is free, and the memory of GPUs whose kind does not tell it. Starts nothing that stays.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from ray.exceptions import RayError

from holynb.errors import UserError
from holynb.pool.advice import check_dtype, fetched_first, spec_of
from holynb.pool.fit import plan
from holynb.pool.fit.cards import parse_gpus
from holynb.pool.fit.known import with_organisation
from holynb.pool.ray.cluster import ClusterRefusal, connect
from holynb.pool.ray.config import RayConfig
from holynb.pool.ray.placement import ClusterNode
from holynb.pool.ray.resources import free_now, with_gpu_memory
from holynb.pool.ray.ways import cluster_plan

__all__ = ["main"]


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.ray.advice", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--address", default="auto")
    parser.add_argument("--gpus", help="memory of one GPU, such as 80GB, where the cluster does not tell it")
    parser.add_argument("--devices", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--dp", default="0", help="replicas, or bounds, whose lower end is planned")
    for name in ("tp", "pp"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--dtype")
    parser.add_argument("--kv")
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=0.9)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def _nodes(args: argparse.Namespace) -> list[ClusterNode]:
    """The cluster's, with the memory of their GPUs. Raises UserError, RayError."""
    nodes = free_now()
    if args.gpus is None:
        return with_gpu_memory(nodes)
    one = parse_gpus(args.gpus)
    if one.count > 1:
        raise UserError(f"The nodes of a cluster say how many GPUs they have; --gpus is the memory of one of them, not {args.gpus}.")
    return [replace(n, gpu_memory=one.memory) for n in nodes]


def main(argv: list[str] | None = None) -> int:
    """The command line: prints one JSON object. 0 fits, 1 does not, 2 is a mistake of the user."""
    args = _parsed(argv)
    low = int(args.dp.partition("..")[0])
    sizes = {"tp": args.tp, "pp": args.pp, "cpus": args.cpus, "spread": args.spread, "dtype": args.dtype, "kv": args.kv}
    config = RayConfig("plan", args.model, args.home, args.address, (low, low), max_len=args.max_len, memory=args.memory, **sizes)
    try:
        check_dtype(args.dtype)
        model = with_organisation(args.model)
        spec, remark = spec_of(model, args.home)
        connect(args.address)
        nodes = _nodes(args)
        config = replace(config, gpu=args.devices == "gpu" or (args.devices == "auto" and any(n.gpus for n in nodes)))
        result = cluster_plan(model, plan.with_kv(spec, args.kv), nodes, config)
    except (UserError, ClusterRefusal, FileNotFoundError) as exc:
        print(json.dumps({"error": str(exc)}))
        return 2
    except (RayError, ConnectionError, RuntimeError) as exc:
        print(json.dumps({"error": f"The cluster at {args.address} does not answer: {str(exc).splitlines()[0]}"}))
        return 2
    first = fetched_first(spec) if remark and result["ways"] else ""
    print(json.dumps({**result, "says": result["says"] + first + remark}))
    return 0 if result["ways"] else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Ray's threads may wait for a cluster that is gone
