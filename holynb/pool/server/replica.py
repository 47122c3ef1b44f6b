"""One replica as the server sees it: its processes, the generations that run there, and how it ended. Knows frames; no HTTP, no text."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from holynb.pool.protocol import AddJob, CancelJob, Emit, Frame, Job, JobRefused, LoadModel, StepOutput, StopRank
from holynb.pool.server.metrics import ReplicaStats
from holynb.pool.server.rank import Rank, culprit
from kernels_support.jupyter import shortage
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.supervisor import Command

__all__ = ["Generation", "Lost", "Refused", "Replica"]

#: What to do where memory ran out: each of these leaves more of it for the rows.
_SMALLER = "Start the pool with a smaller --max-len or --memory, or over more devices (--tp, --pp)"
_LESS = f". {_SMALLER}; fewer rows at once (-c) need less, too"

#: Seconds in which the other ranks of a dead one may say what they know; on a busy machine a third of one was too few.
_MOMENT = 1.0
#: Seconds in which one whose socket has ended is gone, or is ended.
_DYING_S = 2.0


class Lost(Exception):
    """The rank died under a generation, or could not finish it; says why. `code` is OpenAI's: replica_died, oom, server_error."""

    def __init__(self, message: str, code: str = "replica_died") -> None:
        super().__init__(message)
        self.code = code


class Refused(Exception):
    """The rank can never run this: the prompt and its answer do not fit; says the sizes."""


@dataclass(eq=False, slots=True)
class Generation:
    """One answer being written. Filled by its replica, read by one consumer, both on the server's loop."""

    job: Job
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None
    error: Lost | Refused | None = None
    notes: set[str] = field(default_factory=set)
    times: int = 1
    """How often it was begun: again where a replica died under it."""
    admitted: bool = False
    cached: int = 0
    """Prompt tokens that were in the replica's cache."""
    given: bool = False
    """Something of it has been sent to the client: it cannot be begun again elsewhere."""
    at: float = field(default_factory=time.monotonic)
    last: float = 0.0
    _due: float = math.inf
    _waiter: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        return self.finish is not None or self.error is not None

    async def news(self, due: float) -> None:
        """Wait until it is admitted, over, or has tokens at or after `due` (monotonic seconds; inf: only its end)."""
        self._due = due
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self, now: float, *, always: bool = False) -> None:
        """Tell the consumer, where it wants to know now."""
        if self._waiter is not None and not self._waiter.done() and (always or self.over or now >= self._due):
            self._waiter.set_result(None)

    def again(self) -> None:
        """Forget what a dead replica wrote; another one begins anew."""
        self.tokens.clear()
        self.times += 1
        self.wake(time.monotonic(), always=True)


