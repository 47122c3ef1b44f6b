"""One run's side of the run log: a sink in front of its journal, and what the log has for the run when it begins.

Lives on the io thread. A log that fails (disk full, locked, read-only) is reported once, and the run goes on: the writer keeps what is to
be written until it can be.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

from holynb import runlog
from holynb.config import settings
from holynb.events import Ended, Event, Started
from holynb.journal import Journal, Payment, Sink, payment_at_end
from holynb.results import Tally
from holynb.run import billing, pending_rows
from holynb.run.pending import Pending, displaced, pending, read
from holynb.run.pending_rows import Keys
from holynb.run.plan import Plan
from holynb.run.shares import Share
from holynb.run.stored_rows import KnownRows, StoredRows
from holynb.runlog import PARTS_PER_ROW, Lease, RunLog, RunRecord, StoredRow
from holynb.spool import MANY, Spool
from holynb.types import Outcome
from holynb.words import counted

__all__ = ["Recorder"]

#: Ends a row, and returns what to wait for until that is on disk.
Settle = Callable[[int, Outcome], "Awaitable[None] | None"]
Reading = tuple[Pending, Sequence[int], Collection[tuple[Ended, "str | None"]]]

#: Rows that end in one turn where they need no request.
SETTLED_AT_ONCE = 256
#: Rows whose keys are computed before others on the io thread get their turn.
KEYS_PER_TURN = 500


class Recorder(Sink):
    """A sink: events go to the journal, then to the log. `run`: the run's id; `share`: whether other runs may use its answers.

    `log`: where earlier answers are read, None where it cannot be; `unwritten`: why answers are in memory only, None where none are.
    `before`: what was gone of the budget of a run when it went on. `in_all`, `tokens_in_all`: what a run which went on, or has
    a judge, has paid, at its end.
    """

    def __init__(self, journal: Journal, run: str, *, share: bool, tally: Tally | None = None) -> None:
        super().__init__(journal)
        self._tally = tally
        self.run = run
        self.log: RunLog | None = None
        self.unwritten: str | None = None
        self.before = billing.NOTHING
        self.in_all: Decimal | None = None
        self.tokens_in_all: tuple[int, int] | None = None
        self._log: RunLog | None = None
        self._said: set[str] = set()
        self._journal = journal
        self._share = share
        self._lease = Lease()
        self._plan: Plan | None = None
        self._keys: list[str | None] | Keys = [None] * len(journal.rows)
        self._own: Collection[int] = frozenset()
        self._stands: set[int] = set()
        self._chunked: set[int] = set()
        self._kept: set[int] = set()

    # -- a sink ----------------------------------------------------------------------------------------------------
    @property
    def rows(self) -> Sequence[Outcome | None]:
        """The journal's."""
        return self._journal.rows

    def append(self, event: Event) -> Awaitable[None] | None:
        """To the journal and the log. Returns something to wait for where the event must be on disk first."""
        event = self._journal.add(event)
        if self._tally is not None and isinstance(event, Ended):
            self._tally.add(event.outcome)
        if isinstance(event, Started) or (isinstance(event, Ended) and event.row in self._kept):
            return None  # the log has no place for what is sent
        return self._write(event)

    def append_ends(self, events: Sequence[Ended]) -> Awaitable[None] | None:
        """Ends of rows that were asked together, written together; as `append` each."""
        ends: list[tuple[Ended, str | None, bool]] = []
        for event in events:
            stored = self._journal.add(event)
            if self._tally is not None:
                self._tally.add(stored.outcome)
            if self._log is not None and event.row not in self._own and event.row not in self._stands:
                self._pay_end(stored)
                ends.append((stored, self._keys[event.row], self._share and not event.outcome.cached))
        if self._log is None or not ends:
            return None
        return self._log.record_ends(self.run, ends, self._write_failed, self._journal.rows.__getitem__)

    def settle(self, row: int, outcome: Outcome) -> Awaitable[None] | None:
        """A row that needs no request ends now."""
        return self.append(Ended(row, outcome, time.time()))

    def keep(self, event: Ended) -> Awaitable[None] | None:
        """An answer to the log alone, whose row ends later, with more to say. Returns something to wait for until it is on disk."""
        self._kept.add(event.row)
        return None if self._log is None else self._write(event)

    def _write(self, event: Event) -> Awaitable[None] | None:
        if self._log is None:
            return None
        if not isinstance(event, Ended):
            return self._log.record(self.run, event, None, shared=False)
        if event.row in self._own or event.row in self._stands:
            return None  # this run's own earlier answer, which stands in the log with what it cost
        if event.row not in self._chunked:
            self._pay_end(event)
        shared = self._share and not event.outcome.cached
        return self._log.record(self.run, event, self._keys[event.row], shared=shared, failed=self._write_failed)

    def end_rest(self, outcome: Outcome) -> None:
        """End what has not ended, in the journal alone: of many rows that were never sent, the log keeps that it has no answer."""
        if (times := self._journal.end_rest(outcome)) and self._tally is not None:
            self._tally.add(outcome, times)

    def record_payment(self, payment: Payment) -> None:
        """What an attempt came to, for the log's days."""
        if self._log is not None:
            self._log.record_payment(self.run, payment)

    def hold(self, dollars: Decimal) -> Awaitable[None] | None:
        """The most that may be gone of the budget by now, to the log. Returns something to wait for until it is on disk."""
        return None if self._log is None else self._guarded(self._log.hold(self.run, dollars, self.before.unseen))

    def record_shares(self, payment: Payment, rows: Sequence[int], parts: Sequence[Share]) -> None:
        """The same of rows that were asked together: each one's part of it."""
        if self._log is not None:
            self._log.record_shares(self.run, payment, rows, parts)

    def note(self, text: str, level: str = "info") -> None:
        """The journal's."""
        self._journal.note(text, level)

    def stands(self, row: int) -> None:
        """What the log has of this row is how it ended in this run, too: its end is not written again."""
        self._stands.add(row)

    # -- a run -----------------------------------------------------------------------------------------------------
    async def begin(self, plan: Plan, record: RunRecord) -> Pending:
        """Read what the log has for this plan, and write the run and its requests. Returns what is left to send.

        Raises BadOption where the run goes on elsewhere.
        """
        await self._lease.acquire(settings.home(), self.run, record.name, begins=plan.earlier.run is None)
        self._plan = plan
        for row in range(len(plan.rows.requests)):
            plan.keys.whole(row)
            plan.keys.chunked(row)
            if row % KEYS_PER_TURN == KEYS_PER_TURN - 1:
                await asyncio.sleep(0)
        self.log = self._log = log = runlog.log()
        log.watch(self._heard)
        to_other_prompts = 0
        known: Collection[tuple[Ended, str | None]] = ()
        reading = self._read_many if len(plan.rows.requests) >= MANY else self._read
        try:
            left, others, known = await asyncio.to_thread(reading, plan, log)
            to_other_prompts = await asyncio.to_thread(self._kept_for_other_prompts, plan, log)
            self.before = await asyncio.to_thread(billing.before, plan, log, self.run)
        except (sqlite3.Error, OSError) as exc:
            self.give_up(exc)
            left, others, known = await asyncio.to_thread(reading, plan, None)
        self._keys, self._own = left.keys if isinstance(left.keys, Keys) else list(left.keys), left.own
        stored = StoredRows(plan, record.route, self._keys, self._own)
        stored = await stored.written_before(lambda rows: self._guarded(log.add_requests(self.run, rows)))
        begun = self._guarded(log.start(record, stored, others))
        if self.before.killed:
            self._guarded(log.hold(self.run, self.before.gone, self.before.unseen))
        if plan.options.chunk is not None:  # which row has another key is known later
            await begun
        log.known(self.run, known, shared=self._share)
        if to_other_prompts:
            rows = f"{counted(to_other_prompts, 'row')} that --only failed keeps {'was' if to_other_prompts == 1 else 'were'}"
            self._journal.note(f"{rows} answered for other prompts than these.", "warning")
        return left

    async def settle_all(self, ends: Iterable[tuple[int, Outcome]], settle: Settle) -> None:
        """End rows that need no request, each with `settle`. Of many, the loop and the disk get their turn meanwhile."""
        for n, (row, outcome) in enumerate(ends, 1):
            written = settle(row, outcome)
            if n % SETTLED_AT_ONCE == 0 and len(self._journal.rows) >= MANY:
                await (written or asyncio.sleep(0))

    async def finish(self, status: str) -> None:
        """Write how the run ended, after everything else of it is written."""
        if self._log is not None:
            await self._guarded(self._log.finish(self.run, status))
            self._log.unwatch(self._heard)
            if self._plan is not None and (self._plan.earlier.run is not None or self._plan.judge is not None):
                with suppress(sqlite3.Error, RuntimeError):  # the latter where the program ends, and no thread may begin
                    self.in_all, self.tokens_in_all = await asyncio.to_thread(billing.in_all, self._log, self.run)
        self._lease.release()

    def give_up(self, exc: Exception) -> None:
        """The log cannot be read: reported once, and nothing more is looked up in it."""
        self.log = None
        self._heard("trouble", exc)

    def _heard(self, what: str, why: Exception | None) -> None:
        """What came over the log (`runlog.writer.Tell`), said once each."""
        if self._log is None:
            return
        path, reason = self._log.path, (why.__cause__ or why) if why is not None else ""
        text = {
            "trouble": f"The run log {path} cannot be written ({reason}). Answers are kept in memory only, and written as soon as it can be: "
            "save the frame, then free space or set HOLYNB_HOME to another place.",
            "full": f"Too much is waiting for the run log {path}: what comes now is not written. Save the frame.",
            "written": f"The run log {path} can be written again; what was kept is written.",
            "replaced": f"The run log {path} was deleted, replaced or damaged. A new one was begun, with all answers of this run.",
        }[what]
        if what in ("trouble", "full"):
            self.unwritten = text
        elif what == "written" and "full" not in self._said:
            self.unwritten = None
        if what not in self._said:
            self._said.add(what)
            self._journal.note(text, "info" if what == "written" else "warning")

    # -- rows in chunks --------------------------------------------------------------------------------------------
    def chunk(self, row: int) -> None:
        """This row is asked in chunks from now on: they are paid for, and its answer stands under a key of its own."""
        self._chunked.add(row)
        self._keys[row] = self._plan.keys.chunked(row) if self._plan is not None else None

    def keep_requests(self, beside: str, rows: Collection[StoredRow]) -> None:
        """Keep requests beside the run's own, under its id with `beside` behind it."""
        if self._log is not None:
            self._guarded(self._log.add_requests(f"{self.run}{beside}", rows))

    def keep_end(self, beside: str, event: Ended, key: str | None, *, paid: bool = True) -> Awaitable[None] | None:
        """Keep the end of such a request. Returns something to wait for. Not `paid`: its payment stands elsewhere."""
        if self._log is None:
            return None
        if paid:
            self._pay_end(replace(event, row=event.row // PARTS_PER_ROW))
        shared = self._share and not event.outcome.cached
        return self._log.record(f"{self.run}{beside}", event, key, shared=shared, failed=self._write_failed)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _read(self, plan: Plan, log: RunLog | None) -> Reading:
        """What is left, the rows that asked something else before, and what the log has of this run."""
        if log is None:
            return pending(plan, {}, {}), [], ()
        earlier = log.answers(self.run)
        left = read(plan, log, earlier)
        # A row that --only failed keeps stays this run's own answer, where it is.
        own = frozenset(left.own) | (frozenset(plan.earlier.kept) & frozenset(earlier))
        known = [(Ended(row, earlier[row][1], time.time()), earlier[row][0]) for row in own if row in earlier]
        others = displaced(plan, earlier, own, left.keys)
        keys_now = set(left.keys) if plan.options.cache else ()  # at another place they are answered by the log
        return replace(left, own=own, displaced=sum(earlier[row][0] not in keys_now for row in others)), others, known

    def _read_many(self, plan: Plan, log: RunLog | None) -> Reading:
        """The same of many rows."""
        left, others = pending_rows.read(plan, log, self.run, Spool(settings.home()))
        return left, others, KnownRows(left, plan.earlier.kept)

    def _kept_for_other_prompts(self, plan: Plan, log: RunLog) -> int:
        """How many rows that `--only failed` keeps are answers to other prompts than the plan's."""
        if not plan.earlier.kept:
            return 0
        requests = plan.rows.requests
        before = (r for r in log.each_request(self.run) if r.row < len(requests) and r.row in plan.earlier.kept)
        return sum(now is not None and now.messages != r.messages for r in before for now in [requests[r.row]])

    def _pay_end(self, event: Ended) -> None:
        payment = payment_at_end(event)
        if self._log is not None and payment is not None:
            self._log.record_payment(self.run, payment)

    def _write_failed(self, failure: Exception) -> None:
        self._heard("trouble", failure)

    def _guarded(self, promise: asyncio.Future[None]) -> asyncio.Future[None]:
        """A future that is done when `promise` is and never fails: a failed write is reported, and the run goes on. Need not be awaited."""
        guarded: asyncio.Future[None] = promise.get_loop().create_future()

        def on_done(done: asyncio.Future[None]) -> None:
            failure = None if done.cancelled() else done.exception()
            if isinstance(failure, Exception):
                self._heard("trouble", failure)
            if not guarded.done():
                guarded.set_result(None)

        promise.add_done_callback(on_done)
        return guarded
