"""The pool's state: its replicas, its tokenizer, and which replica runs which job. Knows replicas and metrics; no HTTP, no files.

Owned by the server's loop. States: starting → ready → ended, or starting → failed. A dead replica's rows go to the others
and start from the prompt; where nothing of them was sent yet, the client sees no difference. Without any replica left the pool ends.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holynb.pool.protocol import Job
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.apierror import ApiError
from holynb.pool.server.clients import Clients
from holynb.pool.server.dispatch import PrefixDispatcher
from holynb.pool.server.jobs import check_token_ids, jobs_of, room_for
from holynb.pool.server.metrics import Metrics, ReplicaStats, device_memory
from holynb.pool.server.pooling import Pooling
from holynb.pool.server.prompts import PromptEncoder
from holynb.pool.server.replica import Generation, GenerationLost, Replica
from holynb.pool.server.tokenizer import ChatTokenizer

__all__ = ["Identity", "Service"]

#: How often a row is started. One that kills every replica it meets must not kill them all.
_MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """The names a request may call the pool by: its own, or the MODEL it was started with."""

    name: str
    model: str

    def matches(self, model: str) -> bool:
        return model in {"", self.name, self.model}


class Service:
    """Written by the server's lifecycle and by replicas' frames; read by the routes."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.metrics = Metrics()
        self.clients = Clients()
        self.state = "starting"
        self.stage = "starting"
        self.share: float | None = None
        self.why: str | None = None
        self.deaths: list[str] = []
        self.changes: list[dict[str, Any]] = []
        """Of a ready pool: when a replica was lost, and when one came back."""
        self.tokenizer: ChatTokenizer | None = None
        self.max_len = 0
        self.pipe = 1
        """Into how many stages the model is divided."""
        self.pooling = Pooling()
        self.used_at = time.monotonic()
        self.requests = 0
        self.stopped = asyncio.Event()
        self._settled = asyncio.Event()
        self.restart_replica: Callable[[Replica], bool] = lambda replica: False
        """Called where a replica of a ready pool died; returns whether it is restarted. `add_replica` or `on_replica_end` follows then."""
        self.more_health: Callable[[], dict[str, Any]] = dict
        """What else `/health` says: of nodes, where a pool has several."""
        self._replicas: list[Replica] = []
        self._leaving: list[Replica] = []
        """Get no further rows, and end when they have none."""
        self._restarting = 0
        self._job_ids = itertools.count(1)
        self._parked: list[Generation] = []
        self._dispatcher: PrefixDispatcher[Replica] = PrefixDispatcher()
        self._prompts = PromptEncoder()

    async def name_of(self, key: bytes) -> str | None:
        """Whose named token this is, at the port; None: nobody's."""
        return await self.clients.name_of(key)

    # -- lifecycle -------------------------------------------------------------------------------------------------
    def set_stage(self, stage: str, share: float | None = None) -> None:
        """How far the start is. A pool that is ready stays so, whatever begins beside it."""
        if self.state == "starting":
            self.stage, self.share = stage, share

    def add_replica(self, replica: Replica, *, restarted: bool = False) -> None:
        """A replica whose processes were started; `restarted`: in place of one that died, and its weights are loaded."""
        replica.on_tokens = lambda g, count, before, now: self.metrics.tokens(count, g.created_at, before, now)
        self._replicas.append(replica)
        self._dispatcher.add(replica)
        self._restarting -= restarted
        whats = [c["what"] for c in self.changes]
        if restarted and whats.count("lost") > whats.count("came back"):  # else it is a further one
            self.changes.append({"at": time.time(), "what": "came back", "why": ""})
        parked, self._parked = self._parked, []
        for generation in parked:
            self._dispatch(generation)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Those that get rows."""
        return tuple(self._replicas)

    def expect_replica(self) -> None:
        """A further one comes: `add_replica(…, restarted=True)` follows, or its end."""
        self._restarting += 1

    def retire(self, replica: Replica) -> None:
        """This replica gets no further rows; those it has go on."""
        self._replicas.remove(replica)
        self._dispatcher.remove(replica)
        self._leaving.append(replica)

    def set_ready(self, tokenizer: ChatTokenizer) -> None:
        """From now on requests are answered."""
        limits = [max_len for r in self._replicas if (max_len := r.stats.get("max_len"))]
        self.tokenizer, self.max_len = tokenizer, min([tokenizer.context, *limits])
        self.state, self.stage, self.share = "ready", "ready", None
        self._settled.set()

    def fail(self, why: str, code: str = "replica_died") -> None:
        """The pool ends because of an error. Waiting requests get it as their error, parked rows with `code`."""
        if self.state not in {"failed", "ended"}:
            self.state, self.stage, self.why = "failed", why, why
        self._settled.set()
        self.stopped.set()
        self._fail_generations(self._parked, why, code)

    def end(self, why: str) -> None:
        if self.state != "failed":
            self.state, self.why = "ended", why
        self._settled.set()
        self.stopped.set()
        self._fail_generations(self._parked, why)

    def on_replica_end(self, replica: Replica, reason: str, unfinished: list[Generation]) -> None:
        """A replica died: its rows go to the others, or end as errors with the reason."""
        retired = replica in self._leaving
        if retired:
            self._leaving.remove(replica)
        elif replica in self._replicas:
            self._replicas.remove(replica)
            self._dispatcher.remove(replica)
        elif self.state == "ready":
            self._restarting -= 1  # a restart that died before it was ready
        if self.state in {"ended", "failed"}:
            reason = f"{reason}. {self.why}" if self.why else reason
        elif not retired or unfinished:
            self.deaths.append(reason)
            if not retired:
                self.changes.append({"at": time.time(), "what": "lost", "why": reason})
            if self.state == "ready" and not retired and self.restart_replica(replica):
                self._restarting += 1
        retried = [g for g in unfinished if (self._replicas or self._restarting) and not g.streamed and g.attempts < _MAX_ATTEMPTS]
        code = "oom" if replica.oom else "replica_died"
        self._fail_generations([g for g in unfinished if g not in retried], reason, code)
        for generation in retried:
            if replica.oom:
                generation.notes.add("oom")
            generation.restart()
            self._dispatch(generation)
        if not self._replicas and not self._restarting:
            self.fail(f"{'a replica did not start' if self.state == 'starting' else 'its last replica is gone'}: {reason}", code)

    def _fail_generations(self, generations: list[Generation], reason: str, code: str = "replica_died") -> None:
        """These rows end as errors."""
        for generation in list(generations):
            generation.error = GenerationLost(f"The pool {self.identity.name} lost the replica that wrote this row: {reason}", code)
            generation.notify(time.monotonic())
        generations.clear()

    # -- requests --------------------------------------------------------------------------------------------------
    async def wait_ready(self) -> ChatTokenizer:
        """Wait until the pool answers requests. Raises ApiError 503 where it never will."""
        await self._settled.wait()
        if self.tokenizer is None or self.state != "ready":
            raise ApiError(503, f"The pool {self.identity.name} does not run: {self.why}", code="pool_failed")
        return self.tokenizer

    async def encode(self, request: ApiRequest, tokenizer: ChatTokenizer) -> list[tuple[int, ...]]:
        """The ids of each prompt; other requests go on meanwhile. Raises ApiError 400."""
        return await self._prompts.encode(request, tokenizer, self.max_len)

    def jobs(
        self, request: ApiRequest, prompts: Sequence[tuple[int, ...]], tokenizer: ChatTokenizer, grammar: str | None = None
    ) -> list[Job]:
        """One per choice. Raises ApiError 400 for a prompt too long, or where a field names unknown tokens."""
        check_token_ids(request, tokenizer)
        out: list[Job] = []
        numbers = zip(self._job_ids, itertools.count(), strict=False)
        for ids in prompts:
            room = room_for(request, ids, self.max_len)
            out += jobs_of(request, tokenizer, ids, room, grammar=grammar, numbers=numbers)
        return out

    def submit(self, jobs: Sequence[Job], client: str | None = None) -> list[Generation]:
        """Hand jobs to replicas. `client`: whose named token asks; clients take turns there."""
        out = []
        for job in jobs:
            generation = Generation(job if client is None else replace(job, client=client))
            self.metrics.tokens_in += len(job.ids)
            self._dispatch(generation)
            out.append(generation)
        return out

    def next_job(self) -> int:
        """A number that no other job of this pool has."""
        return next(self._job_ids)

    def cancel(self, generation: Generation) -> None:
        if generation in self._parked:
            self._parked.remove(generation)
        for replica in (*self._replicas, *self._leaving):
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
            "chats": self.tokenizer is None or self.tokenizer.chats,
            "requests": self.requests,
            "idle_s": 0.0 if self.requests else round(time.monotonic() - self.used_at, 1),
            "tokens_in": self.metrics.tokens_in,
            "tokens_out": self.metrics.tokens_out,
            "deaths": self.deaths[-5:],
            "changes": self.changes[-10:],
            "restarting": self._restarting,
            "replicas": [dict(s) for s in self.stats()],
            "devices": [parts for s in self.stats() for rank in s.get("ranks", ()) if (parts := device_memory(rank)) is not None],
            "clients": self.clients.figures(),
            **self.more_health(),
        }

    @property
    def queued(self) -> int:
        """Rows that wait: in no batch yet, or without a replica."""
        return len(self._parked) + sum(r.waiting for r in self._replicas)

    def stats(self) -> list[ReplicaStats]:
        return [r.stats for r in self._replicas]

    def _dispatch(self, generation: Generation) -> None:
        if not self._replicas:
            if self._restarting:
                self._parked.append(generation)
                return
            raise ApiError(503, f"The pool {self.identity.name} does not run: {self.why}", code="pool_failed")
        job = generation.job
        self._dispatcher.choose(job.ids, len(job.ids) + job.max_new).add(generation)
