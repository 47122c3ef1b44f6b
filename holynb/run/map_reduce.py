"""Rows too long for one request, while they run: asked in chunks, put together, ended as one row. Lives on the io thread.

A sink between the scheduler and the run's recorder. To the scheduler each chunk is a work item with a row number of its own, from n on; the
journal sees the row alone: its attempts counted through, one end. `prompts.chunking` cuts. Chunks that ask the same are asked once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from holynb.errors import BadOption
from holynb.events import Ended, Event, Failed, Started
from holynb.journal import EventSink, Journal, Payment, Sink
from holynb.prompts import chunking
from holynb.run.chunk_log import ChunkLog, ChunkResult
from holynb.run.long_row import ChunkDraft, ChunkRequest, LongRow
from holynb.run.plan import Plan
from holynb.scheduler import WorkItem
from holynb.types import Outcome, Prompt

__all__ = ["MapReduce"]

#: Faults that a shorter request may cure, and how many times a chunk is cut again for one.
CURED_BY_CUTTING = ("context_length", "timeout")
MAX_CUTS = 4


class MapReduce(Sink):
    """The sink of a scheduler whose rows may be long: its `rows` go on after n with the chunks.

    `journal` shows what is in flight; events go to `sink`.
    """

    def __init__(self, plan: Plan, journal: Journal, sink: EventSink, log: ChunkLog) -> None:
        super().__init__(sink)
        self.rows: list[Outcome | None] = [None] * len(plan.rows.requests)
        self.add: Callable[[WorkItem], bool] = lambda _: False
        self._plan = plan
        self._journal = journal
        self._sink = sink
        self._log = log
        self._long_rows: dict[int, LongRow] = {}
        self._chunks: dict[int, ChunkRequest] = {}
        self._by_key: dict[str, ChunkRequest] = {}
        self._chains: dict[int, Sequence[str]] = {}

    async def begin(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """What to send first: items of rows that fit, first chunks of those that do not. Afterwards set `add` to the scheduler's."""
        await self._log.begin()
        first: list[WorkItem] = []
        self.add = lambda item: not first.append(item)  # type: ignore[func-returns-value]
        for item in items:
            rows = (item.request.row, *item.followers)
            self._chains.update(dict.fromkeys(rows, item.chain))
            if (chunk_plan := self._plan.rows.long.get(item.request.row)) is None:
                first.append(item)
                continue
            for row in rows:
                self._cut(LongRow(replace(item.request, row=row), item.chain, chunk_plan, Outcome("error")))
            await asyncio.sleep(0)
        return first

    def chunks(self) -> Iterator[ChunkResult]:
        """Of each long row, round and chunk: its prompt, and what came of it."""
        for row in sorted({*self._long_rows, *self._plan.rows.long}):
            request = self._plan.rows.requests[row]
            if row not in self._long_rows and request is not None:
                yield from self._log.replay(request, self._plan.rows.long[row])
                continue
            for slot in (s for slots in list(self._long_rows[row].rounds) for s in list(slots)):
                if isinstance(slot, ChunkRequest):
                    yield (row, slot.round, slot.label), Prompt(slot.request.messages).text, slot.outcome

    # -- a sink ------------------------------------------------------------------------------------------------------
    def append(self, event: Event) -> Awaitable[None] | None:
        """An event of a chunk becomes one of its row; a row that ends because it is too long begins anew, in chunks."""
        if isinstance(event, Started | Failed | Ended) and (chunk := self._chunks.get(event.row)) is not None:
            return self._of_chunk(chunk, event)
        if isinstance(event, Ended):
            self.rows[event.row] = event.outcome
            if self._too_long(event):
                return None
        return self._sink.append(event)

    def record_payment(self, payment: Payment) -> None:
        """What a chunk came to is its row's."""
        chunk = self._chunks.get(payment.row)
        self._sink.record_payment(payment if chunk is None else replace(payment, row=chunk.rows[0].request.row))

    def row_shown(self, row: int) -> int | None:
        """A chunk's row, where its text is to be the row's answer."""
        chunk = self._chunks.get(row)
        return row if chunk is None else chunk.rows[0].request.row if chunk.last else None

    def append_text(self, row: int, text: str) -> None:
        """The first piece of the last chunk takes the place of what was shown before."""
        chunk = self._chunks.get(row)
        if chunk is not None and chunk.last and not chunk.has_text:
            self._journal.replace_text(chunk.rows[0].request.row, "")
            chunk.has_text = True
        super().append_text(row, text)

    def partial_thoughts(self, row: int) -> str | None:
        """What was thought so far before a row's answer; of a chunk nothing."""
        return None if row in self._chunks else super().partial_thoughts(row)

    def partial_text(self, row: int) -> str | None:
        """The text so far of a row's answer."""
        chunk = self._chunks.get(row)
        return super().partial_text(row) if chunk is None or chunk.has_text else None

    def _of_chunk(self, chunk: ChunkRequest, event: Started | Failed | Ended) -> Awaitable[None] | None:
        payer = chunk.rows[0]
        if isinstance(event, Ended):
            self.rows[event.row] = chunk.outcome = event.outcome
            if event.outcome.status != "ok":
                self._by_key.pop(chunk.key, None)
            promise = self._log.keep_end(chunk.request.row, event)
            for long in chunk.rows:
                long.open.discard(event.row)
                promise = self._step(long) or promise
            return promise
        if isinstance(event, Started):
            payer.attempts += 1
            chunk.numbers[event.attempt] = payer.attempts
        promise = self._sink.append(replace(event, row=payer.request.row, attempt=chunk.numbers.get(event.attempt, payer.attempts)))
        chunk.has_text = False
        self._journal.replace_text(payer.request.row, payer.progress())
        return promise

    # -- a row -------------------------------------------------------------------------------------------------------
    def _too_long(self, event: Ended) -> bool:
        """Whether a row that failed whole is asked again in parts, from now on."""
        request, outcome = self._plan.rows.requests[event.row], event.outcome
        if request is None or outcome.error_type not in CURED_BY_CUTTING or event.row in self._long_rows:
            return False
        prompt = Prompt(request.messages)
        size = chunking.prompt_tokens(prompt)
        try:
            chunk_plan = chunking.plan(prompt, chunking.reduced_size(size, outcome.error or "", request.sampling.max_tokens or 0))
        except BadOption:
            return False
        if chunk_plan is not None:
            self._journal.note(f"Row {event.row} ended with {outcome.error_type} and is asked again in {len(chunk_plan.parts):,} parts.")
            self._cut(LongRow(request, self._chains.get(event.row, ()), chunk_plan, outcome, attempts=outcome.attempts))
        return chunk_plan is not None

    def _cut(self, long: LongRow) -> None:
        row, n = long.request.row, len(long.plan.parts)
        self._long_rows[row] = long
        self._log.cut(row)
        self._chains.setdefault(row, long.chain)
        drafts = [
            ChunkDraft(prompt, f"part {i} of {n}", str(i), piece.text)
            for i, (prompt, piece) in enumerate(zip(long.plan.parts, long.plan.pieces, strict=True), 1)
        ]
        long.slots = self._ask(long, drafts)
        long.rounds.append(long.slots)
        self._step(long)

    def _ask(self, long: LongRow, drafts: Sequence[ChunkDraft], depth: int = 0) -> list[ChunkRequest | str]:
        """A chunk request for each draft; those that nobody has answered yet are sent."""
        requests = [replace(long.request, row=len(self.rows) + i, messages=draft.prompt.messages) for i, draft in enumerate(drafts)]
        keys = self._log.keys(requests)
        known = self._log.known([key for key in keys if key not in self._by_key])
        slots: list[ChunkRequest | str] = []
        new: list[ChunkRequest] = []
        for request, key, draft in zip(requests, keys, drafts, strict=True):
            if (same := self._by_key.get(key)) is not None:
                same.rows.append(long)
                slots.append(same)
                self.rows.append(Outcome("skipped"))  # its number stays free
                if same.outcome is None:
                    long.open.add(same.request.row)
                continue
            item = WorkItem(request, long.chain)
            chunk = ChunkRequest(request, draft.name, draft.label, draft.text, key, long.round, depth, item, [long], known.get(key))
            self.rows.append(chunk.outcome)
            self._chunks[request.row] = chunk
            if self._plan.options.cache:
                self._by_key[key] = chunk
            long.paid.append(chunk)
            slots.append(chunk)
            new.append(chunk)
        self._log.keep_requests(long.request.row, [(c.request, c.key, [c.round, c.label], c.outcome) for c in new])
        for chunk in new:
            if chunk.outcome is None and self.add(chunk.item):
                long.open.add(chunk.request.row)
            elif chunk.outcome is None:
                chunk.outcome = Outcome("error", error_type="connection", error="not sent: all routes of this row have been given up")
                self._by_key.pop(chunk.key, None)
        return slots

    def _step(self, long: LongRow) -> Awaitable[None] | None:
        """Go on as far as answers reach: cut finer what is still too long, put together what is there, end the row."""
        while long.ending is None:
            chunks = long.chunks
            bad = next((c for c in chunks if c.outcome is not None and c.outcome.status != "ok"), None)
            if bad is not None and bad.outcome is not None:
                if not self._cut_finer(long, bad, bad.outcome):
                    self._drop(long)
                    error = f"{bad.name}: {bad.outcome.error}" if bad.outcome.error else None
                    long.ending = replace(bad.outcome, text=bad.outcome.text if bad.last else None, error=error)
            elif any(c.outcome is None for c in chunks):
                self._journal.replace_text(long.request.row, long.progress())
                return None
            elif len(long.slots) > 1:
                long.answers = [(s.outcome.text or "") if isinstance(s, ChunkRequest) and s.outcome else str(s) for s in long.slots]
                long.round += 1
                long.rounds.append(self._join(long))
            else:
                long.ending = chunks[0].outcome
        return None if long.open else self._sink.append(Ended(long.request.row, long.whole(), time.time()))

    def _join(self, long: LongRow) -> list[ChunkRequest | str]:
        """The next round: requests that put this one's answers together."""
        next_ = long.plan.reduce(long.answers)
        name = f"putting {len(long.answers)} answers together"
        drafts = [ChunkDraft(p, name, str(i), None) for i, p in enumerate(next_, 1) if isinstance(p, Prompt)]
        requests = iter(self._ask(long, drafts, long.depth))
        long.slots = [next(requests) if isinstance(p, Prompt) else p for p in next_]
        return long.slots

    def _cut_finer(self, long: LongRow, chunk: ChunkRequest, outcome: Outcome) -> bool:
        """Cut a chunk again that is still too long, or put fewer answers together at once. False where that is no cure."""
        if outcome.error_type not in CURED_BY_CUTTING or chunk.depth >= MAX_CUTS:
            return False
        size = chunking.prompt_tokens(Prompt(chunk.request.messages))
        finer = long.plan.with_limit(chunking.reduced_size(size, outcome.error or "", chunk.request.sampling.max_tokens or 0))
        if chunk.text is None:
            if finer.max_tokens < chunking.MIN_PIECE_TOKENS * 4:
                return False
            self._drop(long)
            long.plan, long.depth = finer, long.depth + 1
            long.rounds[-1] = self._join(long)
            return True
        again = finer.recut(chunk.text, chunk.label)
        if len(again) < 2:
            return False
        long.plan = finer
        place = long.slots.index(chunk)
        drafts = [ChunkDraft(prompt, f"part {chunk.label}.{i}", f"{chunk.label}.{i}", text) for i, (prompt, text) in enumerate(again, 1)]
        long.slots[place : place + 1] = self._ask(long, drafts, chunk.depth + 1)
        return True

    def _drop(self, long: LongRow) -> None:
        """Nobody needs this row's open chunks any more: those that wait are not sent, those in flight end for what they cost."""
        for chunk in (self._chunks[number] for number in long.open):
            if len(chunk.rows) == 1:
                chunk.item.dropped = Outcome("cancelled")
