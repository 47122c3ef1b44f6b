"""A run: started, waited for, stopped, read. The one place where plan, engines, scheduler, run log and frame meet.

`infer` is the door. A Run belongs to whoever started it; its journal is written by the io thread alone.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holynb import files, loop
from holynb.config import Options, settings
from holynb.errors import InferError
from holynb.journal import EventSink, Journal
from holynb.results import Summary, Tally, folded, frame, vectors
from holynb.run import assembly, billing, chunk_log, embedding, out_file, prefix_order, session, spec, value, verdicts
from holynb.run.batch import BatchHandle, batched
from holynb.run.judged_rows import JudgedRows
from holynb.run.map_reduce import MapReduce
from holynb.run.packs import Packs
from holynb.run.pending_rows import Groups
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.run.work import backlogs, continues, end_rest, items, settled
from holynb.scheduler import Backlog, Policy, Scheduler, WorkItem
from holynb.spool import MANY
from holynb.types import Outcome, Prompt, Request, Route
from holynb.words import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run"]


class Run(session.InProcess):
    """One run over `n` rows.

    `wait()` and `await` return the run, and raise InferError where nothing could be done. `frame()` never raises, at any moment.
    `warns`: no view shows its notes, so that answers which could not be written into the run log are a Python warning.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.name = plan.options.name
        self.id = plan.earlier.run or f"{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.n = len(plan.rows.prompts)
        self.started = time.time()
        self._start = time.monotonic()  # elapsed is told by a clock that nobody sets
        self._duration: float | None = None
        self.ended: float | None = None
        self.error: Exception | None = None
        self.stopped = self.warns = False
        self.saved: Decimal | None = None
        self.journal = Journal(self.n, settings.home())
        self._tally = Tally(plan.price_as, batch=plan.options.batch) if self.n >= MANY else None
        self._recorder = Recorder(self.journal, self.id, share=plan.options.cache, tally=self._tally)
        self._future: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._scheduler: Scheduler | None = None
        self.batch = BatchHandle(self._begin_look, self._cancel)
        chunks = chunk_log.ChunkLog(plan, self._recorder)
        self._map_reduce = MapReduce(plan, self.journal, self._recorder, chunks) if plan.options.chunk else None
        self._packs = Packs(plan, self._recorder) if plan.options.embed else None
        self._judging = JudgedRows(plan, plan.judge, self.journal, self._recorder) if plan.judge else None
        self._out: out_file.OutFile | None = None

    # -- reading ---------------------------------------------------------------------------------------------------
    @property
    def options(self) -> Options:
        return self.plan.options

    @property
    def prompts(self) -> Sequence[Prompt]:
        return self.plan.rows.prompts

    @property
    def requests(self) -> Sequence[Request | None]:
        return self.plan.rows.requests

    @property
    def route(self) -> Route:
        return self.plan.route

    @property
    def done(self) -> bool:
        """Whether every row has ended."""
        return self._future is None or self._future.done()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, or that it took."""
        return time.monotonic() - self._start if self._duration is None else self._duration

    def rows(self) -> Sequence[Outcome | None]:
        """The outcome of each row, None where it has not ended; of many rows, read as they are asked for."""
        return list(self.journal.rows) if self.n < MANY else self.journal.rows

    def frame(self) -> pd.DataFrame:
        """The result so far, in input order, on the input's index; with `--into`, a copy of the input plus that column. Never raises."""
        result, source, into = self.result(), self.plan.rows.source, self.options.into
        return result if into is None or source is None else frame.with_column(source, into, result, self.plan.extra)

    def result(self) -> pd.DataFrame:
        """All columns of the result, whatever `--into` says."""
        plan, embed = self.plan, embedding.of(self.options)
        return frame.build(self.rows(), plan.rows.index, plan.schema, spec.origin(self), embed, judged=plan.judge is not None)

    def vectors(self) -> Any:
        """The vectors of `--embed` as float32 (rows, dimensions), NaN where a row has none. Never raises for a run with `--embed`."""
        return vectors.matrix(self.rows(), embedding.of(self.options))

    def table(self) -> Any:
        """The same as `frame()` as an Arrow table. Needs pyarrow."""
        return files.to_arrow(self.frame())

    def value(self) -> Any:
        """What a cell gives: `frame()`, or the same as the kind of table that the rows came from, such as polars."""
        return value.of(self.plan, self.frame, self.result)

    def chunks(self) -> pd.DataFrame:
        """The chunks of the rows that `--chunk` asks in chunks: each prompt, and the columns of its result; by row, round and part."""
        return chunk_log.table(list(self._map_reduce.chunks()) if self._map_reduce else [], self.plan.rows.index)

    def summary(self) -> Summary:
        """Counts, tokens, dollars and seconds so far."""
        tally = self._tally or folded(self.rows(), self.plan.price_as, batch=self.options.batch)
        summary = tally.summary(self.n, self.elapsed, saved=self.saved, stopped=self.stopped, in_all=self._recorder.in_all)
        return replace(summary, tokens_in_all=self._recorder.tokens_in_all)

    def quality(self) -> Any:
        """How good the answers are: against `--label`, by `--judge`, routes of `--compare` by each other. Shown, and read as frames."""
        from holynb import ui

        return ui.quality(self)

    def plot(self) -> Any:
        """The run's charts as plotly figures, by name; as the value of a cell they are drawn side by side."""
        from holynb import ui

        return ui.figures(self)

    def _ipython_display_(self) -> None:
        from holynb import ui

        ui.show(self)

    # -- doing -----------------------------------------------------------------------------------------------------
    def start(self) -> Run:
        """Start; returns at once. Raises BadOption where `--out` cannot be written."""
        self._out = out_file.checked(self.plan, self.journal, self.id)
        session.remember(self)
        self._future = loop.submit(self._main())
        return self

    def _begin_look(self) -> None:
        self._out = out_file.tried(self.plan, self.journal, self.id)
        self._future = loop.submit(self._main())

    def wait(self, timeout: float | None = None) -> Run:
        """Block until every row has ended. Raises TimeoutError, InferError, or what made the run impossible."""
        if self._future is not None:
            try:
                self._future.result(timeout)
            except CancelledError as exc:  # the program ended before the run had begun
                raise session.reason(exc) from None
        return self.check()

    def __await__(self) -> Generator[Any, None, Run]:
        """Wait on any asyncio loop. Cancelling the wait leaves the run going."""
        if self._future is not None:
            yield from asyncio.shield(asyncio.wrap_future(self._future)).__await__()
        return self.check()

    def check(self) -> Run:
        """Raise what `wait` raises; else return the run."""
        unwritten = self._recorder.unwritten or (self._out and self._out.failed)
        if self.warns and unwritten:
            self.warns = False
            warnings.warn(unwritten, RuntimeWarning, stacklevel=3)
        if self.error is not None:
            raise self.error
        summary = self.summary()
        if summary.error and summary.error + summary.skipped == summary.n:
            first = next(o for o in self.journal.rows if o is not None and o.status == "error")
            raise InferError(summary.nothing_answered(first.error), self)
        return self

    def cancel(self) -> None:
        """Stop: no new requests, a short grace for those in flight. A second call ends at once."""
        hard, self.stopped = self.stopped, True
        loop.call(self._cancel, hard)

    def release(self) -> None:
        """Let go: what is in a batch goes on at its provider, and all else is stopped."""
        self.batch.release() if self.options.batch else self.cancel()

    def _cancel(self, hard: bool) -> None:
        if not hard and self.batch.stop():
            return
        if self._scheduler is not None:
            self._scheduler.stop(hard=hard)
        elif self._task is not None and not self._task.cancelling():
            self._task.cancel()  # once: a second would cut off the writing of what has ended

    def __repr__(self) -> str:
        summary = self.summary()
        state = "done" if self.done else f"{summary.n - summary.running:,} of {counted(summary.n, 'row')}"
        return f"<holynb run {self.name or self.id} on {self.route}: {state}>"

    # -- on the io loop --------------------------------------------------------------------------------------------
    async def _main(self) -> None:
        self._task = asyncio.current_task()
        status = "done"
        try:
            await self._execute()
        except asyncio.CancelledError:
            self.stopped = not self.batch.leaves
        except Exception as exc:  # noqa: BLE001 - kept for wait() to raise; rows must still end
            self.error = session.reason(exc)
            status = "failed"
        finally:
            pending = self.error is None and not self.stopped and (self.batch.leaves or self.batch.once) and None in self.journal.rows
            if not pending:
                self._sweep()
            self.ended, self._duration, self._task = time.time(), time.monotonic() - self._start, None  # another stop cuts nothing off
            if self._out is not None:
                await self._out.end()
            await self._recorder.finish("pending" if pending else "stopped" if self.stopped else status)

    async def _execute(self) -> None:
        engines = assembly.engines(self.plan)  # one that cannot be made leaves no run in the log
        try:
            items, backlogs = await self._begin()
            if items or backlogs:
                await assembly.ready(engines, self.journal.note)
            endpoints = assembly.endpoints(self.plan, engines)
            self._warn()
            if self.options.batch:
                pieces = batched(self.plan, self._recorder, engines, self._warn_of)
                self.batch.hold(pieces, stopped=self.stopped)
                await pieces.run(items, once=self.batch.once)
                self.stopped = pieces.stopped
                return
            policy = Policy(self.plan.timeouts, self.options.retries, self.options.deadline, max_in_flight=self.options.concurrency)
            sink: EventSink = self._map_reduce or self._packs or self._judging or self._recorder
            tiers, money = assembly.tiers(self.plan, endpoints), billing.money(self.plan, self._warn_of, self._recorder)
            self._scheduler = Scheduler(tiers, policy, sink, money, verdicts.validator(self.plan, assembly.validator(self.plan)))
            if self._judging is not None:
                self._judging.add = self._scheduler.add
            if self._map_reduce is not None:
                items = await self._map_reduce.begin(items)
                self._map_reduce.add = self._scheduler.add
            elif self._packs is not None:
                items = self._packs.begin(items)
                self._packs.add = self._scheduler.add
            if not self.stopped:
                await self._scheduler.run(prefix_order.arranged(items), backlogs)
            self.error = self._scheduler.error
            assembly.remember(self.plan, endpoints)
        finally:
            for engine in engines.values():
                await engine.aclose()

    async def _begin(self) -> tuple[list[WorkItem], list[Backlog]]:
        """Write the run down and end the rows that need no request. Returns items of the others, equal ones as one; or backlogs of many."""
        pending = await self._recorder.begin(self.plan, spec.record(self))
        self.saved = pending.saved
        await self._recorder.settle_all(settled(self.plan, pending), (self._judging or self._recorder).settle)
        for text in continues(self.plan, pending):
            self.journal.note(text, "warning" if pending.displaced else "info")
        if self._out is not None:
            self._out.begin()
        chains = {e.route: assembly.chain(self.plan, e.route) for e in self.plan.targets.endpoints}
        as_list = self._map_reduce or self._packs or self._judging or self.options.batch
        if isinstance(pending.groups, Groups) and not as_list:
            return [], backlogs(self.plan.rows.requests, pending.groups, chains)
        work = list(items(self.plan.rows.requests, pending.groups, chains))
        return (work if self._judging is None else [*work, *await self._judging.begin()]), []

    def _warn_of(self, text: str) -> None:
        self.journal.note(text, "warning")

    def _warn(self) -> None:
        for text in (*self.plan.notes, *billing.unpriced(self.plan)):
            self._warn_of(text)

    def _sweep(self) -> None:
        """Nothing is left without an end, whatever happened."""
        if self._judging is not None:
            self._judging.sweep()
        ending = session.ending(self.error) if self.error or not self._scheduler else self._scheduler.unsent_outcome()
        end_rest(self._recorder, ending)
