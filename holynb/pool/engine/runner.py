"""The engine of one replica: plan a step, run it, read it back. Owns the scheduler, the weights and the cache; knows no sockets.

`while not runner.idle: emits = runner.step()` is all a worker does with it.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holynb.errors import UserError, closest
from holynb.pool.engine.cache import Blocks
from holynb.pool.engine.constrained import GrammarCompiler
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.sequence import Step
from holynb.pool.fit import BatchLimits, Mesh, Spec, bf16_is_fast, cpus, device_memory, plan, read
from holynb.pool.protocol import Emit, Job, JobRunner, RankStats
from kernels_support.jupyter import shortage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from holynb.pool.engine.group import Group
    from holynb.pool.engine.load import TensorSource
    from holynb.pool.engine.model import Decoder
    from holynb.pool.engine.pipeline import Alone
    from holynb.pool.engine.precompile import Precompiler

__all__ = ["Runner"]

#: Seconds that a step without anything else to do waits for a grammar.
_MOMENT = 0.05

#: Token slots of a block. Small enough that rows of one template share most of their head.
BLOCK = 16

DTYPES = ("float32", "bfloat16", "float16")


class Runner(JobRunner):
    """Jobs in, tokens out, one step at a time. One thread calls it.

    `device`: cpu or cuda:N. `dtype`: None is float32 on CPU and the weights' own on a GPU. `memory`: the share of the device's
    memory that weights, cache and work may take together. Raises UserError (unknown model, sizes) and FileNotFoundError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        max_len: int | None = None,
        memory: float = 0.9,
        mesh: Mesh | None = None,
        source: TensorSource | None = None,
    ) -> None:
        # Spinning OpenMP threads on shared cores cost four fifths of the rate; read when torch loads its OpenMP.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.spec = read(Path(folder))
        self.device, self.mesh = device, mesh or Mesh()
        self.cut = self.mesh.cut(self.spec)
        self._news: list[list[Any]] = []
        self.dtype = _dtype(dtype, device, self.spec)
        self.limits = plan.limits_of(self.spec, cpu=device == "cpu", max_len=max_len)
        self.trouble: Callable[[Step], None] | None = None
        """Called with each step before it runs; a test raises here what a device would."""
        self._load(Path(folder), source, memory)
        self.batch = BatchScheduler(self.blocks, self.limits, self.mesh.flights, unknown=self.engine.ahead - self.mesh.flights + 1)
        self.grammars = GrammarCompiler(Path(folder), self.spec.vocab)
        self._flights: deque[tuple[Step, Any]] = deque()

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError, with the sizes, where it can never fit or asks for tokens that do not exist."""
        from holynb.pool.engine.sample import settled

        if wrong := next((t for t in job.ids if not 0 <= t < self.spec.vocab), None):
            raise ValueError(f"token {wrong} is not one of the {self.spec.vocab} that the model knows")
        job = settled(job)
        if job.grammar is None:
            self._queue(job)
        else:
            self.batch.check(job)
            self.grammars.add(job)

    def cancel(self, id: int) -> None:  # noqa: A002 - the seam's word
        """Take a job out; nothing more is said of it."""
        self.grammars.cancel(id)
        self.batch.cancel(id)
        if self.group is not None:
            self._news.append(["cancel", id])

    @property
    def idle(self) -> bool:
        """Nothing to do and nothing to say."""
        return self.batch.idle and not self._flights and self.grammars.idle

    def step(self) -> list[Emit]:
        """Plan and start one step, then read back the one before it (on a GPU) or this one (on CPU)."""
        emits = [] if self.grammars.idle else self._compiled()
        news, self._news = self._news, []
        if self.group is not None:
            self.group.tell(news)
        return emits + self._advance()

    def warm(self) -> int:
        """Prepare every size of batch now (on a GPU: capture), not when it is first wanted. Returns how many."""
        if self.group is not None:
            self.group.tell([["warm", None]])
        return self.engine.warm()

    def follow(self, after: Callable[[], None] = lambda: None) -> None:
        """Any rank but the first: do as the first does, until it closes; `after` is called after each step. Raises RuntimeError where a rank is gone."""
        if self.group is None:
            raise ValueError("a replica of one rank has nobody to follow")
        while (news := self.group.hear()) != ["close"]:
            for what, said in news:
                if what == "warm":
                    self.engine.warm()
                elif what == "cancel":
                    self.batch.cancel(said)
                else:
                    self._take(Job(**said | {"ids": tuple(said["ids"]), "eos": tuple(said["eos"])}))
            self._advance()
            after()
        self.group.close()

    def close(self) -> None:
        """The first rank: let the others go."""
        if self.group is not None:
            self.group.tell(["close"])
            self.group.close()

    def _queue(self, job: Job) -> None:
        """Into the batch, with its constraint; the other ranks hear of it with the next step."""
        self._take(job)
        if self.group is not None:
            self._news.append(["add", {f.name: getattr(job, f.name) for f in fields(Job)}])

    def _take(self, job: Job) -> None:
        seq = self.batch.add(job)
        if job.grammar is not None:
            seq.constraint = self.grammars.begin(job)

    def _compiled(self) -> list[Emit]:
        """Queue the jobs whose grammar is there by now. Waits a moment where there is nothing else to do."""
        ready, wrong = self.grammars.ready(0.0 if self._flights or not self.batch.idle else _MOMENT)
        for job in ready:
            self._queue(job)
        return [Emit(job.id, finish="error", note=why) for job, why in wrong]

    def _advance(self) -> list[Emit]:
        # What a constrained row may say next depends on the token before it: with one of them, no step begins before its lane's last one is read.
        emits = self._land(self.mesh.flights - 1) if self.batch.constrained else []
        step = self.batch.plan()
        if step is not None:
            try:
                self._launch(step)
            except (RuntimeError, MemoryError) as exc:
                # Ranks of one replica must agree on every step; one that ran out alone ends the replica.
                if self.group is not None or not shortage.is_out_of_memory(exc):
                    raise
                emits += self._land(0) + self._shrink(step)
        emits += self._land(self.engine.ahead if step is not None else max(0, len(self._flights) - 1))
        if self.idle:
            self.stage.rest()
        return emits

    def stats(self) -> RankStats:
        """Counters and sizes, for metrics: tokens, rows, bytes; `memory` is the device's own."""
        b, m = self.batch, device_memory(self.device)
        used = self.blocks.total - self.blocks.free
        return {
            "running": len(b.running),
            "waiting": len(b.waiting),
            "batch": b.cap,
            "oom": b.ooms,
            "preempted": b.preempted,
            "kv_used": used * self.blocks.size,
            "kv_total": self.blocks.total * self.blocks.size,
            "tokens_in": b.tokens_in,
            "tokens_out": b.tokens_out,
            "tokens_shared": b.shared,
            "weights_bytes": self.weights_bytes,
            "kv_bytes": self.kv_bytes,
            "device": m.device,
            "memory_total": m.total,
            "memory_used": m.used,
            "memory_ours": m.ours,
            "dtype": self.dtype,
            "max_len": self.limits.max_len,
            "stage": self.mesh.stage,
            "flights": self.mesh.flights,
            "busy": self.stage.busy,
        }

    def _launch(self, step: Step) -> None:
        if self.trouble is not None:
            self.trouble(step)
        self._flights.append((step, self.engine.launch(step)))

    def _land(self, leave: int) -> list[Emit]:
        """Read steps back, oldest first, until `leave` are in flight."""
        emits: list[Emit] = []
        while len(self._flights) > leave:
            step, tokens = self._flights.popleft()
            emits += self.batch.commit(step, self.engine.land(tokens))
        return emits

    def _shrink(self, step: Step) -> list[Emit]:
        """Memory ran out: give back what torch keeps aside and go on smaller; a single row that still does not fit ends as an error."""
        import torch

        self.engine.forget()
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
        return self.batch.fail(step)

    def _load(self, folder: Path, source: TensorSource | None, share: float) -> None:
        """Weights, cache, and the engine over them."""
        import torch

        from holynb.pool.engine.cache import pages
        from holynb.pool.engine.eager import Eager
        from holynb.pool.engine.load import load, opened
        from holynb.pool.engine.model import Decoder, pack
        from holynb.pool.engine.pipeline import Alone, Stage

        if self.device != "cpu":
            torch.cuda.set_device(self.device)
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cpus()))
        dtype = getattr(torch, self.dtype)
        rehearsal = None if self.device == "cpu" else self._rehearsed(dtype)
        self.group = self._meet()
        with nullcontext(source) if source else opened(folder) as found:
            weights = load(self.spec, self.cut, found, self.device, dtype)
        if self.device == "cpu":
            weights = pack(weights)
        self.weights_bytes = plan.weights_bytes(self.spec, self.cut, dtype.itemsize, cpu=self.device == "cpu")
        layers, heads = self.cut.layers[1] - self.cut.layers[0], self.cut.kv_heads[1] - self.cut.kv_heads[0]
        token = plan.kv_bytes(self.spec, self.cut, dtype.itemsize)
        blocks = plan.blocks(self._room(share, dtype.itemsize), token * BLOCK, self.limits, BLOCK)
        blocks = blocks if self.group is None else self.group.least(blocks)
        self.kv_bytes = blocks * BLOCK * token
        self.blocks = Blocks(blocks, BLOCK)
        # Who does not say how long an answer may be is given all that one sequence can have; more than the cache would be refused.
        self.limits = replace(self.limits, max_len=min(self.limits.max_len, blocks * BLOCK))
        kv = pages((layers, heads, blocks * BLOCK, self.spec.head_dim), dtype, self.device)
        joins = None if self.group is None else self.group.joins(self.spec, self.cut, self.limits.batch, dtype)
        model = Decoder(self.spec, weights, self.limits.max_len, joins)
        self.stage = Alone() if self.group is None or self.mesh.pipe == 1 else Stage(self.group, self.spec.hidden, kv)
        self.engine: StepExecutor = (
            Eager(model, kv, BLOCK, self.stage) if rehearsal is None else _graphs(model, kv, self.limits, self.stage)
        )
        if rehearsal is not None:
            rehearsal.wait()

    def _rehearsed(self, dtype: torch.dtype) -> Precompiler:
        """The kernels, compiling."""
        from holynb.pool.engine.precompile import Precompiler, launches

        return Precompiler(launches(self.spec, self.mesh, self.limits, BLOCK, dtype), self.device)

    def _meet(self) -> Group | None:
        """The other ranks, if there are any."""
        if self.mesh.size == 1:
            return None
        from holynb.pool.engine.group import Group

        return Group(self.mesh, self.device)

    def _room(self, share: float, itemsize: int) -> int:
        """Bytes for the cache, now that the weights are there."""
        now = device_memory(self.device)
        work = plan.work_bytes(self.spec, self.cut, self.limits, itemsize)
        return plan.room(now.total, now.free, share, work, cpu=self.device == "cpu")


class StepExecutor(Protocol):
    """Runs planned steps. `ahead` is how many may be under way before the first is read back."""

    ahead: int

    def launch(self, step: Step) -> Any: ...
    def land(self, flight: Any) -> list[int]: ...
    def forget(self) -> None: ...
    def warm(self) -> int: ...


def _graphs(model: Decoder, kv: Tensor, limits: BatchLimits, stage: Alone) -> StepExecutor:
    from holynb.pool.engine.graphs import Graphs

    return Graphs(model, kv, BLOCK, limits, stage=stage)


def _dtype(asked: str | None, device: str, spec: Spec) -> str:
    """The dtype to compute in. On CPU bfloat16 only where it is asked for and the processor multiplies it: elsewhere it is slower than float32."""
    if asked not in (None, "auto", *DTYPES):
        raise UserError(f"--dtype {asked} is none of {', '.join(DTYPES)}.{closest(str(asked), DTYPES)}")
    if device == "cpu":
        return "bfloat16" if asked == "bfloat16" and bf16_is_fast() else "float32"
    return (spec.dtype if spec.dtype in DTYPES else "bfloat16") if asked in (None, "auto") else str(asked)
