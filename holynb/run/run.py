"""A run: started, waited for, stopped, read. The one place where plan, engines, scheduler, run log and frame meet.

`infer` is the door. A Run belongs to whoever started it; its journal is written by the io thread alone.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holynb import loop
from holynb.config import Options, settings, suggest
from holynb.errors import BadOption, Fault, HolynbError, InferError
from holynb.journal import Journal
from holynb.pricing import prices
from holynb.prompts import saved
from holynb.results import Summary, frame, summarize
from holynb.run import assembly, chunk_log, quote, resume, session
from holynb.run.map_reduce import MapReduce
from holynb.run.plan import Plan, make
from holynb.run.recorder import Recorder
from holynb.runlog import RunRecord
from holynb.scheduler import Policy, Scheduler, WorkItem
from holynb.types import Ended, Outcome, Prompt, Request, Route
from holynb.words import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "infer"]


def infer(prompts: Any, route: str | None = None, *, df: Any = None, **options: Any) -> Run:
    """Send prompts; returns at once with the run.

    prompts: a string, a list of strings or of dicts (`prompt`, `system`, `messages`, `max_tokens`, `temperature`, `task_type`), or, with
             `df`, a template (`{{ column }}`) that is rendered once per row.
    route:   `provider/model` or an alias; without it the configured default, else the embedded model.
    options: the options of a cell with underscores (`max_tokens=100`, `cache=False`); `%infer help` lists them.

    Raises UserError before anything is sent. `run.wait()` or `await run`, then `run.frame()`.
    """
    checked = Options.of({**options, "df": df})
    if checked.dry_run or checked.show_code:
        raise BadOption(
            "infer() starts a run; dry_run and show_code belong to a cell: %%infer --dry-run. (holynb.run.plan.make sends nothing.)"
        )
    if checked.no_execute:
        raise BadOption(
            "infer() returns a run, so no_execute has no meaning here: holynb.prompts.saved.save(name, prompt, route, Options(…))."
        )
    prompts, route, chosen = saved.used(prompts, route, checked)
    # A saved prompt is a cell's body, so it is rendered as one; a string given here is sent as it is.
    plan = make(prompts, route, chosen, variables=None if checked.use is None else {})
    plan = resume.continued(plan)
    quote.check(plan)
    if chosen.save is not None:
        saved.keep(prompts, route, chosen)
    return Run(plan).start()


class Run:
    """One run over `n` rows.

    `wait()` and `await` return the run, and raise InferError where nothing could be done. `frame()` never raises, at any moment.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.name = plan.options.name
        self.id = plan.continues or f"{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.n = len(plan.prompts)
        self.started = time.time()
        self._began = time.monotonic()  # elapsed is told by a clock that nobody sets
        self._took: float | None = None
        self.ended: float | None = None
        self.error: Exception | None = None
        self.stopped = False
        self.saved: Decimal | None = None
        self._keeper = Recorder(self.id, self.n, share=plan.options.cache)
        self.journal = Journal(self.n, self._keeper)
        self._keeper.journal = self.journal
        self._future: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._scheduler: Scheduler | None = None
        self._parts = MapReduce(plan, self.journal, chunk_log.ChunkLog(plan, self._keeper)) if plan.options.chunk else None

    # -- reading ---------------------------------------------------------------------------------------------------
    @property
    def options(self) -> Options:
        return self.plan.options

    @property
    def prompts(self) -> Sequence[Prompt]:
        return self.plan.prompts

    @property
    def requests(self) -> Sequence[Request | None]:
        return self.plan.requests

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
        return time.monotonic() - self._began if self._took is None else self._took

    def rows(self) -> list[Outcome | None]:
        """The outcome of each row, None where it has not ended."""
        return list(self.journal.rows)

    def frame(self) -> pd.DataFrame:
        """The result so far, in input order, on the input's index; with `--into`, a copy of the input plus that column. Never raises."""
        result = self.result()
        if self.options.into is not None and self.plan.source is not None:
            columns = self.plan.schema.columns if self.plan.schema else ()
            return frame.into(self.plan.source, self.options.into, result, [c.name for c in columns])
        return result

    def result(self) -> pd.DataFrame:
        """All columns of the result, whatever `--into` says."""
        return frame.build(self.rows(), self.plan.index, self.plan.schema)

    def chunks(self) -> pd.DataFrame:
        """The parts of the rows that `--chunk` asks in parts: what was asked, and the columns of the result; by row, round and part."""
        return chunk_log.table(list(self._parts.chunks()) if self._parts else [], self.plan.index)

    def summary(self) -> Summary:
        """Counts, tokens, dollars and seconds so far."""
        return summarize(self.rows(), self.elapsed, saved=self.saved, stopped=self.stopped, price_as=self.plan.price_as)

    def plot(self) -> Any:
        """The run's charts as plotly figures, by name."""
        from holynb.ui import figures

        return figures(self)

    # -- doing -----------------------------------------------------------------------------------------------------
    def start(self) -> Run:
        """Start; returns at once."""
        session.remember(self)
        self._future = loop.submit(self._main())
        return self

    def wait(self, timeout: float | None = None) -> Run:
        """Block until every row has ended. Raises TimeoutError, InferError, or what made the run impossible."""
        if self._future is not None:
            self._future.result(timeout)
        return self.check()

    def __await__(self) -> Generator[Any, None, Run]:
        """Wait on any asyncio loop. Cancelling the wait leaves the run going."""
        if self._future is not None:
            yield from asyncio.shield(asyncio.wrap_future(self._future)).__await__()
        return self.check()

    def check(self) -> Run:
        """Raise what `wait` raises; else return the run."""
        if self.error is not None:
            raise self.error
        told = self.summary()
        if told.error and told.error + told.skipped == told.n:
            first = next(o for o in self.journal.rows if o is not None and o.status == "error")
            kinds = ", ".join(f"{count} {kind}" for kind, count in told.errors.most_common())
            raise InferError(f"no row could be answered ({told.error} of {told.n} failed: {kinds}): {first.error}", self)
        return self

    def cancel(self) -> None:
        """Stop: no new requests, a short grace for those in flight. A second call ends at once."""
        hard, self.stopped = self.stopped, True
        loop.call(self._cancel, hard)

    def _cancel(self, hard: bool) -> None:
        if self._scheduler is not None:
            self._scheduler.stop(hard=hard)
        elif self._task is not None and not self._task.cancelling():
            self._task.cancel()  # once: a second would cut off the writing of what has ended

    def __repr__(self) -> str:
        told = self.summary()
        state = "done" if self.done else f"{told.n - told.running:,} of {counted(told.n, 'row')}"
        return f"<holynb run {self.name or self.id} on {self.route}: {state}>"

    # -- on the io loop --------------------------------------------------------------------------------------------
    async def _main(self) -> None:
        self._task = asyncio.current_task()
        status = "done"
        try:
            await self._execute()
        except asyncio.CancelledError:
            self.stopped = True
        except Exception as exc:  # noqa: BLE001 - kept for wait() to raise; rows must still end
            self.error = exc
            status = "failed"
        finally:
            self._sweep()
            self.ended, self._took = time.time(), time.monotonic() - self._began
            await self._keeper.finish("stopped" if self.stopped else status)

    async def _execute(self) -> None:
        jobs = await self._begin()
        engines = assembly.engines(self.plan)
        try:
            if jobs:
                for engine in engines.values():
                    await engine.ready(self.journal.note)
            stations = assembly.stations(self.plan, engines)
            self._warn()
            policy = Policy(self.plan.timeouts, self.options.retries, self.options.deadline, most=self.options.concurrency)
            journal = self._parts or self.journal
            self._scheduler = Scheduler(
                assembly.stops(self.plan, stations), policy, journal, assembly.money(self.options), assembly.judge(self.plan)
            )
            if self._parts is not None:
                jobs = await self._parts.begin(jobs)
                self._parts.add = self._scheduler.add
            if not self.stopped:
                await self._scheduler.run(jobs)
            self.error = self._scheduler.error
            assembly.remember(self.plan, stations)
        finally:
            for engine in engines.values():
                await engine.aclose()

    async def _begin(self) -> list[WorkItem]:
        """Write the run down, end the rows that need no request, and group those that ask the same."""
        found = await self._keeper.begin(self.plan, self._record())
        self.saved = found.saved
        jobs: dict[str, WorkItem] = {}
        chains = {e.route: assembly.chain(self.plan, e.route) for e in self.plan.endpoints}
        for row, request in enumerate(self.plan.requests):
            if (kept := self.plan.kept.get(row)) is not None:
                self._settle(row, kept)
            elif request is None:
                self._settle(row, Outcome("skipped"))
            elif (known := found.outcomes.get(row)) is not None:
                self._settle(row, replace(known, attempts=0, cost=Decimal(0), cached=True))
            else:
                self._group(jobs, request, chains[request.route])
        return list(jobs.values())

    def _group(self, jobs: dict[str, WorkItem], request: Request, chain: Sequence[str]) -> None:
        key = self._keeper.keys[request.row]
        if key is None or not self.options.cache:
            key = f"row {request.row}"
        if key in jobs:
            jobs[key].followers.append(request.row)
        else:
            jobs[key] = WorkItem(request, chain)

    def _settle(self, row: int, outcome: Outcome) -> None:
        self.journal.append(Ended(row, outcome, time.time()))

    def _warn(self) -> None:
        for text in self.plan.notes:
            self.journal.note(text, "warning")
        for endpoint in self.plan.endpoints:
            if endpoint.wire not in ("pool", "sim") and prices.list_price(endpoint.route, None) is None:
                near = suggest.model(endpoint.route, settings.providers())
                self.journal.note(
                    f"No price is known for {endpoint.route}, so its cost is shown as ?.{near} Set it in config.toml: "
                    f'[price."{endpoint.route}"] input = …, output = … (dollars per million tokens)',
                    "warning",
                )

    def _record(self) -> RunRecord:
        said: dict[str, Any] = {"options": {k: v for k, v in _plain(self.options).items() if v is not None}}
        if self.plan.given is not None:
            said["given"] = str(self.plan.given)
        if self.plan.schema is not None:
            said["schema"] = self.plan.schema.document
        if self.plan.escalate is not None:
            said["escalate"] = str(self.plan.escalate)
        if self.plan.index is not None:
            said["index"] = frame.kinds(self.plan.index)
        return RunRecord(self.id, self.name, str(self.route), self.n, self.started, spec=said)

    def _sweep(self) -> None:
        """Nothing is left without an end, whatever happened."""
        fault = self.error if isinstance(self.error, Fault) else None
        kind = fault.kind if fault else "bad_request" if isinstance(self.error, HolynbError) else "internal"
        ending = Outcome("cancelled") if self.error is None else Outcome("error", error_type=kind, error=str(self.error))
        for row, outcome in enumerate(self.journal.rows):
            if outcome is None:
                self._settle(row, ending)


def _plain(options: Options) -> dict[str, Any]:
    """What was said, as JSON can hold it; the frame itself stays out of the log."""
    default = Options()
    said = {n: getattr(options, n) for n in Options.__slots__ if n not in ("df", "schema") and getattr(options, n) != getattr(default, n)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in said.items()}
