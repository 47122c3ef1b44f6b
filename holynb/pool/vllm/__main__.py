"""Main of a pool whose model runs in a vLLM that the user has in an environment of its own. Starts it, passes its words on, and leaves nothing.

`python -m holynb.pool.vllm … --python PATH` takes the options of `holynb.pool.server`. Tried with vLLM 0.32 (CPU build).
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holynb.pool.fit import memory
from holynb.pool.models import embedded
from holynb.pool.protocol import RankStats
from holynb.pool.server import Identity, PoolConfig, ReplicaStats, StartError, lifecycle, plan_of, weights_folder
from holynb.pool.vllm import reaper, upstream
from holynb.pool.vllm.relay import Lodger, relay
from holynb.pool.vllm.upstream import UpstreamError
from holynb.pool.vllm.words import progress, reason, stats
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Child, Command, spawn

__all__ = ["Tenancy", "Tenant", "command", "main"]

#: Seconds between two looks at a vLLM that starts, and at the figures of one that serves.
_LOOK, _STATS = 0.2, 1.0
#: Seconds in which a page must be there, and without any page after which a vLLM that runs is taken for hung.
_PAGE_S, _SILENT_S = 5.0, 30.0
#: Seconds in which a broken connection is followed by the end of the process, where that was the reason.
_MOMENT = 3.0
#: What is said to vLLM by environment: it reports its use to nobody unless the user says so, and on CPU takes 4 GiB of cache.
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "4", "PYTHONUNBUFFERED": "1"}


class Tenant(Lodger):
    """vLLM as a service of ours: one process and its children, under a leash."""

    def __init__(self, plan: PoolConfig) -> None:
        super().__init__(Identity(plan.name, plan.model))
        self.served = plan.name
        self.child: Child | None = None
        self._engines: list[ReplicaStats] = []

    def open_there(self, max_len: int | None) -> None:
        """It answers: from now on requests go on to it."""
        self.max_len, self.state, self.stage, self.share = max_len or 0, "ready", "ready", None
        self._settled.set()

    def hear(self, said: list[ReplicaStats]) -> None:
        """Its own figures, as ours."""
        self._engines = said
        self.metrics.tokens_in, self.metrics.tokens_out = (
            sum(one.get("tokens_in", 0) for one in said),
            sum(one.get("tokens_out", 0) for one in said),
        )

    def stats(self) -> list[ReplicaStats]:
        """One for each engine of a data-parallel vLLM; the first has the memory of all devices."""
        return list(self._engines)

    def health(self) -> dict[str, Any]:
        return {**super().health(), "engine": "vllm"}

    async def fate(self) -> str | None:
        child = self.child
        if child is None or not await asyncio.to_thread(child.wait, _MOMENT):
            return None
        return ended(child)


def ended(child: Child) -> str:
    """How vLLM ended, with the words of its log that say why."""
    return f"vLLM {child.how()}. {reason(child.tail(400))}"


def command(python: str, model: str, plan: PoolConfig, socket: Path) -> list[str]:
    """The command line of a vLLM server on a Unix socket, which no other user of the machine reaches. Options as of 0.32."""
    argv = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--uds", str(socket), "--served-model-name", plan.name]
    for flag, value in (
        ("--tensor-parallel-size", plan.tp),
        ("--pipeline-parallel-size", plan.pp),
        ("--data-parallel-size", plan.dp),
    ):
        argv += [flag, str(value)] if value > 1 else []
    argv += ["--dtype", plan.dtype] if plan.dtype else []
    argv += ["--max-model-len", str(plan.max_len)] if plan.max_len else []
    return argv if "cpu" in plan.devices else [*argv, "--gpu-memory-utilization", str(plan.memory)]


class Tenancy:
    """vLLM's stay, as what computes in a pool (`lifecycle.PoolBackend`)."""

    def __init__(self, plan: PoolConfig, tenant: Tenant, record: Record, python: str) -> None:
        self.record = replace(record, facts={**record.facts, "engine": "vllm"})
        self._plan, self._tenant, self._python = plan, tenant, python

    async def start(self) -> None:
        """Until vLLM ends. Raises StartError where it never answers."""
        plan, tenant = self._plan, self._tenant
        tenant.socket = Path(str(self.record.socket)).with_name("v")
        model = plan.model
        if re.search(r"\.gguf$", model) or model == embedded.NAME:  # what only we know how to make ready
            model = str(await weights_folder(plan, tenant))
        tenant.at("starting vLLM")
        child = tenant.child = self._spawn(model)
        await self._until_ready(child)
        heard = time.monotonic()
        while child.alive:
            self._write(child)
            if await self._figures(child):
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENT_S:
                # It keeps its socket open: its rows would wait for ever.
                tenant.fail(f"vLLM gave no sign of life for {_SILENT_S:g} s: it was stopped, or hung, and is ended")
                return
            await asyncio.sleep(_STATS)
        await asyncio.sleep(0)  # rows that broke off ask for its fate first
        tenant.fail(ended(child))

    async def bury(self) -> None:
        """End it and all that it started."""
        if (child := self._tenant.child) is not None:
            await asyncio.to_thread(child.stop, grace=6.0)
            await asyncio.to_thread(reaper.sweep, child.pid)

    def _spawn(self, model: str) -> Child:
        plan = self._plan
        log = plan.log(0)
        log.unlink(missing_ok=True)
        program = command(self._python, model, plan, self._tenant.socket)
        argv = [sys.executable, "-P", "-m", "holynb.pool.vllm.reaper", "--tag", plan.tag, "--", *program]
        env = {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
        if "cpu" not in plan.devices:
            seen = [w.strip() for w in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if w.strip()]
            numbers = [int(d.removeprefix("cuda:")) for d in plan.devices]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(seen[n] if n < len(seen) else str(n) for n in numbers)
        return spawn(Command(argv, env=env, log=log, cwd=self._tenant.socket.parent), bound=True)

    async def _until_ready(self, child: Child) -> None:
        """Wait until it answers; its log is the progress. Raises StartError."""
        while child.alive:
            self._tenant.at(*progress(child.tail(40)))
            try:
                reply = await upstream.ask(self._tenant.socket, "GET", "/health")
                reply.close()
                if reply.status == 200:
                    await self._figures(child)
                    self._tenant.open_there(await self._longest())
                    lifecycle.say(f"ready: {self._plan.name} serves {self._plan.model} by vLLM on {', '.join(self._plan.devices)}")
                    return
            except UpstreamError:
                pass
            await asyncio.sleep(_LOOK)
        raise StartError(ended(child))

    async def _longest(self) -> int | None:
        said = await self._get("/v1/models")
        found = re.search(r'"max_model_len": ?(\d+)', said)
        return int(found[1]) if found else None

    async def _figures(self, child: Child) -> bool:
        """Hear its figures. Whether there was a page at all."""
        page = await self._get("/metrics")
        if engines := stats(page):
            engines[0]["ranks"] = await asyncio.to_thread(_memory, self._plan.devices, child.pid)
            self._tenant.hear(engines)
        return bool(page)

    async def _get(self, target: str) -> str:
        """A page of vLLM's; empty where it does not answer."""
        try:
            async with asyncio.timeout(_PAGE_S):
                reply = await upstream.ask(self._tenant.socket, "GET", target)
                try:
                    return (await reply.read()).decode("utf-8", "replace")
                finally:
                    reply.close()
        except (UpstreamError, TimeoutError):
            return ""

    def _write(self, child: Child) -> None:
        """All of its processes are in the record, so that whoever finds it stale can end them."""
        ranks = tuple(reaper.members(child.pid))
        if ranks != self.record.ranks and rendezvous.find(self._plan.run, self._plan.name) is not None:
            self.record = replace(self.record, ranks=ranks)
            rendezvous.write(self._plan.run, self.record)


def _memory(devices: Sequence[str], session: int) -> list[RankStats]:
    """What each device has, and what vLLM's processes hold of it, as ranks say it."""
    pids = [p.pid for p in reaper.members(session)]
    found = [memory.held(d, pids) for d in dict.fromkeys(devices)]
    return [{"device": m.device, "memory_total": m.total, "memory_used": m.used, "memory_ours": m.ours} for m in found]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--python")
    python = words[at + 1]
    plan = plan_of(words[:at] + words[at + 2 :])
    tenant = Tenant(plan)
    return lifecycle.run(plan, tenant, relay(tenant), lambda record: Tenancy(plan, tenant, record, python))


if __name__ == "__main__":
    sys.exit(main())
