"""A Ray cluster of several raylets on this machine, on loopback, in a process of its own: a test talks with it in lines of JSON.

`RayCluster(nodes)` starts it: node 0 is the head, without CPUs. Its processes end with it, also where the test is killed.
With `gpus`, each node has those of these numbers, whether the machine has such or not: Ray counts what it is told.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
#: The head's address and those of its nodes: Ray takes 127.0.0.1 for the machine's outer address, and others of loopback as they are.
ADDRESS = "127.0.0.{}"


#: Of a node's agents.
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def free_ports(address: str, count: int) -> list[int]:
    """Ports of this address that nobody uses now."""
    with contextlib.ExitStack() as held:
        socks = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind((address, 0))
        return [sock.getsockname()[1] for sock in socks]


def have_ray() -> bool:
    return importlib.util.find_spec("ray") is not None and importlib.util.find_spec("grpc") is not None


class RayCluster:
    """A cluster and its client port. `home`: where its nodes have their HOLYNB_HOME, `node1` and so on; `env`: what they have besides. `HIDDEN` there: a folder that is
    empty for them, as on another machine, where the system lets us (`hides`)."""

    def __init__(self, nodes: int = 2, cpus: int = 2, home: Path | None = None, gpus: Sequence[Sequence[int]] = (), **env: str) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # socket paths are short
        self.home = home or self._place / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(ADDRESS.format(2), 1)
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        own = {"PYTHONPATH": paths, "HOLYNB_HOME": str(self.home), "RAY_TMPDIR": str(self._place), "RAY_USAGE_STATS_ENABLED": "0"}
        # A machine with other work takes longer than Ray waits.
        own |= {
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_worker_register_timeout_seconds": "300",
            "RAY_DEDUP_LOGS": "0",
            "OMP_NUM_THREADS": "1",
            **env,
        }
        self._env = {**os.environ, **own}
        self._command = [sys.executable, "-W", "ignore", __file__, str(nodes), str(cpus), str(self.port), json.dumps([*map(list, gpus)])]
        try:
            first = self._begin()
        except RuntimeError:
            # A raylet gives up where its agent takes more than 30 s to load, as on a machine that does much else.
            self._end_processes()
            first = self._begin()
        self.raylets: list[int] = first["raylets"]
        self.hides: bool = first["value"]

    def _begin(self) -> Any:
        """Start it. Raises RuntimeError with its last words."""
        with (self._place / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        return self._answer()

    @property
    def on(self) -> str:
        return f"ray://{ADDRESS.format(2)}:{self.port}"

    def do(self, word: str, **more: Any) -> Any:
        """Have it do something, and its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": word, **more}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.raylets = answer["raylets"]
        return answer.get("value")

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                return json.loads(line)
        raise RuntimeError((self._place / "log").read_text("utf-8", "replace")[-3000:])

    def processes(self) -> list[psutil.Process]:
        """Everything that the cluster runs, raylets and workers."""
        out = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == str(self._place):
                    out.append(process)
        return out

    def named(self, word: str) -> list[psutil.Process]:
        """Of these, those whose command line has this word."""
        out = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    out.append(process)
        return out

    def wait_gone(self, word: str, seconds: float = 20.0) -> None:
        """Wait until no process has this word."""
        until = time.monotonic() + seconds
        while left := self.named(word):
            assert time.monotonic() < until, [p.cmdline() for p in left]
            time.sleep(0.1)

    def end(self) -> None:
        self._end_processes()
        shutil.rmtree(self._place, ignore_errors=True)

    def _end_processes(self) -> None:
        family: list[psutil.Process] = []  # Ray's agents write over what their environment was, and outlive their raylet for a while
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._process.pid).children(recursive=True)
        for process in (*family, *self.processes()):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        for process in (self._process, *family, *self.processes()):
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                process.kill()
        self._process.wait(20)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def hide(folder: str) -> bool:
    """Lay an empty folder over this one, for this process and its children alone. Whether that is allowed here."""
    libc = ctypes.CDLL(None, use_errno=True)
    own_mounts, private = 0x20000, (1 << 18) | (1 << 14)
    return not (
        libc.unshare(own_mounts)
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None)
    )


def be_patient(seconds: float = 240.0) -> None:
    """Have Ray wait for a machine that does much else: its own limits of 15 and 30 s are fixed.

    A raylet ends where it does not soon find its agents' ports: they are chosen and written down here for it. Whoever starts a node gives
    up where it is not soon in the cluster's list.
    """
    from ray._private import services

    start_raylet, get_node = services.start_raylet, services.get_node

    def with_ports(*args: Any, **more: Any) -> Any:
        given = inspect.signature(start_raylet).bind(*args, **more).arguments
        for name, port in zip(AGENT_PORTS, free_ports(given["node_ip_address"], len(AGENT_PORTS)), strict=True):
            given[name] = port
            Path(given["session_dir"], f"{name}_{given['node_id']}").write_text(str(port), "ascii")
        return start_raylet(**given)

    def waits(*args: Any) -> Any:
        until = time.monotonic() + seconds
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    services.start_raylet, services.get_node = with_ports, waits


def wait_answers(address: str, port: int, seconds: float) -> None:
    """Wait until somebody listens there: clients are taken by a process that comes last."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), 5).close()
        if time.monotonic() > until:
            raise TimeoutError(f"nobody listens at {address}:{port}")
        time.sleep(0.2)


def devices(numbers: Sequence[int]) -> dict[str, Any]:
    """A node's GPUs, and no others for what runs there."""
    return {"num_gpus": len(numbers), "env_vars": {"CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers))}} if numbers else {}


def main(count: int, cpus: int, port: int, gpus: Sequence[Sequence[int]]) -> None:
    """The cluster's own process."""
    hides = hide(os.environ["HIDDEN"]) if "HIDDEN" in os.environ else False
    be_patient()
    from ray.cluster_utils import Cluster

    homes = Path(os.environ["HOLYNB_HOME"])

    def sizes(number: int) -> dict[str, Any]:
        os.environ["HOLYNB_HOME"] = str(homes / f"node{number}")  # what the node is started with
        address = ADDRESS.format(number + 2)
        return {"object_store_memory": 80 * 2**20, "include_dashboard": False, "node_ip_address": address}

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "ray_client_server_port": port, **sizes(0)})
    nodes: list[Any] = [cluster.head_node]
    numbers = [*gpus, *([[]] * (count - len(gpus)))]
    nodes += [cluster.add_node(wait=False, num_cpus=cpus, **devices(own), **sizes(n)) for n, own in enumerate(numbers, 1)]
    cluster.wait_for_nodes(240)
    wait_answers(ADDRESS.format(2), port, 240)

    def tell(value: Any = None) -> None:
        raylets = [n.all_processes["raylet"][0].process.pid if n is not None and "raylet" in n.all_processes else 0 for n in nodes]
        print(json.dumps({"raylets": raylets, "value": value}), flush=True)

    tell(hides)
    for line in sys.stdin:
        wish = json.loads(line)
        if wish["do"] == "add":
            nodes.append(cluster.add_node(num_cpus=cpus, **devices(wish.get("gpus", ())), **sizes(len(nodes))))
        elif wish["do"] == "remove":
            node, nodes[wish["node"]] = nodes[wish["node"]], None
            cluster.remove_node(node, allow_graceful=False)
        tell()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), json.loads(sys.argv[4]))
