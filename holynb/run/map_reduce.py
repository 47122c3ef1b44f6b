"""Rows too long for one request, while they run: asked in parts, put together, ended as one row. Lives on the io thread.

Stands between the scheduler and the run's journal. To the scheduler each part is a job with a row number of its own, from n on; the journal
hears of the row alone: its attempts counted through, one end. What the parts are is `chunking`'s to say. MapReduce that ask the same are asked once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from holynb.errors import BadOption
from holynb.journal import Journal, Paid
from holynb.prompts import chunking
from holynb.run.chunk_log import ChunkLog, Told
from holynb.run.long_row import ChunkRequest, LongRow
from holynb.run.plan import Plan
from holynb.scheduler import WorkItem
from holynb.types import Ended, Event, Failed, Outcome, Prompt, Started

__all__ = ["MapReduce"]

#: Faults that a shorter request may cure, and how many times a part is cut again for one.
CURED = ("context_length", "timeout")
DEEPEST = 4


class MapReduce(Journal):
    """The journal that a scheduler is given where rows may be long: its `rows` go on after n with the parts."""

    def __init__(self, plan: Plan, journal: Journal, log: ChunkLog) -> None:
        super().__init__(len(plan.requests))
        self.add: Callable[[WorkItem], bool] = lambda _: False
        self._plan = plan
        self._journal = journal
        self._log = log
        self._longs: dict[int, LongRow] = {}
        self._parts: dict[int, ChunkRequest] = {}
        self._keys: dict[str, ChunkRequest] = {}
        self._chains: dict[int, Sequence[str]] = {}

    async def begin(self, jobs: Sequence[WorkItem]) -> list[WorkItem]:
        """What to send first: the jobs of rows that fit, and the first parts of those that do not. Then `add` is to be the scheduler's."""
        await self._log.begin()
        first: list[WorkItem] = []
        self.add = lambda job: not first.append(job)  # type: ignore[func-returns-value]
        for job in jobs:
            rows = (job.request.row, *job.followers)
            self._chains.update(dict.fromkeys(rows, job.chain))
            if (made := self._plan.long.get(job.request.row)) is None:
                first.append(job)
                continue
            for row in rows:
                self._cut(LongRow(replace(job.request, row=row), job.chain, made, Outcome("error")))
            await asyncio.sleep(0)
        return first

    def chunks(self) -> Iterator[Told]:
        """Of each long row, round and part: what was asked, and what came of it."""
        for row in sorted({*self._longs, *self._plan.long}):
            request = self._plan.requests[row]
            if row not in self._longs and request is not None:
                yield from self._log.replay(request, self._plan.long[row])
                continue
            for slot in (s for slots in list(self._longs[row].rounds) for s in list(slots)):
                if isinstance(slot, ChunkRequest):
                    yield (row, slot.round, slot.label), Prompt(slot.request.messages).text, slot.outcome

    # -- what the scheduler tells ------------------------------------------------------------------------------------
    def append(self, event: Event) -> Awaitable[None] | None:
        """An event of a part becomes one of its row; a row that ends because it is too long begins anew, in parts."""
        if isinstance(event, Started | Failed | Ended) and (part := self._parts.get(event.row)) is not None:
            return self._of_part(part, event)
        if isinstance(event, Ended):
            self.rows[event.row] = event.outcome
            if self._too_long(event):
                return None
        return self._journal.append(event)

    def pay(self, paid: Paid) -> None:
        """What a part came to is its row's."""
        part = self._parts.get(paid.row)
        self._journal.pay(paid if part is None else replace(paid, row=part.rows[0].request.row))

    def say(self, row: int, text: str) -> None:
        """What a part says is seen where it is the row's answer."""
        part = self._parts.get(row)
        if part is None:
            self._journal.say(row, text)
        elif part.last:
            if not part.spoke:
                self._journal.tell(part.rows[0].request.row, "")
            part.spoke = True
            self._journal.say(part.rows[0].request.row, text)

    def partial(self, row: int) -> str | None:
        """What a row in flight has said of its answer."""
        part = self._parts.get(row)
        if part is None:
            return self._journal.partial(row)
        return self._journal.partial(part.rows[0].request.row) if part.last and part.spoke else None

    def _of_part(self, part: ChunkRequest, event: Started | Failed | Ended) -> Awaitable[None] | None:
        payer = part.rows[0]
        if isinstance(event, Ended):
            self.rows[event.row] = part.outcome = event.outcome
            if event.outcome.status != "ok":
                self._keys.pop(part.key, None)
            promise = self._log.answered(part.request.row, event)
            for long in part.rows:
                long.open.discard(event.row)
                promise = self._step(long) or promise
            return promise
        if isinstance(event, Started):
            payer.attempts += 1
            part.numbers[event.attempt] = payer.attempts
        told = self._journal.append(replace(event, row=payer.request.row, attempt=part.numbers.get(event.attempt, payer.attempts)))
        part.spoke = False
        self._journal.tell(payer.request.row, payer.says())
        return told

    # -- a row -------------------------------------------------------------------------------------------------------
    def _too_long(self, event: Ended) -> bool:
        """Whether a row that failed whole is asked again in parts, from now on."""
        request, outcome = self._plan.requests[event.row], event.outcome
        if request is None or outcome.error_type not in CURED or event.row in self._longs:
            return False
        prompt = Prompt(request.messages)
        asked = chunking.length(prompt)
        try:
            made = chunking.plan(prompt, chunking.smaller(asked, outcome.error or "", request.sampling.max_tokens or 0))
        except BadOption:
            return False
        if made is not None:
            self._journal.note(f"Row {event.row} ended with {outcome.error_type} and is asked again in {len(made.parts):,} parts.")
            self._cut(LongRow(request, self._chains.get(event.row, ()), made, outcome, attempts=outcome.attempts))
        return made is not None

    def _cut(self, long: LongRow) -> None:
        row, n = long.request.row, len(long.plan.parts)
        self._longs[row] = long
        self._log.cut(row)
        self._chains.setdefault(row, long.chain)
        asked = [
            (prompt, f"part {i} of {n}", str(i), piece.text)
            for i, (prompt, piece) in enumerate(zip(long.plan.parts, long.plan.pieces, strict=True), 1)
        ]
        long.slots = self._ask(long, asked)
        long.rounds.append(long.slots)
        self._step(long)

    def _ask(self, long: LongRow, asked: Sequence[tuple[Prompt, str, str, str | None]], depth: int = 0) -> list[ChunkRequest | str]:
        """MapReduce for these prompts (with their names, labels and pieces), those that nobody has answered yet on their way."""
        requests = [replace(long.request, row=len(self.rows) + i, messages=prompt.messages) for i, (prompt, *_) in enumerate(asked)]
        keys = self._log.keys(requests)
        known = self._log.known([key for key in keys if key not in self._keys])
        made: list[ChunkRequest | str] = []
        new: list[ChunkRequest] = []
        for request, key, (_, name, label, text) in zip(requests, keys, asked, strict=True):
            if (same := self._keys.get(key)) is not None:
                same.rows.append(long)
                made.append(same)
                self.rows.append(Outcome("skipped"))  # its number stays free
                if same.outcome is None:
                    long.open.add(same.request.row)
                continue
            part = ChunkRequest(request, name, label, text, key, long.round, depth, WorkItem(request, long.chain), [long], known.get(key))
            self.rows.append(part.outcome)
            self._parts[request.row] = part
            if self._plan.options.cache:
                self._keys[key] = part
            long.paid.append(part)
            made.append(part)
            new.append(part)
        self._log.asked(long.request.row, [(p.request, p.key, [p.round, p.label], p.outcome) for p in new])
        for part in new:
            if part.outcome is None and self.add(part.job):
                long.open.add(part.request.row)
            elif part.outcome is None:
                part.outcome = Outcome("error", error_type="connection", error="not sent: every route of this row has been given up")
                self._keys.pop(part.key, None)
        return made

    def _step(self, long: LongRow) -> Awaitable[None] | None:
        """Go on as far as answers reach: cut finer what is still too long, put together what is there, end the row."""
        while long.ending is None:
            parts = long.parts
            bad = next((p for p in parts if p.outcome is not None and p.outcome.status != "ok"), None)
            if bad is not None and bad.outcome is not None:
                if not self._finer(long, bad, bad.outcome):
                    self._drop(long)
                    told = f"{bad.name}: {bad.outcome.error}" if bad.outcome.error else None
                    long.ending = replace(bad.outcome, text=bad.outcome.text if bad.last else None, error=told)
            elif any(p.outcome is None for p in parts):
                self._journal.tell(long.request.row, long.says())
                return None
            elif len(long.slots) > 1:
                long.answers = [(s.outcome.text or "") if isinstance(s, ChunkRequest) and s.outcome else str(s) for s in long.slots]
                long.round += 1
                long.rounds.append(self._together(long))
            else:
                long.ending = parts[0].outcome
        return None if long.open else self._journal.append(Ended(long.request.row, long.whole(), time.time()))

    def _together(self, long: LongRow) -> list[ChunkRequest | str]:
        """The next round: requests that put this one's answers together."""
        next_ = long.plan.reduce(long.answers)
        name = f"putting {len(long.answers)} answers together"
        asked = [(p, name, str(i), None) for i, p in enumerate(next_, 1) if isinstance(p, Prompt)]
        made = iter(self._ask(long, asked, long.depth))
        long.slots = [next(made) if isinstance(p, Prompt) else p for p in next_]
        return long.slots

    def _finer(self, long: LongRow, part: ChunkRequest, outcome: Outcome) -> bool:
        """Cut a part again that is still too long, or put fewer answers together at once. False where that is no cure."""
        if outcome.error_type not in CURED or part.depth >= DEEPEST:
            return False
        asked = chunking.length(Prompt(part.request.messages))
        most = chunking.smaller(asked, outcome.error or "", part.request.sampling.max_tokens or 0)
        finer = long.plan.within(most)
        if part.text is None:
            if finer.most < chunking.SMALLEST * 4:
                return False
            self._drop(long)
            long.plan, long.depth = finer, long.depth + 1
            long.rounds[-1] = self._together(long)
            return True
        again = finer.again(part.text, part.label)
        if len(again) < 2:
            return False
        long.plan = finer
        place = long.slots.index(part)
        asks = [(prompt, f"part {part.label}.{i}", f"{part.label}.{i}", text) for i, (prompt, text) in enumerate(again, 1)]
        long.slots[place : place + 1] = self._ask(long, asks, part.depth + 1)
        return True

    def _drop(self, long: LongRow) -> None:
        """Nobody needs this row's open parts any more: those that wait are not sent, those in flight are heard out for what they cost."""
        for part in (self._parts[number] for number in long.open):
            if len(part.rows) == 1:
                part.job.dropped = Outcome("cancelled")
