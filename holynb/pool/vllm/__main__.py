"""Main of a pool whose model runs in a vLLM of the user's own environment: starts it, reports its progress and stats, ends it.

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
from holynb.pool.modelfiles import read_text
from holynb.pool.models import embedded
from holynb.pool.protocol import RankStats
from holynb.pool.server import Identity, PoolConfig, ReplicaStats, lifecycle, parse_args
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.prepare import weights_folder
from holynb.pool.server.tokenizer_files import TokenizerFileError, template_source
from holynb.pool.vllm import reaper, upstream
from holynb.pool.vllm.output import progress, reason, stats
from holynb.pool.vllm.relay import RelayService, relay
from holynb.pool.vllm.upstream import UpstreamError
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Child, Command, spawn

__all__ = ["VllmProcess", "VllmService", "main", "reasoning_parser", "vllm_command"]

#: Seconds between two polls of a vLLM that starts, and of the metrics of one that serves.
_START_POLL_S, _STATS_POLL_S = 0.2, 1.0
#: Timeout of one page, and seconds without any page after which a vLLM that runs is considered hung.
_PAGE_TIMEOUT_S, _HUNG_S = 5.0, 30.0
#: Seconds within which the process ends after a broken connection, where its end was the reason.
_EXIT_GRACE_S = 3.0
#: The largest tokenizers have 40 MB.
_MAX_TOKENIZER_BYTES = 256_000_000
#: Defaults of vLLM's environment: no usage reports unless the user sets them, and 4 GiB of KV cache on CPU.
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "4", "PYTHONUNBUFFERED": "1"}


class VllmService(RelayService):
    """The pool's state over one vLLM process."""

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(Identity(config.name, config.model))
        self.served_model = config.name
        self.child: Child | None = None
        self._engines: list[ReplicaStats] = []

    def set_serving(self, max_len: int | None) -> None:
        """Called once vLLM answers: from now on requests are relayed to it."""
        self.max_len, self.state, self.stage, self.share = max_len or 0, "ready", "ready", None
        self._settled.set()

    def update_stats(self, engines: list[ReplicaStats]) -> None:
        self._engines = engines
        self.metrics.tokens_in, self.metrics.tokens_out = (
            sum(one.get("tokens_in", 0) for one in engines),
            sum(one.get("tokens_out", 0) for one in engines),
        )

    def stats(self) -> list[ReplicaStats]:
        """One per engine of a data-parallel vLLM; the first one has the memory of all devices."""
        return list(self._engines)

    def health(self) -> dict[str, Any]:
        return {**super().health(), "engine": "vllm"}

    async def exit_reason(self) -> str | None:
        child = self.child
        if child is None or not await asyncio.to_thread(child.wait, _EXIT_GRACE_S):
            return None
        return end_reason(child)


def end_reason(child: Child) -> str:
    """How vLLM ended, with the reason from its log."""
    return f"vLLM {child.how()}. {reason(child.tail(400))}"


def vllm_command(python: str, model: str, config: PoolConfig, socket: Path) -> list[str]:
    """The command line of a vLLM server on a Unix socket, which no other user of the machine can reach. Options as of 0.32."""
    argv = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--uds", str(socket), "--served-model-name", config.name]
    for flag, value in (
        ("--tensor-parallel-size", config.tp),
        ("--pipeline-parallel-size", config.pp),
        ("--data-parallel-size", config.dp),
    ):
        argv += [flag, str(value)] if value > 1 else []
    argv += ["--dtype", config.dtype] if config.dtype else []
    argv += ["--kv-cache-dtype", config.kv] if config.kv else []
    argv += ["--max-model-len", str(config.max_len)] if config.max_len else []
    parser = reasoning_parser(Path(model))
    argv += ["--reasoning-parser", parser] if parser else []
    return argv if "cpu" in config.devices else [*argv, "--gpu-memory-utilization", str(config.memory)]


def reasoning_parser(folder: Path) -> str | None:
    """VLLM's parser for what this model thinks, by which it also holds a budget; None for a folder of which that is not certain.

    Those of tags need the tags to be tokens. What no parser takes out, the relay does, where it stands at the head of an answer.
    """
    try:
        template, tokens = template_source(folder) or "", folder / "tokenizer.json"
        named = tokens.is_file() and '"</think>"' in read_text(tokens, _MAX_TOKENIZER_BYTES)
    except (TokenizerFileError, ValueError, OSError):
        return None
    if "<|channel|>" in template:
        return "openai_gptoss"
    if not named or not ("<think>" in template or "</think>" in template):
        return None
    return "qwen3" if "enable_thinking" in template else "deepseek_r1"


