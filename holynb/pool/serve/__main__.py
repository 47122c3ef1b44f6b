"""`python -m holynb.pool.serve`: deploys a pool on a running Ray cluster, or writes the file that `serve deploy` takes. Prints JSON."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holynb.pool.serve.deploying import Deployed, parsed, schema

__all__ = ["main"]

#: How long a cluster's port may take to answer, seconds.
ANSWERS_S = 5.0
#: How long Serve's proxies may take.
_MINUTES = 5


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Prints `connected` as JSON once the cluster has let it in; the last line is its result, or `error` in one line."""
    try:
        deployed, args = parsed(argv)
        facts = _written(deployed, args.port, Path(args.write)) if args.write else _run(deployed, args.address, args.port)
    except (ValueError, OSError) as exc:
        facts = {"error": str(exc)}
    print(json.dumps(facts), flush=True)
    return int("error" in facts)


def _written(deployed: Deployed, port: int, path: Path) -> dict[str, Any]:
    import yaml

    text = yaml.safe_dump(schema(deployed, port), sort_keys=False)
    path.write_text(f"# serve deploy {path.name}   (nodes need holynb; addresses beyond this machine: http_options.host)\n{text}", "utf-8")
    return {"file": str(path)}


def _run(deployed: Deployed, address: str, port: int) -> dict[str, Any]:
    """Deploy, and wait until it answers. Raises ValueError where no cluster runs there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    from holynb.pool.serve.deployment import build

    address = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address  # as Ray reads it
    where = "on this machine" if address == "auto" else f"at {address}"
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, namespace="holynb")
    except ConnectionError as exc:
        raise ValueError(f"No Ray cluster answers {where}. Start one with ray start --head, or say which: --address") from exc
    except RuntimeError as exc:  # another Ray or Python there, or another token
        raise ValueError(f"The Ray cluster {where} does not take this client: {str(exc).strip().splitlines()[0]}") from exc
    print(json.dumps({"connected": True}), flush=True)
    try:
        cluster = ray.get_runtime_context().gcs_address
        _start_serve(port)
        serve.run(build(_args(deployed)), name=deployed.name, route_prefix="/")
    except (RuntimeError, RayServeException, RayError) as exc:  # a replica that cannot start, another application at /, or no proxy in time
        raise ValueError(f"{deployed.name} was not deployed: {' '.join(str(exc).split())[:600]}") from exc
    finally:
        ray.shutdown()
    return {"name": deployed.name, "url": f"http://127.0.0.1:{port}/v1", "replicas": deployed.replicas, "cluster": cluster}


def _start_serve(port: int) -> None:
    """Start Serve, or find it. It waits a minute for its proxies, which a busy node exceeds. Raises RayError where they do not answer."""
    from ray import serve
    from ray.exceptions import GetTimeoutError

    for left in reversed(range(_MINUTES)):
        try:
            serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
        except GetTimeoutError:
            if not left:
                raise
        else:
            return


def _check_reachable(address: str) -> None:
    """Raises ValueError where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_S).close()
    except OSError as exc:
        raise ValueError(f"Nothing answers at {address} ({exc.strerror or exc}). Start a cluster there with ray start --head") from exc


def _args(deployed: Deployed) -> dict[str, Any]:
    application: dict[str, Any] = schema(deployed, 0)["applications"][0]
    args: dict[str, Any] = application["args"]
    return args


if __name__ == "__main__":
    sys.exit(main())
