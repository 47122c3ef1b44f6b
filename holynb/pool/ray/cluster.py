"""The cluster as a client meets it: connected, its versions, its nodes, the pool's server there. Every way it can refuse is one line."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from holynb.pool.ray import placement
from holynb.pool.ray.config import NAMESPACE, VERSION, ClusterRefusal, RayConfig
from holynb.pool.ray.placement import ClusterNode
from holynb.pool.ray.seat import folder_key

__all__ = ["ClusterRefusal", "cluster", "connect", "divided", "obtain", "with_devices"]

#: How long an address may take to answer at all.
_ANSWER_S = 5.0
#: How often a cluster is asked that is too busy to take a client, as Ray says it.
_TRIES, _BUSY = 4, ("Starting Ray client server failed", "Proxy failed to Connect to backend", "in start_specific_server")
#: Ray's resource that its head node alone has, and the least of it that can be asked for: 10,000 pools have one server each there.
_HEAD, _LEAST = "node:__internal_head__", 0.0001
#: How long a server that runs already may take to answer, and to come again where it is just being started.
_RENEWED_S, _AGAIN_S = 30.0, 60.0


def connect(address: str, packages: Mapping[str, Any] | None = None) -> None:
    """Connect this process to the cluster. `packages`: of a runtime_env, folders of this machine that go there. Raises ClusterRefusal."""
    if address != "auto":
        _check_answers(address)
    for left in reversed(range(_TRIES)):
        try:
            more = {"runtime_env": dict(packages)} if packages else {}
            ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **more)
        except (RuntimeError, ConnectionError, ValueError, RayError, OSError) as exc:
            # The cluster starts a process for each client, within 30 s; where its machine is busy the next one is quicker.
            if left and any(words in str(exc) for words in _BUSY) and "runtime_env" not in str(exc):
                ray.shutdown()
                continue
            if packages and isinstance(exc, ValueError | OSError) and not isinstance(exc, ConnectionError):
                raise ClusterRefusal(f"--runtime-env is not taken: {' '.join(str(exc).split())[:300]}") from exc
            raise ClusterRefusal(_why_not(address, exc)) from exc
        return


def divided(runtime_env: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a runtime_env is sent when a client connects (folders of this machine; the pool's actors get them from it), and the rest."""

    def local(value: Any) -> bool:
        return any(isinstance(one, str) and "://" not in one for one in (value if isinstance(value, list) else [value]))

    names = {name for name in ("working_dir", "py_modules") if name in runtime_env and local(runtime_env[name])}
    names |= {"excludes"} & set(runtime_env) if names else set()
    return {n: runtime_env[n] for n in names}, {n: v for n, v in runtime_env.items() if n not in names}


def _check_answers(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ClusterRefusal(f"--on takes ray, ray://HOST:PORT (Ray's client port, 10001 as a rule) or HOST:PORT, not {address}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as exc:
        raise ClusterRefusal(
            f"No Ray cluster answers at {address} ({exc.strerror or 'no answer'}). Is it running, and reached from here?"
        ) from exc


def _why_not(address: str, exc: Exception) -> str:
    whole = str(exc).strip()
    # Of a traceback from the cluster the last line says what it was.
    text = whole.splitlines()[-1].strip() if "Traceback (most recent call last)" in whole else " ".join(whole.split())
    if "ersion" in text and ("mismatch" in text.lower() or "different" in text.lower()):
        return f"The cluster at {address} is of another version: {text[:300]} Install the same Ray and Python minor as the cluster has."
    if address == "auto":
        return "No Ray cluster runs on this machine. Start one (ray start --head), or name one: --on ray://HOST:10001."
    return f"The Ray cluster at {address} cannot be used: {text[:300]}"


def cluster() -> list[ClusterNode]:
    """The nodes that are alive."""
    return placement.nodes(ray.nodes())


def obtain(config: RayConfig) -> tuple[RayConfig, Any]:
    """The pool's server: that which runs already, where it is the same pool, or a new one. Raises ClusterRefusal."""
    try:
        server = ray.get_actor(config.server, NAMESPACE)
    except ValueError:
        if config.attach:
            raise ClusterRefusal(f"there is no pool {config.name} in the cluster at {config.address} any more.") from None
        return _create(config)
    there = _renewed(server)["config"]
    if there.same[:1] != config.same[:1]:
        raise ClusterRefusal(f"a pool named {config.name} is already running there, {there.model}. Choose another --name.")
    # What this machine was not told is as it is there: another machine finds the pool by its name.
    if (there.dp, there.tp, there.pp) != (config.dp, config.tp, config.pp) and (config.dp, config.tp, config.pp) != ((1, 1), 1, 1):
        raise ClusterRefusal(f"the pool {config.name} is already running there, as {there.flags}. Choose another --name, or stop it first.")
    return there, server


def _renewed(server: Any) -> Any:
    """What a server says that was found, also where Ray is just starting it again. Raises RayError."""
    until = time.monotonic() + _AGAIN_S
    while True:
        try:
            return ray.get(server.renew.remote(), timeout=_RENEWED_S)
        except ActorUnavailableError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.5)


def _create(config: RayConfig) -> tuple[RayConfig, Any]:
    nodes = cluster()
    if not config.wait and (why := placement.refusal(config, nodes)) is not None:
        raise ClusterRefusal(why)
    print(placement.where(config, nodes), flush=True)
    from holynb.pool.ray.server import PoolServer

    folder = Path(config.model)
    key = folder_key(folder) if folder.is_absolute() and folder.is_dir() else ""
    options: dict[str, Any] = {"runtime_env": dict(config.runtime_env)} if config.runtime_env else {}
    if any(n["Alive"] and _HEAD in n["Resources"] for n in ray.nodes()):
        # The node without which there is no cluster: the server goes with no other. An affinity would not do: a soft one does not hold
        # when Ray starts an actor again, and a hard one ends it where the head comes again as another node.
        options["resources"] = {_HEAD: _LEAST}
    server = (
        ray.remote(PoolServer)
        .options(
            name=config.server,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,  # two clients may start it at once
            max_restarts=-1,
            max_concurrency=16,
            num_cpus=0,
            **options,
        )
        .remote(config, key)
    )
    try:
        return ray.get(server.renew.remote(), timeout=120)["config"], server
    except (RayError, TimeoutError) as exc:
        raise ClusterRefusal(f"the pool's server does not start on the cluster: {_module(exc)}") from exc


def _module(exc: BaseException) -> str:
    text = str(exc)
    if named := re.search(r"No module named '([\w.]+)'", text):
        name = named[1].partition(".")[0]
        own = f"holynb[local,ray] @ file:///PATH/holynb-{VERSION}-py3-none-any.whl"  # holynb is on no package index
        pip, what = (own, "its wheel with [local,ray]") if name == "holynb" else (name, name)
        return f'its nodes lack {name}. Install {what} there, or: --runtime-env \'{{"pip": ["{pip}"]}}\''
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else type(exc).__name__)[:300]


def with_devices(config: RayConfig, word: str) -> RayConfig:
    """The config on CPUs or GPUs: as `word` says, or where the cluster has a GPU."""
    return replace(config, gpu=word == "gpu" or (word == "auto" and any(n.gpus for n in cluster())))


os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
