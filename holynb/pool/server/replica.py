"""One replica as the server sees it: its processes, the generations that run there, and how it ended. Knows frames; no HTTP, no text."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from holynb.pool.protocol import AddJob, CancelJob, Emit, Frame, Job, JobRefused, LoadModel, StepOutput, StopRank, TokenScore
from holynb.pool.server.dispatch import Outstanding
from holynb.pool.server.metrics import ReplicaStats
from holynb.pool.server.rank import Rank, Source, root_cause
from kernels_support.jupyter import shortage
from kernels_support.jupyter.process import Process

__all__ = ["Generation", "GenerationLost", "GenerationRefused", "Replica"]

#: Advice where memory ran out: each of these leaves more of it for the rows.
_OOM_ADVICE = "Start the pool with a smaller --max-len or --memory, or over more devices (--tp, --pp)"
_RANK_OOM_ADVICE = f". {_OOM_ADVICE}; fewer rows at once (-c) need less, too"

#: Seconds in which the peers of a dead rank may still send their errors; on a busy machine a third of one was too few.
_PEERS_GRACE_S = 1.0
#: Seconds in which a rank whose socket has ended may exit by itself.
_EXIT_GRACE_S = 2.0


class GenerationLost(Exception):
    """The rank died under a generation, or could not finish it. `code` is that of the API error: replica_died, oom, server_error."""

    def __init__(self, message: str, code: str = "replica_died") -> None:
        super().__init__(message)
        self.code = code


class GenerationRefused(Exception):
    """The rank can never run this: the prompt and its answer do not fit; the message has the sizes."""


@dataclass(eq=False, slots=True)
class Generation:
    """One answer being written. Filled by its replica, read by one consumer, both on the server's loop."""

    job: Job
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    """Where asked for, one for each of `tokens`, and at the end one for the end token."""
    prompt_scores: list[TokenScore] = field(default_factory=list)
    vector: str = ""
    """Of a text that is embedded."""
    finish: str | None = None
    error: GenerationLost | GenerationRefused | None = None
    notes: set[str] = field(default_factory=set)
    attempts: int = 1
    """How often it was started: again where a replica died under it."""
    admitted: bool = False
    cached: int = 0
    """Prompt tokens that were in the replica's KV cache."""
    streamed: bool = False
    """Text of it has been sent to the client: it cannot be started again elsewhere."""
    created_at: float = field(default_factory=time.monotonic)
    last_token_at: float = 0.0
    _notify_at: float = math.inf
    _waiter: asyncio.Future[None] | None = None

    @property
    def outstanding(self) -> int:
        """Upper bound of the tokens left to compute: the prompt where nothing of it is answered, and the rest of max_new."""
        return self.job.max_new - len(self.tokens) + (0 if self.tokens else len(self.job.ids))

    @property
    def done(self) -> bool:
        return self.finish is not None or self.error is not None

    async def wait_update(self, due: float) -> None:
        """Wait until it is admitted, done, or has tokens at or after `due` (monotonic seconds; inf: only its end)."""
        self._notify_at = due
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def notify(self, now: float, *, always: bool = False) -> None:
        """Wake the consumer, where its `due` has come."""
        if self._waiter is not None and not self._waiter.done() and (always or self.done or now >= self._notify_at):
            self._waiter.set_result(None)

    def restart(self) -> None:
        """Drop the tokens of a dead replica; another one starts from the prompt."""
        for what in (self.tokens, self.scores, self.prompt_scores):
            what.clear()
        self.admitted = False  # it waits there as others do
        self.attempts += 1
        self.notify(time.monotonic(), always=True)