class Replica:
    """Owns the processes that compute together: a leader, which alone is told of jobs, and where the model is divided its followers.

    One of them dead, all are ended. `on_end` is called once then, with why and the generations they left. `number` is its place in the
    pool, which one that is started in its stead has again.
    """

    def __init__(
        self, ranks: Sequence[tuple[Command, LoadModel]], on_end: Callable[[Replica, str, list[Generation]], None], number: int = 0
    ) -> None:
        self.number = number
        self.live: dict[int, Generation] = {}
        self.ended: str | None = None
        self.oom = False
        """It ended because the memory of one of its ranks ran out."""
        self.on_tokens: Callable[[Generation, int, float, float], None] = lambda generation, tokens, before, now: None
        self.ranks = [Rank(command, load, self._on_frame, self._over) for command, load in ranks]
        self._on_end = on_end
        self._dying: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def stats(self) -> ReplicaStats:
        """The leader's last figures, weights and cache of all ranks together; in `ranks` everybody's own, in `stages` the busy share of each."""
        every = [r.stats for r in self.ranks]
        if not every[0]:
            return {}
        figures: ReplicaStats = {**every[0]}  # type: ignore[typeddict-item]  # the keys that are ours follow
        if "weights_bytes" in figures:
            figures["weights_bytes"] = sum(s.get("weights_bytes", 0) for s in every)
        if "kv_bytes" in figures:
            figures["kv_bytes"] = sum(s.get("kv_bytes", 0) for s in every)
        # The slices of a stage work at the same time: the first one speaks for them.
        stages = {s["stage"]: busy for s in reversed(every) if (busy := s.get("busy")) is not None}
        figures["replica"], figures["ranks"], figures["stages"] = self.number, every, [stages[n] for n in sorted(stages)]
        return figures

    @property
    def processes(self) -> list[Process]:
        return [r.child.process for r in self.ranks if r.child is not None and r.child.process is not None]

    @property
    def outstanding(self) -> int:
        """Tokens that its generations may still take: prompts not begun and answers not written."""
        return sum(g.job.max_new - len(g.tokens) + (0 if g.tokens else len(g.job.ids)) for g in self.live.values())

    async def start(self) -> None:
        """Start the processes and send them their loads. Raises OSError, once those that did start are gone."""
        try:
            for rank in self.ranks:
                await rank.start()
        except OSError as exc:
            rank.words = f"could not be started: {shortage.describe(exc)}"
            self._over(rank)
            await self.stop(0.0)
            raise

    async def ready(self) -> bool:
        """Wait until the weights are in. False where it has ended instead."""
        for rank in self.ranks:
            await rank.ready.wait()  # also set by its end
        if self._dying is not None:
            await asyncio.shield(self._dying)  # until it is known why
        return self.ended is None

    def add(self, generation: Generation) -> None:
        self.live[generation.job.id] = generation
        self.ranks[0].send(AddJob(generation.job))

    def cancel(self, generation: Generation) -> None:
        """Its row leaves the batch at the next step. Nothing happens where it is over."""
        if self.live.pop(generation.job.id, None) is not None:
            self.ranks[0].send(CancelJob(generation.job.id))

    async def stop(self, grace: float = 2.0) -> None:
        """End the processes: the leader is asked and lets the others go; what is left after `grace` seconds is killed."""
        self._stopping = True
        self.ranks[0].send(StopRank())
        await self.ranks[0].gone(grace)
        for rank in self.ranks[1:]:
            rank.close()
        await asyncio.gather(*(r.gone(grace / 4) for r in self.ranks))
        await asyncio.gather(*(r.kill() for r in self.ranks))
        await asyncio.gather(*(r.heard() for r in self.ranks))
        if self._dying is not None:
            await self._dying

    def _over(self, first: Rank) -> None:
        if self._dying is None:
            self._dying = asyncio.create_task(self._end(first))

    async def _end(self, first: Rank) -> None:
        """A rank's socket has ended: end all of them, find out whose fault it was, hand the generations over."""
        # The dead one's peers often speak first, of a connection that was closed: a moment, so that the reason is there too.
        await asyncio.gather(*(r.gone(_DYING_S if r is first else _MOMENT) for r in self.ranks))
        # One whose socket has ended is dying too, and how is not known before its device and the system have let it go.
        await asyncio.gather(*(r.gone(_DYING_S) for r in self.ranks if r.hung_up))
        await first.kill()
        found = culprit(self.ranks)
        which = f"rank {self.ranks.index(found)} of {len(self.ranks)}, " if len(self.ranks) > 1 else ""
        self.oom = found.oom
        self.ended = which + found.why(log=not self._stopping) + (_LESS if found.oom else "")
        for rank in self.ranks:
            rank.close()
        await asyncio.gather(*(r.kill() for r in self.ranks))
        left = list(self.live.values())
        self.live.clear()
        for rank in self.ranks:
            rank.ready.set()
        self._on_end(self, self.ended, left)

    def _on_frame(self, rank: Rank, frame: Frame) -> None:
        if rank is not self.ranks[0]:
            return
        if isinstance(frame, StepOutput):
            now = time.monotonic()
            for emit in frame.emits:
                self._emit(emit, now)
        elif isinstance(frame, JobRefused):
            self._close(frame.id, Refused(frame.message))

    def _emit(self, emit: Emit, now: float) -> None:
        generation = self.live.get(emit.id)
        if generation is None:  # cancelled here, still running there for a step
            return
        first = not generation.admitted
        if first:
            generation.admitted, generation.cached = True, emit.cached
        if emit.note:
            generation.notes.add(emit.note)
        if emit.tokens:
            self.on_tokens(generation, len(emit.tokens), generation.last, now)
            generation.tokens += emit.tokens
            generation.last = now
        if emit.finish == "error":
            code = "oom" if "oom" in generation.notes else "server_error"
            words = {
                "oom": f"The device's memory does not hold this row, even alone. {_SMALLER}.",
                "server_error": f"The rank gave this row up: {emit.note}.",
            }
            self._close(emit.id, Lost(words[code], code))
            return
        if emit.finish is not None:
            generation.finish = emit.finish
            del self.live[emit.id]
        generation.wake(now, always=first)

    def _close(self, number: int, error: Lost | Refused) -> None:
        generation = self.live.pop(number, None)
        if generation is not None:
            generation.error = error
            generation.wake(time.monotonic())
