"""The engine of one rank: plan a step, run it, read it back. Owns the scheduler, the weights and the cache; knows no sockets.

A worker's loop is `while not runner.idle: emits = runner.step()`.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.computetype import compute_dtype
from holynb.pool.engine.constrained import GrammarCompiler
from holynb.pool.engine.embedder import Embedder
from holynb.pool.engine.executor import StepExecutor, executor_for, first_steps
from holynb.pool.engine.figures import batch_figures
from holynb.pool.engine.libraries import load_libraries
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.sequence import Step
from holynb.pool.engine.speculation import Speculation
from holynb.pool.fit import BLOCK_TOKENS, Mesh, cache_groups, cpus, device_memory, plan, read_spec
from holynb.pool.protocol import Emit, Job, JobRunner, RankStats, job_from, job_values
from kernels_support.jupyter import shortage

if TYPE_CHECKING:
    from holynb.pool.engine.group import Group
    from holynb.pool.engine.load import TensorSource
    from holynb.pool.engine.precompile import Precompiler

__all__ = ["Runner"]

#: How long a step with nothing else to do waits for a grammar.
_GRAMMAR_WAIT_S = 0.05


class Runner(JobRunner):
    """Jobs in, tokens out, one step at a time. Not thread-safe.

    `device`: cpu or cuda:N. `dtype`: None is float32 on CPU and the weights' own on a GPU. `memory`: the share of the device's memory
    for weights, cache and activations together. `kv`: fp8 for a cache of eight bits. `source`: weights from elsewhere than `folder`.
    Raises UserError (unknown model, sizes) and FileNotFoundError.
    """

    prepare = staticmethod(load_libraries)

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        max_len: int | None = None,
        memory: float = 0.9,
        mesh: Mesh | None = None,
        kv: str | None = None,
        source: TensorSource | None = None,
    ) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see `libraries`
        self.spec = plan.with_kv(read_spec(Path(folder)), kv)
        self.device, self.mesh = device, mesh or Mesh()
        self.shard = self.mesh.shard(self.spec)
        self._commands: list[list[Any]] = []
        """For the followers, with the next step."""
        self.spec = plan.started(self.spec, str(dtype), cpu=device == "cpu")
        self.dtype = compute_dtype(dtype, device, self.spec)
        self.limits = plan.limits_of(self.spec, cpu=device == "cpu", max_len=max_len)
        self.before_step: Callable[[Step], None] | None = None
        """Called with each step before it is launched. Tests raise here what a device would."""
        kernels, compiling = self._load(Path(folder), source, memory)
        self.scheduler = BatchScheduler(self.blocks, self.limits, self.mesh.lanes, kernels.lookahead - self.mesh.lanes + 1)
        if self.mesh.size == 1:  # several ranks must choose alike, and the choice goes by measured times
            self.scheduler.speculation = Speculation(self.limits.batch)
        self._first = first_steps(kernels, compiling, self.spec, self.mesh)
        self.executor: StepExecutor = self._first or kernels
        self.grammars = GrammarCompiler(Path(folder), self.spec.vocab)
        self._in_flight: deque[tuple[Step, Any]] = deque()

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError if it can never fit (with the sizes), or a prompt token is not in the vocabulary."""
        from holynb.pool.engine.sample import with_seed

        if invalid := next((t for t in job.ids if not 0 <= t < self.spec.vocab), None):
            raise ValueError(f"token {invalid} is not one of the {self.spec.vocab} that the model knows")
        if job.pooling is not None:
            self.embedder.add(job)
            return
        job = with_seed(job)
        if job.grammar is None:
            self._queue(job)
        else:
            self.scheduler.check(job)
            self.grammars.add(job)

    def cancel(self, id: int) -> None:  # noqa: A002 - the protocol's name
        """Drop a job; nothing more is emitted for it. Unknown ids are ignored."""
        self.grammars.cancel(id)
        self.embedder.cancel(id)
        self.scheduler.cancel(id)
        if self.group is not None:
            self._commands.append(["cancel", id])

    @property
    def idle(self) -> bool:
        """Whether there is neither work nor output left."""
        return self.scheduler.idle and not self._in_flight and self.grammars.idle and self.embedder.idle

    def step(self) -> list[Emit]:
        """Plan and start one step, then read back the one before it (on a GPU) or this one (on CPU)."""
        emits = [] if self.grammars.idle else self._queue_compiled()
        commands, self._commands, texts = self._commands, [], self.embedder.take()
        if self.group is not None:
            self.group.send_commands([*commands, *([["embed", [job_values(t) for t in texts]]] if texts else [])])
        return emits + self.embedder.run(texts) + self._advance()

    def warm(self) -> int:
        """Prepare every batch size now (on a GPU: capture its graphs) instead of at its first use. Returns their number."""
        if self.group is not None:
            self.group.send_commands([["warm", None]])
        self._use_kernels(None)
        return self.executor.warm()

    def follow(self, after: Callable[[], None] = lambda: None) -> None:
        """Every rank but the leader: repeat its steps until it closes, `after` called after each. Raises RuntimeError if a rank is gone."""
        if self.group is None:
            raise ValueError("a replica of one rank has nobody to follow")
        while (commands := self.group.receive_commands()) != ["close"]:
            for command, argument in commands:
                if command == "warm":
                    self.executor.warm()
                elif command == "cancel":
                    self.scheduler.cancel(argument)
                elif command == "embed":
                    self.embedder.run([job_from(text) for text in argument])
                else:
                    self._schedule(job_from(argument))
            self._advance()
            after()
        self.group.close()

    def close(self) -> None:
        """The leader: release the other ranks."""
        if self.group is not None:
            self.group.send_commands(["close"])
            self.group.close()

    def _queue(self, job: Job) -> None:
        """Schedule a job here and, with the next step, on the other ranks."""
        self._schedule(job)
        if self.group is not None:
            self._commands.append(["add", job_values(job)])

    def _schedule(self, job: Job) -> None:
        seq = self.scheduler.add(job)
        if job.grammar is not None:
            seq.constraint = self.grammars.begin(job)

    def _queue_compiled(self) -> list[Emit]:
        """Queue the jobs whose grammar is compiled by now, waiting briefly if there is nothing else to do. Emits invalid grammars."""
        ready, failed = self.grammars.take_ready(0.0 if self._in_flight or not self.scheduler.idle else _GRAMMAR_WAIT_S)
        for job in ready:
            self._queue(job)
        return [Emit(job.id, finish="error", note=message) for job, message in failed]

    def _advance(self) -> list[Emit]:
        # A constrained row's mask depends on the token before: while there is such a row, no step starts before its lane's last is read.
        emits = self._read_back(self.mesh.lanes - 1) if self.scheduler.constrained else []
        step = self.scheduler.plan()
        if step is not None:
            self._use_kernels(step)
            try:
                self._launch(step)
            except (RuntimeError, MemoryError) as exc:
                # Ranks of one replica must agree on every step: if one of them runs out of memory, the replica ends.
                if self.group is not None or not shortage.is_out_of_memory(exc):
                    raise
                emits += self._read_back(0) + self._recover(step)
        ahead = step is not None and not step.guesses  # what comes after guesses depends on how many are right
        emits += self._read_back(self.executor.lookahead if ahead else max(0, len(self._in_flight) - 1))
        if self.idle:
            self.stage.pause_clock()
        return emits

    def stats(self) -> RankStats:
        """Counters and sizes, for metrics."""
        memory = device_memory(self.device)
        return {
            **batch_figures(self.scheduler),
            "waiting": len(self.scheduler.waiting) + self.embedder.waiting,
            "weights_bytes": self.weights_bytes,
            "kv_bytes": self.kv_bytes,
            "device": memory.device,
            "memory_total": memory.total,
            "memory_used": memory.used,
            "memory_ours": memory.ours,
            "dtype": self.dtype,
            "max_len": self.limits.max_len,
            "stage": self.mesh.stage,
            "flights": self.mesh.lanes,
            "busy": self.stage.busy,
        }

    def _use_kernels(self, step: Step | None) -> None:
        """From the first step on that is theirs; no other is in flight then."""
        if self._first is not None and self.executor is self._first and self._first.over(step):
            self.executor, self._first = self._first.kernels, None

    def _launch(self, step: Step) -> None:
        if self.before_step is not None:
            self.before_step(step)
        self._in_flight.append((step, self.executor.launch(step)))

    def _read_back(self, keep: int) -> list[Emit]:
        """Read steps back, oldest first, until at most `keep` are in flight."""
        emits: list[Emit] = []
        while len(self._in_flight) > keep:
            step, launched = self._in_flight.popleft()
            tokens = self.executor.read_back(launched)
            emits += self.scheduler.commit(step, tokens, None if step.plain else self.executor.scores(launched))
        return emits

    def _recover(self, step: Step) -> list[Emit]:
        """After an out-of-memory error: empty torch's cache and shrink the batch; a single row that still does not fit ends as an error."""
        import torch

        self.executor.reset()
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
        return self.scheduler.fail(step)

    def _load(self, folder: Path, source: TensorSource | None, share: float) -> tuple[StepExecutor, Precompiler | None]:
        """Load the weights, allocate the cache in what `share` of the memory leaves. Returns the executor, and what compiles for it."""
        import torch

        from holynb.pool.engine.cache import allocate_kv
        from holynb.pool.engine.load import load, open_safetensors
        from holynb.pool.engine.load_fp8 import check_fp8
        from holynb.pool.engine.model import Decoder, pack
        from holynb.pool.engine.pipeline import PipelineStage, SingleStage

        if self.device != "cpu":
            from holynb.pool.engine.precompile import begin

            torch.cuda.set_device(self.device)
            check_fp8(self.spec, self.device)
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cpus()))
        dtype = getattr(torch, self.dtype)
        compiling = None if self.device == "cpu" else begin(self.spec, self.mesh, self.limits, BLOCK_TOKENS, dtype, self.device)
        self.group = self._join_group()
        with nullcontext(source) if source else open_safetensors(folder) as tensors:
            weights = load(self.spec, self.shard, tensors, self.device, dtype)
        if self.device == "cpu":
            weights = pack(weights)
        self.weights_bytes = plan.weights_bytes(self.spec, self.shard, dtype.itemsize, cpu=self.device == "cpu")
        groups = cache_groups(self.spec, self.mesh, self.limits.max_len)
        block_bytes = BLOCK_TOKENS * plan.kv_bytes(self.spec, self.shard, dtype.itemsize, groups.layers)
        blocks = groups.block_count(self._cache_bytes(share, dtype.itemsize), block_bytes, self.limits)
        blocks = blocks if self.group is None else self.group.minimum(blocks)
        self.kv_bytes, self.blocks = blocks * block_bytes, BlockAllocator(blocks, BLOCK_TOKENS, windows=groups.windows)
        # A request without a token limit gets all that one sequence can have; more than the cache would be refused.
        self.limits = replace(self.limits, max_len=min(self.limits.max_len, self.blocks.capacity))
        shape = groups.layers, self.shard.kv_heads[1] - self.shard.kv_heads[0], blocks * BLOCK_TOKENS, self.spec.head_dim
        kv = allocate_kv(shape, torch.float8_e4m3fn if self.spec.kv_fp8 else dtype, self.device)
        collectives = None if self.group is None else self.group.collectives(self.spec, self.shard, self.limits.batch, dtype)
        model = Decoder(self.spec, weights, self.limits.max_len, collectives, groups)
        self.stage = (
            SingleStage()
            if self.group is None or self.mesh.pipe == 1
            else PipelineStage(self.group, self.spec.hidden, model.ropes[0].to(dtype))
        )
        self.embedder = Embedder(model, kv, self.limits, divided=self.group is not None)
        return executor_for(model, kv, BLOCK_TOKENS, self.limits, self.stage), compiling

    def _join_group(self) -> Group | None:
        """Connect to the other ranks, if there are any."""
        if self.mesh.size == 1:
            return None
        from holynb.pool.engine.group import Group

        return Group(self.mesh, self.device)

    def _cache_bytes(self, share: float, itemsize: int) -> int:
        """Bytes for the cache, once the weights are loaded."""
        memory = device_memory(self.device)
        work = plan.work_bytes(self.spec, self.shard, self.limits, itemsize)
        return plan.cache_bytes(memory.total, memory.free, share, work, cpu=self.device == "cpu")