class Replica:
    """Owns the processes that compute together: a leader, which alone receives jobs, and where the model is divided its followers.

    When one of them dies, all are ended, and `on_end` is called once, with the reason and the unfinished generations. `number` is its
    place in the pool; the replica that replaces it has the same.
    """

    def __init__(
        self, ranks: Sequence[tuple[Source, LoadModel]], on_end: Callable[[Replica, str, list[Generation]], None], number: int = 0
    ) -> None:
        self.number = number
        self.generations: dict[int, Generation] = {}
        self.load = Outstanding()
        """What its generations have outstanding, kept as they change: to add up ten thousand would cost more than a row."""
        self.end_reason: str | None = None
        self.oom = False
        """It ended because the memory of one of its ranks ran out."""
        self.on_tokens: Callable[[Generation, int, float, float], None] = lambda generation, tokens, before, now: None
        self.ranks = [Rank(source, load, self._on_frame, self._on_rank_end) for source, load in ranks]
        self._on_end = on_end
        self._shutdown: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def stats(self) -> ReplicaStats:
        """The leader's last figures, with weights and KV cache summed over the ranks. Empty before the leader is ready."""
        ranks = [r.stats for r in self.ranks]
        if not ranks[0]:
            return {}
        figures: ReplicaStats = {**ranks[0]}  # type: ignore[typeddict-item]  # the keys that are ours follow
        if "weights_bytes" in figures:
            figures["weights_bytes"] = sum(s.get("weights_bytes", 0) for s in ranks)
        if "kv_bytes" in figures:
            figures["kv_bytes"] = sum(s.get("kv_bytes", 0) for s in ranks)
        # The slices of a stage work at the same time: the first one stands for them.
        stages = {s["stage"]: busy for s in reversed(ranks) if (busy := s.get("busy")) is not None}
        figures["replica"], figures["ranks"], figures["stages"] = self.number, ranks, [stages[n] for n in sorted(stages)]
        return figures

    @property
    def processes(self) -> list[Process]:
        return [r.child.process for r in self.ranks if r.child is not None and r.child.process is not None]

    @property
    def waiting(self) -> int:
        """Rows that are in no batch yet."""
        return sum(not g.admitted for g in self.generations.values())

    async def start(self) -> None:
        """Start the processes and send them their loads. Raises OSError, once those that did start are gone."""
        try:
            for rank in self.ranks:
                await rank.start()
        except OSError as exc:
            rank.error = f"could not be started: {shortage.describe(exc)}"
            self._on_rank_end(rank)
            await self.stop(0.0)
            raise

    async def wait_ready(self) -> bool:
        """Wait until the weights are loaded. False where it has ended instead."""
        for rank in self.ranks:
            await rank.ready.wait()  # also set by its end
        if self._shutdown is not None:
            await asyncio.shield(self._shutdown)  # until the reason is known
        return self.end_reason is None

    def add(self, generation: Generation) -> None:
        self.generations[generation.job.id] = generation
        self.load.add(generation.outstanding)
        self.ranks[0].send(AddJob(generation.job))

    def cancel(self, generation: Generation) -> None:
        """Its row leaves the batch at the next step. No effect where it is done."""
        if self.generations.pop(generation.job.id, None) is not None:
            self.load.add(-generation.outstanding)
            self.ranks[0].send(CancelJob(generation.job.id))

    async def stop(self, grace: float = 2.0) -> None:
        """End the processes: the leader is asked to stop and releases the others; those left after `grace` seconds are killed."""
        self._stopping = True
        self.ranks[0].send(StopRank())
        await self.ranks[0].wait_exit(grace)
        for rank in self.ranks[1:]:
            rank.close()
        await asyncio.gather(*(r.wait_exit(grace / 4) for r in self.ranks))
        await asyncio.gather(*(r.kill() for r in self.ranks))
        await asyncio.gather(*(r.drain() for r in self.ranks))
        if self._shutdown is not None:
            await self._shutdown

    def _on_rank_end(self, first: Rank) -> None:
        if self._shutdown is None:
            self._shutdown = asyncio.create_task(self._shut_down(first))

    async def _shut_down(self, first: Rank) -> None:
        """A rank's socket has ended: end all ranks, find the root cause, and hand the unfinished generations to `on_end`."""
        # The peers of a dead rank often fail first, with a closed connection: wait, so that the cause is there too.
        await asyncio.gather(*(r.wait_exit(_EXIT_GRACE_S if r is first else _PEERS_GRACE_S) for r in self.ranks))
        # A rank whose socket has ended is dying too; its exit code is not there before its device and the system have released it.
        await asyncio.gather(*(r.wait_exit(_EXIT_GRACE_S) for r in self.ranks if r.disconnected))
        await first.kill()
        await asyncio.gather(*(r.drain(_PEERS_GRACE_S) for r in self.ranks if r.child is not None and not r.child.alive))
        cause = root_cause(self.ranks)
        prefix = f"rank {self.ranks.index(cause)} of {len(self.ranks)}, " if len(self.ranks) > 1 else ""
        self.oom = cause.oom
        self.end_reason = prefix + cause.end_reason(log=not self._stopping) + (_RANK_OOM_ADVICE if cause.oom else "")
        for rank in self.ranks:
            rank.close()
        await asyncio.gather(*(r.kill() for r in self.ranks))
        unfinished = list(self.generations.values())
        self.generations.clear()
        self.load.add(-self.load.tokens)
        for rank in self.ranks:
            rank.ready.set()
        self._on_end(self, self.end_reason, unfinished)

    def _on_frame(self, rank: Rank, frame: Frame) -> None:
        if rank is not self.ranks[0]:
            return
        if isinstance(frame, StepOutput):
            now = time.monotonic()
            for emit in frame.emits:
                self._emit(emit, now)
        elif isinstance(frame, JobRefused):
            self._fail_generation(frame.id, GenerationRefused(frame.message))

    def _emit(self, emit: Emit, now: float) -> None:
        generation = self.generations.get(emit.id)
        if generation is None:  # cancelled here, still running there for a step
            return
        first = not generation.admitted
        if first:
            generation.admitted, generation.cached = True, emit.cached
        if emit.note:
            generation.notes.add(emit.note)
        if emit.scores:
            generation.scores += emit.scores
            generation.prompt_scores += emit.prompt_scores
        if emit.vector:
            generation.vector = emit.vector
        if emit.tokens:
            self.on_tokens(generation, len(emit.tokens), generation.last_token_at, now)
            self.load.add(-len(emit.tokens) if generation.tokens else -len(emit.tokens) - len(generation.job.ids))
            generation.tokens += emit.tokens
            generation.last_token_at = now
        if emit.finish == "error":
            code = next((note for note in ("oom", "not_finite") if note in generation.notes), "server_error")
            messages = {
                "not_finite": "The model computed something else than finite numbers: its files may be damaged, "
                "or a --dtype float16 too narrow for it.",
                "oom": f"This row does not fit in the device's memory, even alone. {_OOM_ADVICE}.",
                "server_error": f"The rank gave this row up: {emit.note}.",
            }
            self._fail_generation(emit.id, GenerationLost(messages[code], code))
            return
        if emit.finish is not None:
            generation.finish = emit.finish
            del self.generations[emit.id]
            self.load.add(-generation.outstanding)
        generation.notify(now, always=first)

    def _fail_generation(self, number: int, error: GenerationLost | GenerationRefused) -> None:
        generation = self.generations.pop(number, None)
        if generation is not None:
            self.load.add(-generation.outstanding)
            generation.error = error
            generation.notify(time.monotonic())
