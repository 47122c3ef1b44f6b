"""Rows that a second model judges, while they run: each answer is kept, judged, and ended with its score. Lives on the io thread.

A sink between the scheduler and the run's recorder. To the scheduler each verdict is a work item with a row number of its own, from n on;
the journal sees the row alone: its attempts counted through, its cost with the judge's, one end. What is judged alike is judged once.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from holynb.events import Ended, Event, Failed, Started
from holynb.journal import Journal, Payment, Sink
from holynb.run.judge import Judge
from holynb.run.pending import from_log
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.run.verdicts import judged
from holynb.runlog import PARTS_PER_ROW, VERDICTS_SUFFIX, RunLog, StoredRow
from holynb.scheduler import WorkItem
from holynb.types import Outcome, Request

__all__ = ["JudgedRows"]

#: Requests that are made before others on the io thread get their turn.
REQUESTS_PER_TURN = 200
#: What stands for a row of the scheduler's that has ended.
ENDED = Outcome("ok")


@dataclass(slots=True)
class _Case:
    """A verdict that is asked for: the rows that wait for it, the first of which pays. `place`: in the run log."""

    key: str
    place: int
    rows: list[int] = field(default_factory=list)


class JudgedRows(Sink):
    """The sink of a scheduler whose answers are judged: its `rows` go on after n with the verdicts. Set `add` to the scheduler's."""

    def __init__(self, plan: Plan, judge: Judge, journal: Journal, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.rows: list[Outcome | None] = [None] * len(plan.rows.requests)
        self.add: Callable[[WorkItem], bool] = lambda _: False
        self._plan, self._judge, self._journal, self._recorder = plan, judge, journal, recorder
        self._address = plan.addresses[judge.route]
        self._held: dict[int, Outcome] = {}
        self._cases: dict[int, _Case] = {}
        self._by_key: dict[str, _Case] = {}
        self._own: Mapping[str, Outcome] = {}
        self._next: dict[int, int] = {}
        self._logged: dict[int, str | None] = {}
        """Row → the key of the newest verdict that the log has on it as this run's."""

    # -- before the scheduler ----------------------------------------------------------------------------------------
    def settle(self, row: int, outcome: Outcome) -> None:
        """A row that needs no request: it ends now, or is judged first (`begin`)."""
        if outcome.status != "ok":
            self.rows[row] = ENDED
            self._recorder.settle(row, outcome)
        else:
            self._hold(Ended(row, outcome, time.time()))

    async def begin(self) -> list[WorkItem]:
        """What to ask about the answers that are there already: those that the log has no verdict on."""
        log, items = self._recorder.log, list[WorkItem]()
        self.add = lambda item: not items.append(item)  # type: ignore[func-returns-value]
        cases: dict[int, tuple[Request, str]] = {}
        for i, row in enumerate(list(self._held)):
            cases[row] = self._case_of(row)
            if i % REQUESTS_PER_TURN == REQUESTS_PER_TURN - 1:
                await asyncio.sleep(0)
        shared: Mapping[str, Outcome] = {}
        if log is not None:
            try:
                self._own = await asyncio.to_thread(self._read, log)
                if self._plan.options.cache and not self._plan.options.refresh:
                    shared = await asyncio.to_thread(log.cached, list(dict.fromkeys(key for _, key in cases.values())))
            except sqlite3.Error as exc:
                self._recorder.give_up(exc)
        for row, (request, key) in cases.items():
            verdict = self._own.get(key) or shared.get(key)
            if verdict is not None and self._judge.verdict(verdict)[0] is not None:
                self._share(row, key, verdict)
            else:
                self._ask(row, request, key)
        return items

    def _read(self, log: RunLog) -> dict[str, Outcome]:
        """The run's own verdicts by key, and where the next of each row stands."""
        own = {}
        for place, (key, outcome) in sorted(log.answers(f"{self._recorder.run}{VERDICTS_SUFFIX}").items()):
            row, at = divmod(place, PARTS_PER_ROW)
            self._next[row] = max(self._next.get(row, 0), at + 1)
            self._logged[row] = key  # in order of place
            if key is not None and outcome.status == "ok" and not self._plan.options.refresh:
                own[key] = outcome
        return own

    def sweep(self) -> None:
        """Nothing is left without an end: an answer that nobody will judge any more is one all the same."""
        for row in list(self._held):
            self._end(row, Outcome("cancelled"))

    # -- a sink ------------------------------------------------------------------------------------------------------
    def append(self, event: Event) -> Awaitable[None] | None:
        """An answer is kept and judged; an event of a verdict becomes one of its row."""
        if not isinstance(event, Started | Failed | Ended):
            return self._recorder.append(event)
        case = self._cases.get(event.row)
        if case is not None:
            return self._of_verdict(case, event)
        if not isinstance(event, Ended):
            return self._recorder.append(event)
        self.rows[event.row] = ENDED
        if event.outcome.status != "ok":
            return self._recorder.append(event)
        kept = self._hold(event)
        self._ask(event.row, *self._case_of(event.row))
        return kept

    def record_payment(self, payment: Payment) -> None:
        """What a verdict came to is its row's."""
        case = self._cases.get(payment.row)
        self._recorder.record_payment(payment if case is None else replace(payment, row=case.rows[0]))

    def row_shown(self, row: int) -> int | None:
        """The answer's own; of a verdict nothing is shown before it is there."""
        return None if row in self._cases else row

    # -- a row -------------------------------------------------------------------------------------------------------
    def _hold(self, event: Ended) -> Awaitable[None] | None:
        """Keep an answer that is paid for, before it is judged. Returns something to wait for until it is on disk."""
        self.rows[event.row] = ENDED
        self._held[event.row] = event.outcome
        self._journal.replace_text(event.row, event.outcome.text or "")
        return self._recorder.keep(event)

    def _case_of(self, row: int) -> tuple[Request, str]:
        """The request for the verdict on a row's answer, and its key."""
        request, answer = self._plan.rows.requests[row], self._held[row]
        verdict = self._judge.request(row, () if request is None else request.messages, answer.text or "")
        return verdict, verdict.key(self._address)

    def _ask(self, row: int, request: Request, key: str) -> None:
        if (same := self._by_key.get(key)) is not None:
            same.rows.append(row)
            return
        number = len(self.rows)
        self.rows.append(None)
        request = replace(request, row=number)
        place = self._place_of(row)
        case = self._cases[number] = _Case(key, place, [row])
        if self._plan.options.cache:
            self._by_key[key] = case
        self._recorder.keep_requests(
            VERDICTS_SUFFIX, [StoredRow(place, 0, key, [row, "judge"], request.messages, request.sampling, str(request.route))]
        )
        if not self.add(WorkItem(request, (str(self._judge.route),), urgent=True)):
            self._drop(number)
            self._end(row, Outcome("error", error_type="connection", error="not judged: the judge's route has been given up"))

    def _of_verdict(self, case: _Case, event: Started | Failed | Ended) -> Awaitable[None] | None:
        payer = case.rows[0]
        if not isinstance(event, Ended):
            attempt = event.attempt + self._held[payer].attempts
            promise = self._recorder.append(replace(event, row=payer, attempt=attempt))
            self._journal.replace_text(payer, self._held[payer].text or "")
            return promise
        self._drop(event.row)
        promise = self._recorder.keep_end(VERDICTS_SUFFIX, replace(event, row=case.place), case.key)
        self._end(payer, event.outcome)
        for row in case.rows[1:]:
            self._share(row, case.key, event.outcome)
        return promise

    def _share(self, row: int, key: str, verdict: Outcome) -> None:
        """End a row by a verdict that was asked for another, or before; the log has it for each of them."""
        verdict = from_log(verdict)
        if self._logged.get(row) != key:
            self._recorder.keep_end(VERDICTS_SUFFIX, Ended(self._place_of(row), verdict, time.time()), key, paid=False)
        self._end(row, verdict)

    def _place_of(self, row: int) -> int:
        """Where the next verdict on a row stands in the log."""
        at = self._next.get(row, 0)
        self._next[row] = at + 1
        return row * PARTS_PER_ROW + at

    def _drop(self, number: int) -> None:
        self.rows[number] = ENDED
        case = self._cases.pop(number)
        self._by_key.pop(case.key, None)

    def _end(self, row: int, verdict: Outcome) -> None:
        self._recorder.append(Ended(row, judged(self._held.pop(row), verdict, self._judge), time.time()))
