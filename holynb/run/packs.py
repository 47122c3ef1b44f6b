"""Rows of `--embed` while they run: many in one request, each with an end of its own. Lives on the io thread.

A sink between the scheduler and the run's recorder. To the scheduler each request is a work item with a number of its own, so limits,
retries, budget and failover are those of requests; journal and log see rows alone. A request that is refused for something in it is cut
in two, until the row that is meant fails by itself; where nothing has been answered yet, short rows are asked alone first, so that a
refusal of everything costs three requests, and not one for each row.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from holynb.events import Ended, Event, Failed, Started
from holynb.journal import Payment, Sink
from holynb.run.pack import Own, Pack, added, limits, packed
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.scheduler import WorkItem, shared_outcome
from holynb.types import Outcome, Request, Usage

__all__ = ["Packs"]

#: Faults that may be about one text of many.
ABOUT_A_TEXT = ("bad_request", "context_length", "content_filter")
#: Rows that are asked alone where nothing was answered yet: with so many refused, everything is.
SCOUTS = 2


class Packs(Sink):
    """The sink of a scheduler whose requests have many rows. `rows[i]` is how request i ended.

    After `begin` set `add` to the scheduler's.
    """

    def __init__(self, plan: Plan, sink: Recorder) -> None:
        super().__init__(sink)
        self.rows: list[Outcome | None] = []
        self.add: Callable[[WorkItem], bool] = lambda _: False
        self._sink = sink
        self._packs: list[Pack] = []
        self._request: Request | None = None
        self._dimensions = plan.options.dimensions
        self._given_length = plan.options.dimensions is not None
        self._most = limits(plan)
        self._answered = self._hopeless = False
        self._held: list[Pack] = []

    def begin(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The requests to send first: rows in order, as many together as may be."""
        if items:
            self._request = items[0].request
        return [self._item(pack) for pack in packed(items, self._most)]

    def _item(self, pack: Pack) -> WorkItem:
        """A request for these rows, under a new number."""
        if self._request is None:
            raise ValueError("no row was given")
        number = len(self._packs)
        self._packs.append(pack)
        self.rows.append(None)
        request = replace(self._request, row=number, messages=tuple([u.message for u in pack.units]), stream=False)
        return WorkItem(request, pack.chain)

    # -- a sink ------------------------------------------------------------------------------------------------------
    def append(self, event: Event) -> Awaitable[None] | None:
        """An event of a request becomes one of each of its rows."""
        if isinstance(event, Ended):
            self.rows[event.row] = event.outcome
            return self._ended(self._packs[event.row], event.outcome)
        if not isinstance(event, Started | Failed):
            return self._sink.append(event)
        pack = self._packs[event.row]
        if isinstance(event, Started):
            attempt = pack.attempts + event.attempt
            for unit in pack.units:
                self._sink.append(Started(unit.row, attempt, event.route, event.at))
            return None
        parts = None if event.usage is None else pack.shares(event.usage, None)
        for i, unit in enumerate(pack.units):
            usage = None if parts is None else parts[i][0]
            # What the server sent is kept once, not for each row.
            self._sink.append(
                replace(event, row=unit.row, attempt=pack.attempts + event.attempt, usage=usage, raw=event.raw if i == 0 else None)
            )
        return None

    def record_payment(self, payment: Payment) -> None:
        """What a request came to, as its rows' shares."""
        pack = self._packs[payment.row]
        self._sink.record_shares(payment, [unit.row for unit in pack.units], pack.shares(payment.usage, payment.cost))

    def row_shown(self, row: int) -> int | None:  # noqa: ARG002 - as every sink is asked
        """None: vectors come whole."""
        return None

    # -- the end of a request ----------------------------------------------------------------------------------------
    def _ended(self, pack: Pack, outcome: Outcome) -> Awaitable[None] | None:
        refused = outcome.status == "error" and outcome.error_type in ABOUT_A_TEXT
        if outcome.status == "ok":
            promise = self._answer(pack, outcome)
            self._answered = True
            return self._release() or promise
        if refused and not pack.alone and not self._hopeless and len(pack.units) > 1:
            self._spend(pack, outcome)
            pack.attempts, pack.refusal = pack.attempts + outcome.attempts, outcome
            if self._answered:
                return self._cut(pack)
            self._held.append(pack)
            return self._scout() if not self._scouting else None
        promise = self._end_rows(pack, outcome)
        if not pack.alone or self._answered:
            return promise
        if outcome.status == "cancelled" or outcome.error_type == "deadline":
            return self._end_held(outcome) or promise
        tried = sum(p.alone for p, ended in zip(self._packs, self.rows, strict=True) if ended is not None)
        if refused and tried >= SCOUTS:
            self._hopeless = True
            return self._end_held(None) or promise
        return (self._scout() if refused else self._release()) or promise

    @property
    def _scouting(self) -> bool:
        return any(p.alone and ended is None for p, ended in zip(self._packs, self.rows, strict=True))

    def _scout(self) -> Awaitable[None] | None:
        """Ask the shortest row that is held alone: if it is refused, too, it is not for its text."""
        self._held = [p for p in self._held if p.units]
        pack = min(self._held, key=lambda p: min(u.size for u in p.units), default=None)
        if pack is None:
            return None
        unit = min(pack.units, key=lambda u: u.size)
        pack.units.remove(unit)
        pack.__post_init__()
        return self._send(Pack([unit], pack.chain, pack.attempts, alone=True, refusal=pack.refusal))

    def _release(self) -> Awaitable[None] | None:
        """Ask what was held, now that something was answered, or failed for another reason."""
        held, self._held = self._held, []
        promise = None
        for pack in held:
            promise = self._cut(pack) or promise
        return promise

    def _end_held(self, outcome: Outcome | None) -> Awaitable[None] | None:
        """End what was held, as its own request was refused, or with this outcome."""
        held, self._held = self._held, []
        promise = None
        for pack in held:
            ending = outcome or pack.refusal
            if ending is not None and pack.units:
                promise = self._end_rows(pack, replace(ending, attempts=0, usage=Usage(), cost=None)) or promise
        return promise

    def _cut(self, pack: Pack) -> Awaitable[None] | None:
        """Ask a refused request's rows again, in two."""
        half = len(pack.units) // 2
        promise = None
        for units in (pack.units[:half], pack.units[half:]):
            if units:
                promise = self._send(Pack(units, pack.chain, pack.attempts, refusal=pack.refusal)) or promise
        return promise

    def _send(self, pack: Pack) -> Awaitable[None] | None:
        """Give a request to the scheduler; where no route is left that takes it, its rows end as it was refused."""
        item = self._item(pack)
        if self.add(item):
            return None
        ending = pack.refusal or Outcome("error", error_type="connection", error="not sent: all routes have been given up")
        ending = replace(ending, attempts=0, usage=Usage(), cost=None)
        self.rows[item.request.row] = ending
        return self._end_rows(pack, ending)

    # -- the ends of rows --------------------------------------------------------------------------------------------
    def _spend(self, pack: Pack, outcome: Outcome) -> None:
        """Keep with each row what the request came to that gave it no end."""
        for unit, share in zip(pack.units, pack.shares(outcome.usage, outcome.cost), strict=True):
            unit.spent = added(unit.spent, share)

    def _end_rows(self, pack: Pack, outcome: Outcome, own: Sequence[Own] = ()) -> Awaitable[None] | None:
        """End each row, and those that ask the same. Returns what to wait for until all are on disk."""
        now, ends = time.time(), list[Ended]()
        parts, attempts = pack.shares(outcome.usage, outcome.cost), pack.attempts + outcome.attempts
        status, kind, error = outcome.status, outcome.error_type, outcome.error
        text, vector = outcome.text, None
        for i, unit in enumerate(pack.units):
            usage, cost = parts[i] if unit.spent is None else added(unit.spent, parts[i])
            if own:
                vector, text = own[i]
            ended = Outcome(
                status,
                text,
                kind,
                error,
                outcome.route,
                outcome.model,
                attempts,
                usage,
                cost,
                outcome.latency_s,
                None,
                outcome.finish_reason,
                tier=outcome.tier,
                vector=vector,
            )
            ends.append(Ended(unit.row, ended, now))
            if unit.followers:
                same = shared_outcome(ended)
                ends += [Ended(row, same, now) for row in unit.followers]
        return self._sink.append_ends(ends)

    def _answer(self, pack: Pack, outcome: Outcome) -> Awaitable[None] | None:
        """End the rows of an answer with their vectors, or as errors where those are of another length than the ones before."""
        import numpy as np

        whole, n = outcome.vector or b"", len(pack.units)
        size = len(whole) // n
        length = size // 4
        if self._dimensions is None:
            self._dimensions = length
        if length != self._dimensions:
            others = f"--dimensions asks for {self._dimensions:,}" if self._given_length else f"those before have {self._dimensions:,}"
            error = f"the vector has {length:,} dimensions, and {others}: vectors of several lengths cannot stand in one column"
            return self._end_rows(pack, replace(outcome, status="error", error_type="invalid_output", error=error, text=None))
        norms = np.linalg.norm(np.frombuffer(whole, "<f4").reshape(n, length), axis=1).tolist()
        words = f"{length:,} dimensions, norm"
        return self._end_rows(pack, outcome, [(whole[i * size : (i + 1) * size], f"{words} {norm:.4g}") for i, norm in enumerate(norms)])
