"""What comes out of a batch, as outcomes and payments of its rows: checked and priced as answers that come one by one. Sends nothing.

Owned by the io thread. A row that is to be asked again is given back to whoever submits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from holynb.batches import Answered
from holynb.errors import Fault
from holynb.events import Failed
from holynb.faults import UNBILLED_KINDS
from holynb.run.batch.marks import BatchMarks
from holynb.run.plan import traits
from holynb.run.recorder import Recorder
from holynb.scheduler import Money, ResponseValidator, RowEnds, WorkItem, check_empty, ok_outcome, record_usage
from holynb.types import Completion, Done, Outcome, Request, Route

if TYPE_CHECKING:
    from holynb.engines.hosted import Hosted

__all__ = ["BatchAnswers", "Origin"]


class Origin(NamedTuple):
    """The batch that a result is of: when it was submitted, and the traits that its requests were written with."""

    at: float
    written_with: frozenset[str] | None = None


#: The service tier that answers of a batch are priced at.
TIER = "batch"
#: A row that a server refuses in ever new ways is asked so often at most.
MAX_ATTEMPTS = 4


class BatchAnswers:
    """`paid`: when the log has a payment of a row, so that results which are read a second time are not paid twice. `reserved`: dollars of
    the budget, by row. `marks`: of each route's prompt cache, where its rows say anything of it.
    """

    def __init__(self, recorder: Recorder, engines: Mapping[Route, Hosted], money: Money, validator: ResponseValidator | None) -> None:
        self._recorder, self._engines, self._money, self._validator = recorder, engines, money, validator
        self._ends = RowEnds(recorder)
        self._writes: list[Awaitable[None]] = []
        self.paid: Mapping[int, float] = {}
        self.reserved: dict[int, Decimal] = {}
        self.marks: Mapping[Route, BatchMarks] = {}

    def sent(self, item: WorkItem) -> Request:
        """The item's request as its batch holds it."""
        route = item.request.route
        request = item.request if self._validator is None else self._validator.prepare(item.request, route, item.repair_messages)
        return self.marks[route].marked(request) if route in self.marks else request

    def take(self, item: WorkItem, answered: Answered, origin: Origin) -> bool:
        """End the row by what came of it; returns whether it is to be asked again instead."""
        item.attempts += 1
        if answered.what in ("expired", "cancelled"):
            self._settle(item, Decimal(0))
            self.end(item, self._unanswered(item, answered.what))
            return False
        try:
            completion = self._completion(item, answered, origin)
        except Fault as fault:
            return self._failed(item, fault, origin.at)
        self._pay(item, completion, origin.at)
        self.end(item, replace(ok_outcome(item, item.request.route, completion, (0.0, None)), latency_s=None))
        return False

    def refuse(self, item: WorkItem, fault: Fault) -> None:
        """End a row whose batch was refused, or that went into none."""
        self._settle(item, Decimal(0))
        self.end(item, self._error(item, fault))

    def end(self, item: WorkItem, outcome: Outcome) -> None:
        """End the row and those that ask the same."""
        self._writes += self._ends.settle(item, outcome)

    async def written(self) -> None:
        """Wait until all that has ended is on disk."""
        writes, self._writes = self._writes, []
        for write in writes:
            await asyncio.shield(asyncio.ensure_future(write))

    # -- inside ----------------------------------------------------------------------------------------------------
    def _completion(self, item: WorkItem, answered: Answered, origin: Origin) -> Completion:
        """The answer. Raises Fault, also for an empty answer and one that does not fit the schema."""
        route, sent = item.request.route, self.sent(item)
        try:
            if answered.what == "error":
                raise self._engines[route].refused(sent, answered.status, answered.value, origin.written_with)
            completion = self._engines[route].heard(answered.value).on_tier(TIER)
            check_empty(item, sent, Done(completion), traits(route))
        except Fault as fault:
            if self._validator is None:
                raise
            raise self._validator.translate(item, route, sent, fault) from None
        if self._validator is not None:
            self._validator.check(item, completion)
        return completion

    def _failed(self, item: WorkItem, fault: Fault, since: float) -> bool:
        if fault.usage is not None:
            fault.tier = TIER
            self._pay(item, fault, since)
        else:
            self._settle(item, Decimal(0) if fault.kind in UNBILLED_KINDS or fault.status is not None else None)
        # What is asked again at once is written differently, or asks for a repair. What a wait may cure is for --only failed.
        if fault.retry and fault.wait == 0.0 and item.attempts < MAX_ATTEMPTS:
            row, route = item.request.row, str(item.request.route)
            self._recorder.append(Failed(row, item.attempts, route, fault.kind, fault.message, time.time(), 0.0, fault.usage, fault.raw))
            return True
        self.end(item, self._error(item, fault))
        return False

    def _pay(self, item: WorkItem, result: Completion | Fault, since: float) -> None:
        route = item.request.route
        payment = record_usage(item, route, self._money, result)
        if route in self.marks and result.usage is not None:
            self.marks[route].heard(result.usage)
        self._settle(item, payment.cost)
        if self.paid.get(item.request.row, 0.0) < since:
            self._recorder.record_payment(payment)

    def _settle(self, item: WorkItem, cost: Decimal | None) -> None:
        """Replace what the budget holds for the row by what it cost; None: unknown."""
        if (worst := self.reserved.pop(item.request.row, None)) is not None:
            self._money.settle(worst, cost)

    def _error(self, item: WorkItem, fault: Fault) -> Outcome:
        return Outcome(
            "error",
            error_type=fault.kind,
            error=fault.message,
            route=str(item.request.route),
            model=fault.model,
            attempts=item.attempts,
            usage=item.usage,
            cost=item.cost,
            finish_reason=fault.finish_reason,
            reasoning=fault.reasoning,
        )

    def _unanswered(self, item: WorkItem, what: str) -> Outcome:
        """Of a row that its batch ended without: providers do not bill it."""
        cost = Decimal(0) if item.cost is None else item.cost
        facts = {"route": str(item.request.route), "attempts": item.attempts, "usage": item.usage, "cost": cost}
        if what == "cancelled":
            return Outcome("cancelled", **facts)  # type: ignore[arg-type]
        words = "its batch expired before this row was answered; %infer run --only failed submits it again"
        return Outcome("error", error_type="timeout", error=words, **facts)  # type: ignore[arg-type]