class VllmProcess:
    """A vLLM process and its children (a `lifecycle.PoolBackend`)."""

    def __init__(self, config: PoolConfig, service: VllmService, record: Record, python: str) -> None:
        self.record = replace(record, facts={**record.facts, "engine": "vllm"})
        self._config, self._service, self._python = config, service, python

    async def start(self) -> None:
        """Runs until vLLM ends. Raises StartError where it never answers."""
        config, service = self._config, self._service
        service.socket = Path(str(self.record.socket)).with_name("v")
        model = config.model
        if re.search(r"\.gguf$", model) or model == embedded.NAME:  # models that only holynb can prepare
            model = str(await weights_folder(config, service, kept=False))
        service.set_stage("starting vLLM")
        child = service.child = self._spawn(model)
        await self._until_ready(child)
        last_page_at = time.monotonic()
        while child.alive:
            self._write_record(child)
            if await self._poll_stats(child):
                last_page_at = time.monotonic()
            elif time.monotonic() - last_page_at > _HUNG_S:
                # It keeps its socket open: rows would wait for ever.
                service.fail(f"vLLM did not respond for {_HUNG_S:g} s (stopped or hung), and is ended")
                return
            await asyncio.sleep(_STATS_POLL_S)
        await asyncio.sleep(0)  # rows that broke off read `exit_reason` first
        service.fail(end_reason(child))

    async def stop(self) -> None:
        """End vLLM and all of its children."""
        if (child := self._service.child) is not None:
            await asyncio.to_thread(child.stop, grace=6.0)
            await asyncio.to_thread(reaper.kill_session, child.pid)

    def _spawn(self, model: str) -> Child:
        config = self._config
        log = config.log(0)
        log.unlink(missing_ok=True)
        program = vllm_command(self._python, model, config, self._service.socket)
        argv = [sys.executable, "-P", "-m", "holynb.pool.vllm.reaper", "--tag", config.tag, "--", *program]
        env = {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
        if "cpu" not in config.devices:
            visible = [w.strip() for w in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if w.strip()]
            numbers = [int(d.removeprefix("cuda:")) for d in config.devices]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(visible[n] if n < len(visible) else str(n) for n in numbers)
        return spawn(Command(argv, env=env, log=log, cwd=self._service.socket.parent), bound=True)

    async def _until_ready(self, child: Child) -> None:
        """Wait until vLLM answers; its log gives the stage. Raises StartError."""
        while child.alive:
            self._service.set_stage(*progress(child.tail(40)))
            try:
                reply = await upstream.request(self._service.socket, "GET", "/health")
                reply.close()
                if reply.status == 200:
                    await self._poll_stats(child)
                    self._service.set_serving(await self._max_model_len())
                    lifecycle.log(f"ready: {self._config.name} serves {self._config.model} by vLLM on {', '.join(self._config.devices)}")
                    return
            except UpstreamError:
                pass
            await asyncio.sleep(_START_POLL_S)
        raise StartError(end_reason(child))

    async def _max_model_len(self) -> int | None:
        page = await self._get("/v1/models")
        match = re.search(r'"max_model_len": ?(\d+)', page)
        return int(match[1]) if match else None

    async def _poll_stats(self, child: Child) -> bool:
        """Read vLLM's metrics. Returns whether there was a page."""
        page = await self._get("/metrics")
        if engines := stats(page):
            engines[0]["ranks"] = await asyncio.to_thread(_memory, self._config.devices, child.pid)
            self._service.update_stats(engines)
        return bool(page)

    async def _get(self, target: str) -> str:
        """A page of vLLM's server; empty where it does not answer."""
        try:
            async with asyncio.timeout(_PAGE_TIMEOUT_S):
                reply = await upstream.request(self._service.socket, "GET", target)
                try:
                    return (await reply.read()).decode("utf-8", "replace")
                finally:
                    reply.close()
        except (UpstreamError, TimeoutError):
            return ""

    def _write_record(self, child: Child) -> None:
        """Put all of vLLM's processes into the rendezvous file, so that a client that finds it stale can end them."""
        ranks = tuple(reaper.members(child.pid))
        if ranks != self.record.ranks and rendezvous.find(self._config.run, self._config.name) is not None:
            self.record = replace(self.record, ranks=ranks)
            rendezvous.write(self._config.run, self.record)


def _memory(devices: Sequence[str], session: int) -> list[RankStats]:
    """The memory of each device, and vLLM's share of it, as ranks report it."""
    pids = [p.pid for p in reaper.members(session)]
    usage = [memory.device_memory_of(d, pids) for d in dict.fromkeys(devices)]
    return [{"device": m.device, "memory_total": m.total, "memory_used": m.used, "memory_ours": m.ours} for m in usage]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    index = args.index("--python")
    python = args[index + 1]
    config = parse_args(args[:index] + args[index + 2 :])
    service = VllmService(config)
    return lifecycle.run(config, service, relay(service), lambda record: VllmProcess(config, service, record, python))


if __name__ == "__main__":
    sys.exit(main())
