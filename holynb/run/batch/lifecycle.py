"""A run by batch: its rows are submitted in pieces, and each is polled until its results are there, by whichever kernel lives then.

Owned by the io thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from holynb.batches import Answered, Candidates, Lost, Pace, Standing, Vendor
from holynb.errors import Fault
from holynb.run.batch.answers import BatchAnswers
from holynb.run.batch.marks import marks_for
from holynb.run.batch.pieces import OpenBatch
from holynb.run.batch.queue import ROWS_PER_TURN, BatchQueue
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.scheduler import Money, ResponseValidator, WorkItem
from holynb.types import Route
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.engines.hosted import Hosted

__all__ = ["Batched", "Direct"]

#: What is still waited for after a stop: a provider may take minutes to end a batch, whose answers come with the next resume.
STOP_GRACE_S = 3.0
#: Looks at results that have no line for some rows: a file may come before it is whole.
MOST_GAPS = 3

#: Sends items one by one, until each has ended.
Direct = Callable[[Sequence[WorkItem]], Awaitable[None]]


class Batched:
    """The batches of one run. `accepted`: every row is in one, or waits for one."""

    def __init__(
        self, plan: Plan, recorder: Recorder, engines: Mapping[Route, Hosted], money: Money, validator: ResponseValidator | None
    ) -> None:
        self._plan, self._recorder = plan, recorder
        self._answers = BatchAnswers(recorder, engines, money, validator)
        by_route = {route: marks_for(plan, engine.endpoint, validator) for route, engine in engines.items()}
        self._answers.marks = {route: marks for route, marks in by_route.items() if marks is not None}
        self._queue = BatchQueue(plan, recorder, engines, money, self._answers)
        self._pace = Pace()
        self._queue.moved = self._pace.restart
        self._wake = asyncio.Event()
        self.accepted = False

    def send_directly(self, direct: Direct) -> None:
        """What is asked again goes out one by one, by this."""
        self._queue.direct = direct

    def lines(self) -> list[str]:
        """A line for each batch that is not done, and one for rows that wait. From any thread."""
        due = len(self._queue.due)
        waiting = [f"{counted(due, 'row')} not yet submitted"] if due else []
        return [piece.line() for piece in list(self._queue.open) if not piece.read] + waiting

    # -- on the io loop ----------------------------------------------------------------------------------------------
    @property
    def stopped(self) -> bool:
        """Whether it was stopped, here or by another process."""
        return self._queue.stopping

    def stop(self) -> None:
        """Submit no more, and ask for the end of what is submitted."""
        self._queue.stopping = True
        self._wake.set()

    def look_now(self) -> None:
        """Ask now how the batches stand."""
        self._pace.restart()
        self._wake.set()

    async def run(self, items: list[WorkItem], *, once: bool = False) -> None:
        """Submit, poll and read until every row has ended. `once`: look at what is submitted, and submit nothing."""
        queue = self._queue
        await self._adopt(items)
        if queue.open:
            await self._look()
        while not queue.stopping:
            if not once:
                await queue.submit_due()
            await self._close_read()
            self._say_pending()
            self.accepted = True
            if once or not (queue.open or queue.due):
                return
            await self._pause()
            if not queue.stopping:
                await self._look()
            if not queue.stopping and await queue.log.asked_to_end(queue.open):
                queue.stopping = True
        await self._end_there()

    def _say_pending(self) -> None:
        """How many rows are pending, for the head of whoever watches."""
        pending, submitted = sum(o is None for o in self._recorder.rows), sum(not p.read for p in self._queue.open)
        if pending:
            self._queue.tell(f"{counted(pending, 'row')} pending in {submitted:,} batch{'es' * (submitted != 1)}.", "info")

    async def _adopt(self, items: list[WorkItem]) -> None:
        """Find the batches of an earlier kernel, and what is in none."""
        queue = self._queue
        queue.open, new, stands, self._answers.paid = await queue.log.adopt(items)
        for item in new:
            if (outcome := stands.get(item.request.row)) is not None:
                self._recorder.stands(item.request.row)
                self._answers.end(item, outcome)
            else:
                queue.due.append(item)
        for piece in queue.open:
            for item in piece.items.values():
                queue.reserve(item, check=False)
            if piece.stored.id is None and piece.items:
                rows, provider = counted(len(piece.stored.rows), "row"), piece.route.provider
                queue.tell(f"{rows} may have been submitted already: {provider} is asked for that batch before anything is sent again.")
        await self._answers.written()

    async def _pause(self) -> None:
        """Wait until something is due, or somebody asks."""
        queue = self._queue
        self._wake.clear()
        waits = [self._pace.pause()]
        if queue.due:
            waits.append(queue.not_before - time.monotonic())
        unsure = [p for p in queue.open if p.stored.id is None and not p.held]
        # Where that time is over and the provider could not be asked, it is asked again no sooner than anything else.
        waits += [left for p in unsure if (left := p.stored.at + queue.limits(p).settles_s - time.time()) > 0]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.02, min(waits))):
                await self._wake.wait()

    # -- in ------------------------------------------------------------------------------------------------------------
    async def _look(self) -> None:
        """Ask how each batch stands, and read those that have ended. What cannot be asked now is asked again."""
        for piece in [p for p in self._queue.open if not p.read]:
            try:
                await self._look_at(piece)
                piece.trouble = ""
            except Fault as fault:
                piece.trouble = fault.message
                if fault.kind == "not_found" and piece.stored.id is not None:
                    self._queue.refuse(piece, Fault("not_found", f"{piece.stored.id} is no longer there ({fault.message})", retry=False))
                else:
                    self._queue.tell(f"A batch could not be asked for, and is asked for again: {fault.message}")
            await self._answers.written()

    async def _look_at(self, piece: OpenBatch) -> None:
        vendor = self._queue.vendor(piece)
        if vendor is None or not piece.items:
            await self._drop(piece)
            return
        if piece.stored.id is None:
            await self._find(piece, vendor)
        if piece.stored.id is None or piece not in self._queue.open:
            return
        standing = piece.standing = await vendor.poll(piece.stored.id)
        if standing.state == "ended":
            self._pace.restart()
            await self._read(piece, vendor, standing)
        elif standing.state == "full":
            self._queue.wait_for_room(piece, standing.problem or Fault("rate_limit", "too much is enqueued"))
        elif standing.state == "refused":
            self._queue.refuse(piece, standing.problem or Fault("bad_request", "the batch was refused", retry=False))

    async def _drop(self, piece: OpenBatch) -> None:
        """Nothing of this batch is waited for: its rows were read before, or ask something else by now."""
        if any(
            (self._plan.keys.of(row) or "")[: len(mark)] != mark
            for row, mark in piece.stored.rows.items()
            if row < len(self._recorder.rows)
        ):
            self._queue.tell(
                f"{piece.stored.id or 'A batch'} answers prompts that this run no longer asks; what it costs is not in this run."
            )
        self._queue.close(piece, "collected" if piece.stored.id else "gone")

    async def _find(self, piece: OpenBatch, vendor: Vendor) -> None:
        """Look up a batch whose submission was not answered."""
        others = await asyncio.to_thread(self._queue.log.others, piece)
        since = min(piece.stored.at, time.time())  # a clock that was ahead has been set back
        there = await vendor.find(Lost(piece.stored.key, len(piece.stored.rows), since, others))
        if isinstance(there, Candidates):
            if piece.held != there.ids:
                provider = piece.route.provider
                which = f"{', '.join(there.ids)} may be {'it' if len(there.ids) == 1 else 'one of them'}"
                rows = counted(len(piece.stored.rows), "row")
                self._queue.tell(
                    f"{rows} are held, as {provider}'s {which}: nothing is submitted twice. They go on once its results can be read."
                )
            piece.held = there.ids
        elif there is not None:
            self._queue.accept(piece, there)
        elif time.time() >= piece.stored.at + self._queue.limits(piece).settles_s:
            self._queue.not_there(piece)

    async def _read(self, piece: OpenBatch, vendor: Vendor, standing: Standing) -> None:
        """Read the results. Where that breaks off, what has been read stays, and the rest is read at the next look."""
        n = 0
        async for answered in vendor.read(standing):
            if (item := piece.item(answered.custom_id)) is not None and self._answers.take(item, answered, piece.origin):
                self._queue.due.append(item)
            n += 1
            if n % ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
        if piece.items and standing.rest == "error" and piece.gaps + 1 < MOST_GAPS:
            piece.gaps += 1
            rows = counted(len(piece.items), "row")
            self._queue.tell(f"The results of {standing.id} have no line for {rows} yet, and are read again.")
            return
        missing = {"error": {"message": "the results of its batch have no line for this row", "type": "server_error"}}
        for item in piece.items.values():
            if self._answers.take(item, Answered("", standing.rest, missing, 500), piece.origin):
                self._queue.due.append(item)
        piece.items.clear()
        piece.read = True

    async def _close_read(self) -> None:
        """Close the batches whose results are read, once the rows that are asked again are in others."""
        await self._answers.written()
        waiting = {item.request.row for item in self._queue.due}
        for piece in [p for p in self._queue.open if p.read and waiting.isdisjoint(p.stored.rows)]:
            self._queue.close(piece, "collected")

    # -- the end -------------------------------------------------------------------------------------------------------
    async def _end_there(self) -> None:
        """Ask for the end of every batch, and read what comes of that soon."""
        for piece in self._queue.open:
            vendor = self._queue.vendor(piece)
            if piece.stored.id is not None and vendor is not None and not piece.read:
                try:
                    await vendor.cancel(piece.stored.id)
                    self._queue.log.move(piece, "cancelling")
                except Fault as fault:
                    if piece.stored.state != "cancelling":  # else it was asked for before
                        self._queue.tell(f"{piece.stored.id} could not be cancelled: {fault.message}")
        until = time.monotonic() + STOP_GRACE_S
        while any(not p.read for p in self._queue.open) and time.monotonic() < until:
            await asyncio.sleep(min(0.5, STOP_GRACE_S / 6))
            await self._look()
        await self._close_read()
        left = [p for p in self._queue.open if not p.read]
        if left:
            name = self._plan.options.name or self._recorder.run
            self._queue.tell(
                f"What {', '.join(p.stored.id or 'a batch' for p in left)} answered before it ends comes with %infer resume {name}."
            )
