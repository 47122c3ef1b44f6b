"""A rank's seat: a detached actor in a placement group. It holds the resources, readies the weights, starts the rank. No HTTP, no text.

The rank is a process of its own under the actor, as on one machine, and speaks with the pool's server over a socket that the seat opened:
nothing of a row goes through Ray. It ends with the seat (the system kills it). Where the server is gone it keeps its weights, and the seat
connects it to the next one, which Ray starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from holynb.errors import UserError
from holynb.pool.fit import Mesh, check_shapes, forecast, plan, read_spec
from holynb.pool.ray import node
from holynb.pool.ray.config import NAMESPACE, VERSION, RayConfig
from holynb.pool.server import Identity, PoolConfig, Service
from holynb.pool.server.config import RUNNER, bytecode_cache
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.prepare import weights_folder
from kernels_support.jupyter.supervisor import Child, Command, spawn, tail

__all__ = ["Seat", "folder_key"]

#: Longest time to reach the server, in seconds.
_CONNECT_S = 10.0
#: Longest single wait for a rank's end.
_WAIT_S = 30.0
#: How often a seat looks whether its pool's server is there, and how long it may be away: Ray restarts it within that.
_GUARD_S, _ORPHANED_S = 10.0, 90.0
#: What only the process that fetches the weights needs.
_FOR_FETCHING = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PIP_")


def folder_key(folder: Path) -> str:
    """A digest of what lies in a folder, by names, sizes and times: a model that changed is sent anew."""
    entries = [f"{p.relative_to(folder)}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in sorted(folder.rglob("*")) if p.is_file()]
    return hashlib.sha256("\n".join([str(folder), *entries]).encode()).hexdigest()[:16]


class Seat:
    """One rank's place. `number`: of the rank in the whole pool. Written by the actor's loop alone."""

    def __init__(self, config: RayConfig, number: int) -> None:
        self._config, self._number = config, number
        self._home = node.home(config.home)
        self._address: str = ray.util.get_node_ip_address()
        self._service = Service(Identity(config.name, config.model))
        self._child: Child | None = None
        self._guard: asyncio.Task[None] | None = None

    async def facts(self) -> dict[str, Any]:
        """Who and where it is."""
        context = ray.get_runtime_context()
        self._guard = self._guard or asyncio.create_task(self._watch_server())
        return {
            "node": context.get_node_id(),
            "address": self._address,
            "pid": os.getpid(),
            "device": self._device(),
            "version": VERSION,
            "pool": self._config.same,
        }

    async def _watch_server(self) -> None:
        """Give the resources back where nobody will: the server's actor was removed by somebody else's hand."""
        seen = time.monotonic()
        while time.monotonic() - seen < _ORPHANED_S:
            await asyncio.sleep(_GUARD_S)
            with contextlib.suppress(ValueError, ray.exceptions.RayError):
                await asyncio.to_thread(ray.get_actor, self._config.server, NAMESPACE)
                seen = time.monotonic()
        remove_placement_group(ray.util.get_current_placement_group())  # ends this actor and its rank, too

    async def meeting(self) -> str:
        """An address for the ranks of a replica to meet at; asked of its first."""
        return f"tcp://{self._address}:{node.free_port(self._address)}"

    async def prepare(self, key: str) -> dict[str, str]:
        """The folder of the model on this node: `folder`; `missing` where it is a path that is not here; or `error`. `key`: of one sent."""
        if key and (sent := node.received(self._home, key)).is_dir():
            return {"folder": str(sent)}
        config = self._config
        path = Path(config.model)
        if path.is_absolute() and not await asyncio.to_thread(path.exists):
            return {"missing": config.model}
        plain = PoolConfig(config.name, config.model, self._home)
        try:
            return {"folder": str(await weights_folder(plain, self._service, look=self._look))}
        except StartError as exc:
            return {"error": str(exc)}

    async def stage(self) -> tuple[str, float | None]:
        """How far `prepare` is."""
        return self._service.stage, self._service.share

    async def receive(self, key: str, name: str, offset: int, data: bytes) -> None:
        """A piece of the model, which is sent to this node."""
        await asyncio.to_thread(node.write_piece, node.received(self._home, f"{key}part"), name, offset, data)

    async def receive_done(self, key: str) -> None:
        """All pieces are here."""
        with contextlib.suppress(OSError):  # another seat of this node was quicker
            node.received(self._home, f"{key}part").rename(node.received(self._home, key))

    async def pieces(self, folder: str) -> list[tuple[str, int, int]]:
        """The model's folder in pieces, where this node sends it to another."""
        return await asyncio.to_thread(node.pieces, Path(folder))

    async def piece(self, folder: str, name: str, offset: int, size: int) -> bytes:
        """One of them."""

        def read() -> bytes:
            with (Path(folder) / name).open("rb") as file:
                file.seek(offset)
                return file.read(size)

        return await asyncio.to_thread(read)

    async def card(self, folder: str) -> dict[str, bytes]:
        """The files of the model that are no weights: the server tokenizes."""
        return await asyncio.to_thread(node.card, Path(folder))

    async def forecast(self, folder: str, beside: int) -> tuple[str, str] | str | None:
        """How the model fits here: a line and details; an error; None where it cannot be known. `beside`: our ranks on this node."""
        return await self._forecast(Path(folder), beside)

    async def _look(self, folder: Path) -> None:
        """Before the weights are fetched. Raises StartError where they cannot fit."""
        if isinstance(why := await self._forecast(folder, 1, whole=False), str):
            raise StartError(why)

    async def _forecast(self, path: Path, beside: int, *, whole: bool = True) -> tuple[str, str] | str | None:
        config, mesh = self._config, Mesh(self._config.tp, self._config.pp)
        if config.runner != RUNNER:
            return None
        devices = ["cpu"] * beside if not config.gpu else [self._device()]

        def look() -> tuple[str, str] | None:
            if whole:
                check_shapes(path, plan.with_kv(read_spec(path), config.kv))
            fit = forecast(path, devices, dtype=config.dtype, max_len=config.max_len, share=config.memory, mesh=mesh, kv=config.kv)
            return None if fit is None else (fit.loading, fit.details)

        try:
            return await asyncio.to_thread(look)
        except UserError as exc:
            return str(exc)

    async def begin(self, server: tuple[str, int], hello: bytes, *, shared: bool) -> int:
        """Start the rank, connected to the server, and return its process id. `shared`: all ranks of its replica are on this address."""
        await self.end()
        self._child = spawn(self._command(shared=shared), bound=True)
        return await self.hand(server, hello)

    async def hand(self, server: tuple[str, int], hello: bytes) -> int:
        """Connect the rank to this server, its first or the next one, and return its process id. Raises OSError where it is gone."""
        child = self._child
        if child is None or not child.alive or child.control is None:
            raise OSError("its rank does not run")
        with await asyncio.to_thread(socket.create_connection, server, _CONNECT_S) as sock:
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a step is one small frame
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.sendall(hello)
            socket.send_fds(child.control, [b"s"], [sock.fileno()])
        return child.pid

    def _command(self, *, shared: bool) -> Command:
        config = self._config
        argv = [
            sys.executable,
            "-P",
            "-m",
            "holynb.pool.worker",
            "--tag",
            f"holynb-pool:{config.name}",
            "--runner",
            config.runner,
            "--handed",
        ]
        log = self._log()
        log.unlink(missing_ok=True)
        # As in `server/config.py`: spinning threads starve what shares their cores, and each start would compile torch's Python.
        env = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"} | bytecode_cache(self._home)
        if not config.gpu:
            env["OMP_NUM_THREADS"] = str(config.cpus)
        if config.size > 1 and (name := node.interface("127.0.0.1" if shared else self._address)):
            env |= {variable: os.environ.get(variable, name) for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
        inherits = {name: value for name, value in os.environ.items() if not name.startswith(_FOR_FETCHING)}
        return Command(argv, env=env, inherits=inherits, log=log)

    async def wait(self) -> tuple[int, list[str]]:
        """The rank's end: its exit code and the last lines of its log."""
        while self._child is not None and self._child.alive:
            await asyncio.to_thread(self._child.wait, _WAIT_S)
        return (0, []) if self._child is None else (self._child.code or 0, self._child.tail(3))

    async def end(self) -> None:
        """End the rank now; the seat stays."""
        if self._child is not None and self._child.alive:
            await asyncio.to_thread(self._child.kill)

    async def log(self, lines: int) -> list[str]:
        """The last lines of the rank's log."""
        return await asyncio.to_thread(tail, self._log(), lines)

    async def clear(self) -> None:
        """Remove what an interrupted sending left."""
        for folder in self._home.glob("models/sent-*part"):
            await asyncio.to_thread(shutil.rmtree, folder, True)

    def _log(self) -> Path:
        return self._home / "logs" / f"pool-{self._config.name.replace('/', '_')}.rank{self._number}.log"

    def _device(self) -> str:
        """The device as the rank names it: with `_NOSET`, all GPUs of the node are visible, so that ranks reach each other's memory."""
        if not self._config.gpu:
            return "cpu"
        (number,) = ray.get_gpu_ids()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return f"cuda:{visible.split(',').index(str(number)) if visible else number}"
