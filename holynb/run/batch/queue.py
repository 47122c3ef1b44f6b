"""Rows on their way into batches: reserved, cut into pieces, written into the run log, submitted; and what a provider's refusal means.

Every batch is in the run log before it is submitted, so that one whose reply was lost is looked up and never sent a second time. Owned by
the io thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from holynb import batches
from holynb.batches import Cut, Cutter, Pace, ProviderLimits, Standing, Vendor
from holynb.errors import Fault
from holynb.run.batch.answers import BatchAnswers
from holynb.run.batch.pieces import OpenBatch, PieceLog
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.scheduler import Money, WorkItem
from holynb.types import Route
from holynb.units import memory, seconds
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.engines.hosted import Hosted

__all__ = ["BatchQueue"]

#: Rows that are written before others on the io thread get their turn.
ROWS_PER_TURN = 200


class BatchQueue:
    """`open`: the batches from which something is to come; `due`: items that are in none, not to be submitted before `not_before`.

    `moved`: called when a batch was accepted; `direct`: sends items one by one, None without --fallback.
    """

    def __init__(self, plan: Plan, recorder: Recorder, engines: Mapping[Route, Hosted], money: Money, answers: BatchAnswers) -> None:
        if recorder.log is None:
            raise Fault("internal", "The run log cannot be read, so a batch would not be found again, and none was submitted.", retry=False)
        self.log = PieceLog(plan, recorder.run, recorder.log)
        self.open: list[OpenBatch] = []
        self.due: list[WorkItem] = []
        self.not_before = 0.0
        self.stopping = False
        self.moved: Callable[[], None] = lambda: None
        self.direct: Callable[[Sequence[WorkItem]], Awaitable[None]] | None = None
        self._recorder, self._money, self._answers, self._retries = recorder, money, answers, plan.options.retries
        self._engines = engines
        self._vendors = {r: batches.of(e, batches.table()[r.provider]) for r, e in engines.items() if r.provider in batches.table()}
        self._waits, self._unreached = Pace(), 0
        #: Of a route, how often it refused a batch as too much is enqueued since it did one, and the rows of a batch from then on.
        self._full: dict[Route, int] = {}
        self._most: dict[Route, int] = {}
        self._texts: set[str] = set()

    def vendor(self, piece: OpenBatch) -> Vendor | None:
        """Who speaks to the provider of this batch; None where the run has nothing to do there any more."""
        return self._vendors.get(piece.route)

    @staticmethod
    def limits(piece: OpenBatch) -> ProviderLimits:
        """Those of its provider."""
        return batches.table()[piece.route.provider]

    async def submit_due(self) -> None:
        """Submit what is due."""
        if not self.due or time.monotonic() < self.not_before:
            return
        due, self.due = self.due, []
        groups: dict[tuple[Route, bool], list[WorkItem]] = {}
        for item in due:
            groups.setdefault((item.request.route, item.attempts > 0), []).append(item)
        for (route, again), items in groups.items():
            if again and self.direct is not None:
                await self.direct(items)
            else:
                await self._submit_rows(route, items, again=again)
        await self._answers.written()

    async def _submit_rows(self, route: Route, items: list[WorkItem], *, again: bool) -> None:
        vendor, log = self._vendors[route], self.log
        limits = batches.table()[route.provider]
        if route in self._answers.marks:
            self._answers.marks[route].decide(len(items))
        cutter: Cutter[WorkItem] = Cutter(replace(limits, rows=min(limits.rows, self._most.get(route, limits.rows))))
        for i, item in enumerate(items):
            if self.stopping:
                self.due += items[i:]
                break
            if not self.reserve(item):
                continue
            try:
                entry = await vendor.entry(log.id_of(item), self._answers.sent(item))
            except Fault as fault:  # of an attachment
                self._answers.refuse(item, fault)
                continue
            if not cutter.fits(entry):
                size = memory(len(entry))
                self._answers.refuse(item, Fault("context_length", f"this row alone is {size}, more than a batch takes", retry=False))
                continue
            if cutter.is_full(entry):
                await self._submit(route, cutter.take(), again=again)
                entry = await vendor.entry(log.id_of(item), self._answers.sent(item))
            cutter.add(item, entry)
            if i % ROWS_PER_TURN == ROWS_PER_TURN - 1:
                await asyncio.sleep(0)
        if (cut := cutter.take()).items:
            await self._submit(route, cut, again=again)

    def reserve(self, item: WorkItem, *, check: bool = True) -> bool:
        """Reserve the row's longest answer of the budget. Where there is no room now it waits for what is submitted, or else ends."""
        budget, request = self._money.budget, self._answers.sent(item)
        if budget is None or item.request.row in self._answers.reserved:
            return True
        worst = self._money.worst_case(request, request.route)
        if check and (worst is None or budget.spent + budget.reserved + worst > budget.cap):
            if worst is None or budget.spent + worst > budget.cap or budget.reserved <= 0:
                self._answers.refuse(item, self._money.refusal(worst))
            else:
                self.due.append(item)
                self.not_before = time.monotonic() + self._waits.pause()
            return False
        self._answers.reserved[item.request.row] = worst or Decimal(0)
        budget.reserved += worst or Decimal(0)
        return True

    async def _submit(self, route: Route, cut: Cut[WorkItem], *, again: bool) -> None:
        """Submit a batch: first into the run log, then to the provider."""
        if self.stopping:
            self.due += cut.items
            return
        piece = await self.log.begin(route, cut.items, again=again)
        piece.written_with = self._engines[route].written_with
        self.open.append(piece)
        try:
            standing = await self._vendors[route].submit(piece.stored.key, self._answers.sent(cut.items[0]), cut.entries)
        except Fault as fault:
            self._unsubmitted(piece, fault)
        else:
            self.accept(piece, standing)

    def accept(self, piece: OpenBatch, standing: Standing) -> None:
        """The provider has this batch."""
        provider, limits, piece.held = piece.route.provider, self.limits(piece), ()
        self.log.move(piece, "accepted", standing, limits.kept_days * 86400.0)
        piece.standing, self._unreached = standing, 0
        self.moved()
        rows = counted(len(piece.stored.rows), "row")
        self.tell(f"{rows} pending at {provider} as {standing.id}, for {limits.hours} hours at most.", "info")

    def _unsubmitted(self, piece: OpenBatch, fault: Fault) -> None:
        """What to do about a submission that was not answered with a batch."""
        if batches.cut_off(fault):
            provider = piece.route.provider
            rows = counted(len(piece.stored.rows), "row")
            self.tell(
                f"The reply to a batch of {rows} got lost: {provider} is asked for it before anything is sent again. ({fault.message})"
            )
        elif fault.kind == "rate_limit":
            self.wait_for_room(piece, fault)
        elif fault.unreachable and self._unreached < self._retries:
            self._unreached += 1
            self.again(piece, "gone", f"A batch was not submitted ({fault.message})")
        else:
            self.refuse(piece, fault)

    def wait_for_room(self, piece: OpenBatch, fault: Fault) -> None:
        """Too much is enqueued there. Where none of it is ours and a wait does not help, a smaller batch may fit."""
        route = piece.route
        times = self._full[route] = self._full.get(route, 0) + 1
        if times > 1 and not any(p is not piece and p.route == route and not p.read for p in self.open):
            self._most[route] = max(1, len(piece.stored.rows) // 2)
        self.again(piece, "full", f"A batch waits for room ({fault.message})")

    def again(self, piece: OpenBatch, state: str, why: str) -> None:
        """The provider has no such batch: its rows go into another one, after a while."""
        self.close(piece, state)
        wait = self._waits.pause()
        self.not_before = time.monotonic() + wait
        self.due += piece.items.values()
        are = "is" if len(piece.items) == 1 else "are"
        self.tell(f"{why.rstrip('.')}; its {counted(len(piece.items), 'row')} {are} submitted again in {seconds(wait)}.")

    def not_there(self, piece: OpenBatch) -> None:
        """The reply to a submission was lost, and its provider has no such batch."""
        provider = piece.route.provider
        if self._unreached < self._retries:
            self._unreached += 1
            self.again(piece, "gone", f"{provider} has no such batch")
        else:
            words = f"{provider} answered no submission, and has no such batch; %infer run --only failed submits its rows again"
            self.refuse(piece, Fault("server", words, retry=False))

    def refuse(self, piece: OpenBatch, fault: Fault) -> None:
        """The provider takes no such batch: its rows end."""
        self.close(piece, "refused")
        for item in piece.items.values():
            self._answers.refuse(item, fault)
        piece.items.clear()

    def close(self, piece: OpenBatch, state: str) -> None:
        """Nothing more is to come of this batch."""
        self.open.remove(piece)
        if state == "collected":
            self._full.pop(piece.route, None)
        self.log.move(piece, state)

    def tell(self, text: str, level: str = "warning") -> None:
        """A note for a person, once."""
        if text not in self._texts:
            self._texts.add(text)
            self._recorder.note(text, level)
