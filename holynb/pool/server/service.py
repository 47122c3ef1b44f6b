"""The pool's state: its replicas, its text, and who runs where. Knows replicas and metrics; no HTTP, no files.

Owned by the server's loop. States: starting → ready → ended, or starting → failed. A dead replica's rows go to the others,
begun anew; where nothing of them was sent yet, the client sees no difference. Without any replica left the pool ends.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holynb.pool.protocol import Job
from holynb.pool.server.api import ApiError, ApiRequest
from holynb.pool.server.dispatch import Dispatcher
from holynb.pool.server.metrics import Metrics, ReplicaStats, device
from holynb.pool.server.replica import Generation, Lost, Replica
from holynb.pool.server.tokenizer import ChatTokenizer, TemplateError

__all__ = ["Identity", "Service"]

#: How often a row is begun again elsewhere. One that kills every replica it meets must not kill them all.
_MOST_TIMES = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """How the pool is called: by its name, or by the MODEL word it was started with."""

    name: str
    model: str

    def answers_to(self, word: str) -> bool:
        return word in {"", self.name, self.model}


class Service:
    """Written by the server's lifecycle and by replicas' frames; read by the routes."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.metrics = Metrics()
        self.state = "starting"
        self.stage = "starting"
        self.share: float | None = None
        self.why: str | None = None
        self.deaths: list[str] = []
        self.text: ChatTokenizer | None = None
        self.max_len = 0
        self.used_at = time.monotonic()
        self.requests = 0
        self.over = asyncio.Event()
        self._settled = asyncio.Event()
        self.revive: Callable[[Replica], bool] = lambda replica: False
        """Asked where a replica of a ready pool died: whether it is started again. It then joins, or is lost once more."""
        self._replicas: list[Replica] = []
        self._coming = 0
        self._job_ids = itertools.count(1)
        self._parked: list[Generation] = []
        self._dispatcher: Dispatcher[Replica] = Dispatcher()

    # -- lifecycle -------------------------------------------------------------------------------------------------
    def at(self, stage: str, share: float | None = None) -> None:
        self.stage, self.share = stage, share

    def join(self, replica: Replica, *, again: bool = False) -> None:
        """A replica whose process was started; `again`: in place of one that died, and its weights are in."""
        replica.on_tokens = lambda g, count, before, now: self.metrics.tokens(count, g.at, before, now)
        self._replicas.append(replica)
        self._coming -= again
        parked, self._parked = self._parked, []
        for generation in parked:
            self._dispatch(generation)

    def open(self, text: ChatTokenizer) -> None:
        """From now on requests are answered."""
        limits = [max_len for r in self._replicas if (max_len := r.stats.get("max_len"))]
        self.text, self.max_len, self.state, self.stage, self.share = text, min([text.context, *limits]), "ready", "ready", None
        self._settled.set()

    def fail(self, why: str, code: str = "replica_died") -> None:
        """The pool ends, because of this. What waits for it hears so; `code` is of rows that were begun."""
        if self.state not in {"failed", "ended"}:
            self.state, self.stage, self.why = "failed", why, why
        self._settled.set()
        self.over.set()
        self._drop(self._parked, why, code)

    def end(self, why: str) -> None:
        if self.state != "failed":
            self.state, self.why = "ended", why
        self._settled.set()
        self.over.set()
        self._drop(self._parked, why)

    def lost(self, replica: Replica, how: str, left: list[Generation]) -> None:
        """A replica died: its rows go to the others, or end as errors that say why."""
        if replica in self._replicas:
            self._replicas.remove(replica)
        elif self.state == "ready":
            self._coming -= 1  # it was to come back, and died before it could
        if self.state in {"ended", "failed"}:
            how = f"{how}. {self.why}" if self.why else how
        else:
            self.deaths.append(how)
            if self.state == "ready" and self.revive(replica):
                self._coming += 1
        again = [g for g in left if (self._replicas or self._coming) and not g.given and g.times < _MOST_TIMES]
        code = "oom" if replica.oom else "replica_died"
        self._drop([g for g in left if g not in again], how, code)
        for generation in again:
            if replica.oom:
                generation.notes.add("oom")
            generation.again()
            self._dispatch(generation)
        if not self._replicas and not self._coming:
            self.fail(f"{'a replica did not start' if self.state == 'starting' else 'its last replica is gone'}: {how}", code)

    def _drop(self, generations: list[Generation], how: str, code: str = "replica_died") -> None:
        """These rows end as errors."""
        for generation in list(generations):
            generation.error = Lost(f"The pool {self.identity.name} lost the replica that wrote this row: {how}", code)
            generation.wake(time.monotonic())
        generations.clear()

    # -- requests --------------------------------------------------------------------------------------------------
    async def ready(self) -> ChatTokenizer:
        """Wait until the pool answers. Raises ApiError 503 where it never will."""
        await self._settled.wait()
        if self.text is None or self.state != "ready":
            raise ApiError(503, f"The pool {self.identity.name} does not run: {self.why}", code="pool_failed")
        return self.text

    def jobs(self, ask: ApiRequest, text: ChatTokenizer, grammar: str | None = None) -> list[Job]:
        """One per choice; choices of one request get different seeds where one was given. Raises ApiError 400 for a prompt that leaves no room
        or has unknown tokens.
        """
        out: list[Job] = []
        for ids in self._ids(ask, text):
            room = self.max_len - len(ids)
            if room < 1:
                raise ApiError(
                    400,
                    f"This model's maximum context length is {self.max_len} tokens. However, your messages resulted in {len(ids)} tokens.",
                    param="messages" if ask.chat else "prompt",
                    code="context_length_exceeded",
                )
            default = text.sampling
            for _ in range(ask.n):
                # Signed 64 bits, in which the largest seed is followed by the smallest.
                seed = None if ask.seed is None else (ask.seed + len(out) + 2**63) % 2**64 - 2**63
                job = Job(
                    next(self._job_ids),
                    ids,
                    min(ask.max_tokens or room, room),
                    temperature=float(ask.temperature if ask.temperature is not None else default.get("temperature", 1.0)),
                    top_p=float((ask.top_p if ask.top_p is not None else default.get("top_p", 1.0)) or 1e-6),
                    top_k=min(max(0, ask.top_k if ask.top_k is not None else int(default.get("top_k", 0))), 2**31 - 1),
                    seed=seed,
                    eos=text.eos,
                    ignore_eos=ask.ignore_eos,
                    grammar=grammar,
                )
                out.append(job)
        return out

    def begin(self, jobs: Sequence[Job]) -> list[Generation]:
        """Hand jobs to replicas."""
        out = []
        for job in jobs:
            generation = Generation(job)
            self.metrics.tokens_in += len(job.ids)
            self._dispatch(generation)
            out.append(generation)
        return out

    def cancel(self, generation: Generation) -> None:
        if generation in self._parked:
            self._parked.remove(generation)
        for replica in self._replicas:
            replica.cancel(generation)

    def health(self) -> dict[str, Any]:
        """The body of `/health`."""
        return {
            "state": self.state,
            "stage": self.stage,
            "share": self.share,
            "why": self.why,
            "name": self.identity.name,
            "model": self.identity.model,
            "max_len": self.max_len or None,
            "requests": self.requests,
            "idle_s": 0.0 if self.requests else round(time.monotonic() - self.used_at, 1),
            "tokens_in": self.metrics.tokens_in,
            "tokens_out": self.metrics.tokens_out,
            "deaths": self.deaths[-5:],
            "replicas": [dict(s) for s in self.stats()],
            "devices": [held for s in self.stats() for rank in s.get("ranks", ()) if (held := device(rank)) is not None],
        }

    def stats(self) -> list[ReplicaStats]:
        return [r.stats for r in self._replicas]

    def _dispatch(self, generation: Generation) -> None:
        if not self._replicas:
            if self._coming:
                self._parked.append(generation)
                return
            raise ApiError(503, f"The pool {self.identity.name} does not run: {self.why}", code="pool_failed")
        job = generation.job
        self._dispatcher.choose(self._replicas, job.ids, len(job.ids) + job.max_new).add(generation)

    def _ids(self, ask: ApiRequest, text: ChatTokenizer) -> list[tuple[int, ...]]:
        if not ask.chat:
            found = [tuple(text.encode(p)) if isinstance(p, str) else p for p in ask.prompts]
            if any(not ids or max(ids) >= text.size for ids in found):
                raise ApiError(400, f"prompt holds no tokens, or ids beyond this model's {text.size}.", param="prompt")
            return found
        try:
            return [tuple(text.encode_chat(ask.messages))]
        except TemplateError as exc:
            raise ApiError(400, str(exc), param="messages") from exc
