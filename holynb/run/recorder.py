"""One run's side of the run log: what is known already, what is written as it happens, and what to do when it cannot be written.

Lives on the io thread. A log that fails (disk full, locked, read-only) is said once, and the run goes on in memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from holynb import runlog
from holynb.config import settings
from holynb.journal import Journal, Paid, ended
from holynb.results import frame
from holynb.run.plan import Plan, cut_key
from holynb.runlog import PART_ROWS, Lease, RunLog, RunRecord, StoredRow
from holynb.types import Ended, Event, Outcome, Sampling

__all__ = ["Found", "Recorder"]


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that the log can answer, as they were answered, and what they cost then."""

    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    saved: Decimal | None = None


class Recorder:
    """Called with every event of its run; returns something to wait for where the event must be on disk first."""

    def __init__(self, run: str, n: int, *, share: bool) -> None:
        self.run = run
        self.keys: list[str | None] = [None] * n
        self._cut: dict[int, str] = {}
        self.journal: Journal | None = None
        self._share = share
        self._turn = Lease()
        self.log: RunLog | None = None
        self._mine: set[int] = set()
        self._parted: set[int] = set()
        self._other: list[int] = []
        self._older = 0

    def __call__(self, event: Event | Paid) -> Awaitable[None] | None:
        if self.log is None:
            return None
        if isinstance(event, Paid):
            self.log.pay(self.run, event)
            return None
        if not isinstance(event, Ended):
            return self.log.event(self.run, event, None, shared=False)
        if event.row in self._mine:
            return None  # this run's own earlier answer, which stands in the log with what it cost
        if event.row not in self._parted:
            self._pay(event)
        shared = self._share and not event.outcome.cached
        promise = self.log.event(self.run, event, self.keys[event.row], shared=shared)
        return None if promise is None else self._safe(promise)

    async def begin(self, plan: Plan, record: RunRecord) -> Found:
        """Give each request its key, look up what is known, write the run and its requests. 500 rows at a time, so others go on.

        Raises BadOption where the run goes on elsewhere.
        """
        await self._turn.take(settings.home(), self.run, record.name, begins=plan.continues is None)
        addresses = {e.route: e.base_url for e in plan.endpoints}
        for i, request in enumerate(plan.requests):
            self.keys[i] = None if request is None else request.key(addresses[request.route])
            if request is not None and plan.options.chunk is not None:
                self._cut[i] = cut_key(request, addresses[request.route], plan.options.chunk)
            if i in plan.long:
                self._cut_off(i)
            if i % 500 == 499:
                await asyncio.sleep(0)
        self.log = runlog.log()
        try:
            found = await asyncio.to_thread(self._known, self.log, plan)
            labels = frame.labels(plan.index) if plan.index is not None else list(range(len(self.keys)))
            # What --only failed keeps stays beside the request that it answered: asked anew, it would be another question.
            asked = [r for r in plan.requests if r and not (r.row in plan.kept and r.row in self._mine)]
            rows = [StoredRow(r.row, r.sample, self.keys[r.row], labels[r.row], r.messages, r.sampling, str(r.route)) for r in asked]
            # A row that asks nothing has a place in the index all the same.
            rows += [StoredRow(i, 0, None, labels[i], (), Sampling(), record.route) for i, r in enumerate(plan.requests) if r is None]
            await self.log.start(record, rows, self._other)
            if self._older and self.journal is not None:
                said = (
                    "1 row that --only failed keeps is an answer"
                    if self._older == 1
                    else f"{self._older:,} rows that --only failed keeps are answers"
                )
                self.journal.note(f"{said} to other prompts than these.", "warning")
        except (sqlite3.Error, OSError) as exc:
            self.give_up(exc)
            return Found()
        return found

    def part(self, row: int) -> None:
        """This row is asked in parts now: they are what is paid, and how they end is what counts."""
        self._parted.add(row)
        self._cut_off(row)

    def _cut_off(self, row: int) -> None:
        """The answer of a row in parts is not the one to its whole prompt: it is kept under another key."""
        self.keys[row] = self._cut.get(row)

    def more(self, beside: str, rows: Iterable[StoredRow]) -> None:
        """Keep requests beside the run's own, under its id with `beside` behind it."""
        if self.log is not None:
            self._safe(self.log.more(f"{self.run}{beside}", rows))

    def keep(self, beside: str, event: Ended, key: str | None) -> Awaitable[None] | None:
        """Keep the end of such a request. Returns something to wait for."""
        if self.log is None:
            return None
        self._pay(replace(event, row=event.row // PART_ROWS))
        promise = self.log.event(f"{self.run}{beside}", event, key, shared=self._share and not event.outcome.cached)
        return None if promise is None else self._safe(promise)

    def _pay(self, event: Ended) -> None:
        paid = ended(event)
        if self.log is not None and paid is not None:
            self.log.pay(self.run, paid)

    async def finish(self, status: str) -> None:
        """Say in the log how the run ended, after everything else of it is written."""
        if self.log is not None:
            await self._safe(self.log.finish(self.run, status))
        self._turn.free()

    def _known(self, log: RunLog, plan: Plan) -> Found:
        """Rows of this run answered before (same key), then, where the cache may answer, rows any run has answered."""
        options = plan.options
        known: dict[int, Outcome] = {}
        before = log.answers(self.run)
        for row, (key, outcome) in before.items():
            if row < len(self.keys) and key is not None and outcome.status == "ok" and not options.refresh and self._fits(row, key):
                known[row] = outcome
        known = _held(plan, known)
        self._mine = set(known) | (set(plan.kept) & set(before))
        if plan.kept:
            asked = {r.row: r.messages for r in log.requests(self.run)}
            self._older = sum(r is not None and r.row in plan.kept and asked.get(r.row, r.messages) != r.messages for r in plan.requests)
        # A name that is used again for other prompts must not cost the answers that were paid under it.
        self._other = [row for row, (key, o) in before.items() if row not in self._mine and self._elsewhere(row, key, o)]
        if options.cache and not options.refresh:
            wanted = {key: None for row, key in enumerate(self.keys) if key is not None and row not in known}
            found = log.cached(list(wanted))
            more = {row: found[key] for row, key in enumerate(self.keys) if key in found and row not in known}
            # A row that a server found too long stands there as one that was asked in parts.
            cut = {row: key for row, key in self._cut.items() if row not in known and row not in more}
            found = log.cached(list(set(cut.values())))
            more |= {row: found[key] for row, key in cut.items() if key in found and self._fits(row, key)}
            known |= _held(plan, more)
        costs = [o.cost for row, o in known.items() if o.cost is not None and row not in plan.kept]
        return Found(known, sum(costs, Decimal(0)) if costs else None)

    def _elsewhere(self, row: int, key: str | None, outcome: Outcome) -> bool:
        """Whether an answer stands at a row that asks something else now, or is none any more."""
        return row >= len(self.keys) or (outcome.status == "ok" and key not in (self.keys[row], self._cut.get(row)))

    def _fits(self, row: int, key: str) -> bool:
        """Whether an answer under this key is the row's, whole or in parts."""
        if key == self._cut.get(row):
            self.keys[row] = key
        return key == self.keys[row]

    def _safe(self, promise: asyncio.Future[None]) -> asyncio.Future[None]:
        """A future that is done when `promise` is and never fails: a failed write is said, and the run goes on. Need not be awaited."""
        told: asyncio.Future[None] = promise.get_loop().create_future()

        def heard(done: asyncio.Future[None]) -> None:
            failure = None if done.cancelled() else done.exception()
            if isinstance(failure, Exception):
                self.give_up(failure)
            if not told.done():
                told.set_result(None)

        promise.add_done_callback(heard)
        return told

    def give_up(self, exc: Exception) -> None:
        """The log cannot be used: said once, and the run goes on in memory."""
        if self.log is not None and self.journal is not None:
            path, self.log = self.log.path, None
            self.journal.note(
                f"The run log {path} cannot be written ({exc.__cause__ or exc}). Answers are kept in memory only: save the frame, then free "
                "space or set HOLYNB_HOME to another place.",
                "warning",
            )


def _held(plan: Plan, known: dict[int, Outcome]) -> dict[int, Outcome]:
    """Those that hold to the run's schema. The checks of a pydantic model may have changed where what a server is told has not."""
    if plan.schema is None:
        return known
    return {row: o for row, o in known.items() if plan.schema.check(o.text or "").error is None}
