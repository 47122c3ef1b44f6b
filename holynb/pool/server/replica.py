"""One replica as the server sees it: its processes, the generations that run there, and how it ended. Knows frames; no HTTP, no text."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holynb.pool.server.rank import Rank, culprit
from kernels_support.jupyter import shortage, wire
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.supervisor import Command

__all__ = ["Generation", "GenerationRequest", "Lost", "Refused", "Replica"]

_numbers = itertools.count(1)

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


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to generate, as the runner's Job takes it, without its number."""

    ids: tuple[int, ...]
    max_new: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    eos: tuple[int, ...]
    ignore_eos: bool = False
    grammar: str | None = None


@dataclass(eq=False, slots=True)
class Generation:
    """One answer being written. Filled by its replica, read by one consumer, both on the server's loop."""

    wanted: GenerationRequest
    id: int = field(default_factory=lambda: next(_numbers))
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
        self, ranks: Sequence[tuple[Command, Mapping[str, Any]]], on_end: Callable[[Replica, str, list[Generation]], None], number: int = 0
    ) -> None:
        self.number = number
        self.live: dict[int, Generation] = {}
        self.ended: str | None = None
        self.oom = False
        """It ended because the memory of one of its ranks ran out."""
        self.on_tokens: Callable[[Generation, int, float, float], None] = lambda generation, tokens, before, now: None
        self.ranks = [Rank(command, load, self._hear, self._over) for command, load in ranks]
        self._on_end = on_end
        self._dying: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def stats(self) -> dict[str, Any]:
        """The leader's last figures, weights and cache of all ranks together; in `ranks` everybody's own, in `stages` the busy share of each."""
        every = [r.stats for r in self.ranks]
        if not every[0]:
            return {}
        sums: dict[str, Any] = {k: sum(s.get(k, 0) for s in every) for k in ("weights_bytes", "kv_bytes") if k in every[0]}
        # The slices of a stage work at the same time: the first one speaks for them.
        stages = {s["stage"]: s["busy"] for s in reversed(every) if s.get("busy") is not None}
        return {**every[0], **sums, "replica": self.number, "ranks": every, "stages": [stages[n] for n in sorted(stages)]}

    @property
    def processes(self) -> list[Process]:
        return [r.child.process for r in self.ranks if r.child is not None and r.child.process is not None]

    @property
    def outstanding(self) -> int:
        """Tokens that its generations may still take: prompts not begun and answers not written."""
        return sum(g.wanted.max_new - len(g.tokens) + (0 if g.tokens else len(g.wanted.ids)) for g in self.live.values())

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
        wanted = generation.wanted
        self.live[generation.id] = generation
        job = {name: getattr(wanted, name) for name in GenerationRequest.__slots__}
        self.ranks[0].send({"t": "add", "job": {"id": generation.id, **job}})

    def cancel(self, generation: Generation) -> None:
        """Its row leaves the batch at the next step. Nothing happens where it is over."""
        if self.live.pop(generation.id, None) is not None:
            self.ranks[0].send({"t": "cancel", "id": generation.id})

    async def stop(self, grace: float = 2.0) -> None:
        """End the processes: the leader is asked and lets the others go; what is left after `grace` seconds is killed."""
        self._stopping = True
        self.ranks[0].send({"t": "stop"})
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

    def _hear(self, rank: Rank, frame: wire.Frame) -> None:
        if rank is not self.ranks[0]:
            return
        if frame["t"] == "step":
            now = time.monotonic()
            for number, tokens, finish, note, *cached in frame["e"]:
                if cached and number in self.live and not self.live[number].admitted:
                    self.live[number].cached = cached[0]
                self._emit(number, tokens, (finish, note), now)
        elif frame["t"] == "refused":
            self._close(frame["id"], Refused(frame["message"]))

    def _emit(self, number: int, tokens: list[int], end: tuple[str | None, str | None], now: float) -> None:
        generation = self.live.get(number)
        if generation is None:  # cancelled here, still running there for a step
            return
        finish, note = end
        first = not generation.admitted
        generation.admitted = True
        if note:
            generation.notes.add(note)
        if tokens:
            self.on_tokens(generation, len(tokens), generation.last, now)
            generation.tokens += tokens
            generation.last = now
        if finish == "error":
            code = "oom" if "oom" in generation.notes else "server_error"
            words = {
                "oom": f"The device's memory does not hold this row, even alone. {_SMALLER}.",
                "server_error": f"The rank gave this row up: {note}.",
            }
            self._close(number, Lost(words[code], code))
            return
        if finish is not None:
            generation.finish = finish
            del self.live[number]
        generation.wake(now, always=first)

    def _close(self, number: int, error: Lost | Refused) -> None:
        generation = self.live.pop(number, None)
        if generation is not None:
            generation.error = error
            generation.wake(time.monotonic())
