"""Time without waiting: an event loop whose clock jumps to whatever is due next, and a server with a quota that lives on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holynb.types import Limits

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is ready, time goes on to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self.rng = random.Random(0)  # of what the code under test leaves to chance: the same in every run

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        due = [timer._when for timer in self._scheduled if not timer._cancelled]  # type: ignore[attr-defined]
        if not self._ready and due:  # type: ignore[attr-defined]
            self._now = max(self._now, min(due))
        super()._run_once()  # type: ignore[misc]


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@dataclass
class Quota:
    """A server that admits `limit` requests (or tokens, where `per_token`) a minute.

    kind: bucket (refilled all the time) or window (all at once, each minute). headers: whether replies tell the quota. retry_after: what a 429
    says: slot (seconds to one slot), whole (the same, in whole seconds) or None. at_once: most requests under way. moods: the share that is
    refused for no reason of the sender's, with `mood_wait` to wait. refusal: seconds until a 429 comes back (None: as late as an answer); a
    gateway in front says it, before any model is asked. seed: of all that is left to chance.
    """

    limit: int = 600
    kind: str = "bucket"
    headers: bool = True
    retry_after: str | None = "slot"
    latency: float = 0.05
    jitter: float = 0.0
    per_token: bool = False
    at_once: int | None = None
    whole_seconds: bool = False
    moods: float = 0.0
    mood_wait: float | None = 0.2
    refusal: float | None = 0.01
    seed: int = 7
    served: int = 0
    refused: int = 0
    sent: list[float] = field(default_factory=list)
    flying: int = 0

    def __post_init__(self) -> None:
        self._level, self._at = float(self.limit), 1000.0
        self._rng = random.Random(self.seed)

    async def ask(self, amount: int = 1) -> tuple[bool, float | None, Limits | None]:
        """(answered, what a 429 asks for, what the headers say)."""
        now = asyncio.get_running_loop().time()
        self.sent.append(now)
        self._refill(now)
        cost = amount if self.per_token else 1
        moody = self._rng.random() < self.moods
        admitted = not moody and self._level >= cost and (self.at_once is None or self.flying < self.at_once)
        self.flying += admitted
        try:
            if admitted:
                self._level -= cost
            limits = self._limits(now) if self.headers else None
            wait = None if admitted else self.mood_wait if moody and self.retry_after else self._wait(cost, now)
            seconds = self.latency if admitted or self.refusal is None else self.refusal
            await asyncio.sleep(seconds * (1 + self._rng.random() * self.jitter))
        finally:
            self.flying -= admitted
        self.served += admitted
        self.refused += not admitted
        return admitted, wait, limits

    def _refill(self, now: float) -> None:
        if self.kind == "bucket":
            self._level = min(float(self.limit), self._level + (now - self._at) * self.limit / 60)
            self._at = now
        elif now - self._at >= 60:
            self._at += 60 * ((now - self._at) // 60)
            self._level = float(self.limit)

    def _reset(self, now: float) -> float:
        full = (self.limit - self._level) * 60 / self.limit if self.kind == "bucket" else self._at + 60 - now
        return float(-(-full // 1)) if self.whole_seconds else full

    def _limits(self, now: float) -> Limits:
        state = (self.limit, int(self._level), self._reset(now))
        return Limits(None, None, None, *state) if self.per_token else Limits(*state)

    def _wait(self, cost: int, now: float) -> float | None:
        if self.retry_after is None:
            return None
        slot = (cost - self._level) * 60 / self.limit if self.kind == "bucket" else self._at + 60 - now
        return float(-(-slot // 1)) if self.retry_after == "whole" else max(slot, 0.0)
