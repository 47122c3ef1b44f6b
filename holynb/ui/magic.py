"""`%%infer` and `%infer`: a cell or a line becomes a run, is waited for, shown, bound and returned. Knows IPython; sends nothing itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand
from traitlets import Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from holynb.config import Options
from holynb.errors import BadPrompt, HolynbError, InferError, Interrupted, UserError
from holynb.ui.cell import LineStep, Work, complete, displayhook, grammar, transform

if TYPE_CHECKING:
    from holynb.run import Plan, Run
    from holynb.ui.cell import Watch

__all__ = ["InferMagic", "Work", "load", "unload"]

NAMES = ("infer", "holynb")

#: Seconds that a run cancelled by unloading has to write down how it ended.
ENDING = 5.0


class InferMagic(Configurable):
    """The magics of one shell. `%config InferMagic` lists what can be set for this session, above both configuration files."""

    default = Unicode("", help="Route or alias of cells that name none: provider/model.").tag(config=True)
    alias = Dict(key_trait=Unicode(), value_trait=Unicode(), help='Names for routes: {"fast": "openai/gpt-4.1-mini"}.').tag(config=True)
    provider = Dict(key_trait=Unicode(), help='Addresses: {"mine": {"base": "https://…/v1", "key": "MINE_API_KEY"}}.').tag(config=True)
    price = Dict(key_trait=Unicode(), help='Dollars per million tokens: {"mine/model": {"input": 1, "output": 2}}.').tag(config=True)
    router = Dict(key_trait=Unicode(), help="Rules that choose a route by task type.").tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(parent=shell)
        self.shell = shell
        self.before: dict[tuple[str, str], Any] = {}
        """Magics of the same names that stood here before, to be put back."""
        self.transform = transform.install(shell)

    @validate("default", "alias", "provider", "price", "router")
    def _configure(self, proposal: Any) -> Any:
        """What is set here goes above the files; what they would refuse is refused."""
        from holynb.config import settings

        try:
            settings.override(**{proposal.trait.name: proposal.value or None})
        except HolynbError as exc:
            raise TraitError(str(exc)) from None
        return proposal.value

    # -- the two doors -----------------------------------------------------------------------------------------------
    @no_var_expand
    def infer(self, line: str, cell: str | None = None) -> Any:
        # The synchronous door: inside `%%time`, `%%capture`, `run_cell`, and wherever a cell cannot be awaited.
        from holynb.ui.cell.wait import wait

        with _plainly("--debug" in line):
            work = self._line(line) if cell is None else self._cell(line, cell)
            while isinstance(work, LineStep):
                work = work.then(wait(work.run, work.page))
            return self._finish(work, wait(work.run, work.page)) if isinstance(work, Work) else work

    infer.__doc__ = grammar.cell_help()

    async def acell(self, line: str, cell: str) -> Any:
        """The awaited door of `%%infer`."""
        return await self._awaited(line, lambda: self._cell(line, cell))

    async def aline(self, line: str) -> Any:
        """The awaited door of `%infer run` and `%infer resume`."""
        return await self._awaited(line, lambda: self._line(line))

    async def _awaited(self, line: str, prepare: Callable[[], Any]) -> Any:
        from holynb.ui.cell.wait import follow

        with _plainly("--debug" in line):
            work = prepare()
            while isinstance(work, LineStep):
                work = work.then(await follow(work.run, work.page))
            return self._finish(work, await follow(work.run, work.page)) if isinstance(work, Work) else work

    # -- before the run ------------------------------------------------------------------------------------------------
    def _cell(self, line: str, body: str) -> Any:
        return self.send(grammar.parse(line), body)

    def send(self, said: grammar.CellLine, body: str) -> Any:
        """A Work to wait for; or the value at once (`--bg`, `--show-code`, `--dry-run`, `--no-execute`)."""
        from holynb.prompts import saved
        from holynb.run import plan, resume
        from holynb.ui.commands import money

        body, route, options = saved.apply(body, said.route, Options.parse(said.said))
        if not body.strip():
            raise BadPrompt("This cell has no prompt. Write it on the lines below %%infer.")
        body = body.removesuffix("\n") if options.show_code or options.save else body
        if options.show_code:
            print(plan.code(body, route, options))
            return None
        if options.no_execute:
            return money.save_prompt(body, route, options)
        made = resume.continued(plan.make(body, route, options, variables=self.shell.user_ns, ask=self._ask()))
        if options.save:
            money.save_prompt(body, route, options)
        if options.dry_run:
            from holynb.ui.commands import preview

            print(preview.text(made))
            return None
        money.confirm_cost(made, can_ask=self.somebody)
        show = "charts" if said.name and not said.show and "show" not in said.said else options.show
        return self.start(made, said.name, show)

    def _line(self, line: str) -> Any:
        from holynb.ui import line_magic as commands

        return commands.run(self, line)

    def start(self, plan: Plan, name: str | None = None, show: str = "all") -> Any:
        """Start a planned run. A Work to wait for; with `--bg` the run itself, bound to `name` where there is one."""
        from holynb.run import Run
        from holynb.ui.cell import views
        from holynb.ui.live import memory, servers

        run = Run(self._streamed(plan)).start()
        memory.watch(run)
        servers.watch(run)
        if plan.options.bg:
            if name is None:
                return run
            self.shell.push({name: run})
            return None
        quiet = plan.options.quiet
        return Work(run, views.choose(self.shell, quiet=quiet), name, "none" if quiet else show, plan.options.debug)

    def _streamed(self, plan: Plan) -> Plan:
        """One prompt streams where somebody watches, unless the cell says otherwise."""
        if plan.options.stream is not None or len(plan.rows.requests) != 1 or not self.somebody():
            return plan
        return replace(plan, rows=replace(plan.rows, requests=[r and replace(r, stream=True) for r in plan.rows.requests]))

    def _ask(self) -> Callable[[Any], str | None] | None:
        """How to ask for a missing key; None where nobody could answer."""
        if not self.somebody():
            return None
        from holynb.ui.line_magic import ask_key

        return ask_key

    def somebody(self) -> bool:
        """Whether a person is there who could answer a question."""
        from kernels_support.jupyter.capabilities import detect

        return detect(self.shell).asks

    # -- after the run -------------------------------------------------------------------------------------------------
    def _finish(self, work: Work, watch: Watch) -> Any:
        """Bind, show, then raise or return: whatever happened, NAME holds the frame first."""
        run = work.run
        frame = run.frame()
        if work.name is not None:
            self.shell.push({work.name: frame})
        failure = _failure(run)
        if isinstance(failure, UserError) or (failure is not None and run.n == 1):
            # Nothing was sent, or the line that ends the cell says what became of its one prompt: there is nothing else to show.
            work = replace(work, show="none")
        text = self._show(work, watch, last=work.name is None and not watch.interrupted and failure is None)
        if watch.interrupted:
            raise Interrupted(_goodbye(work), run)
        if failure is not None:
            raise failure
        if work.name is not None:
            return None
        displayhook.already(self.shell, frame, text)
        return frame

    def _show(self, work: Work, watch: Watch, *, last: bool) -> str | None:
        """Put the final output in its place. A terminal shows a cell's value beside `Out[n]`, so there its text is returned."""
        from holynb.ui.cell import views
        from holynb.ui.output import plots, report, static

        if work.show == "none":
            work.page.end({})
            return None
        record = report.of(work.run)
        if watch.trouble is not None:
            record = replace(record, notes=[*record.notes, f"Progress could not be shown: {watch.trouble!r}"])
        if last and isinstance(work.page, views.Terminal):
            work.page.clear()
            return static.bundle(record, work.show)["text/plain"]
        plots.show(work.page, record, work.show, self.shell)
        return None


def load(shell: Any) -> None:
    """Register the magics, under both names, and the transform. Loading twice is loading once."""
    unload(shell)
    magics = InferMagic(shell)
    for kind in ("line", "cell"):
        table = shell.magics_manager.magics[kind]
        for name in NAMES:
            magics.before[kind, name] = table.get(name)
            table[name] = magics.infer
    shell.configurables.append(magics)
    setattr(shell, transform.ATTRIBUTE, magics)
    complete.install(shell, lambda: shell.user_ns, _commands)


def _commands() -> Collection[str]:
    from holynb.ui.line_magic import COMMANDS

    return COMMANDS


def unload(shell: Any) -> None:
    """Leave nothing: no magic, transform, attribute, thread or connection. Runs that go on are ended; their answers are in the run log."""
    magics = vars(shell).get(transform.ATTRIBUTE)
    if magics is None:
        return
    transform.remove(shell, magics.transform)
    complete.remove(shell)
    displayhook.forget(shell)
    for (kind, name), function in magics.before.items():
        table = shell.magics_manager.magics[kind]
        if getattr(table.get(name), "__self__", None) is magics:
            if function is None:
                del table[name]
            else:
                table[name] = function
    shell.configurables.remove(magics)
    delattr(shell, transform.ATTRIBUTE)
    _end_runs()


def _end_runs() -> None:
    """Only what was ever started or set is ended, so that unloading imports nothing."""
    if (pulse := sys.modules.get("holynb.ui.live.timer")) is not None:
        pulse.stop()
    if (session := sys.modules.get("holynb.run.session")) is not None:
        going = [run for run in session.runs() if not run.done]
        for run in going:
            run.cancel()
            run.cancel()
        for run in going:
            with suppress(Exception):  # how it ended is in the run log
                run.wait(ENDING)
    if (runlog := sys.modules.get("holynb.runlog.current")) is not None:
        runlog.close()  # while the loop lives that is told what was written
    if (loop := sys.modules.get("holynb.loop")) is not None:
        loop.close()
    if (settings := sys.modules.get("holynb.config.settings")) is not None:
        settings.reset()


@contextmanager
def _plainly(debug: bool) -> Iterator[None]:
    """What a person can cure is one line without a traceback; with `--debug` everything has one."""
    try:
        yield
    except HolynbError as exc:
        if debug:
            whole = "".join(traceback.format_exception(exc)).splitlines()
            exc._render_traceback_ = lambda: whole  # type: ignore[attr-defined]
            raise
        if isinstance(exc, InferError | Interrupted):
            raise
        raise UsageError(" ".join(str(exc).split())) from None


def _failure(run: Run) -> Exception | None:
    """What `run.check()` would raise. A run that is left before it has ended has none yet."""
    try:
        run.check()
    except Exception as exc:  # noqa: BLE001 - raised by the caller, once the output is in its place
        return exc
    return None


def _goodbye(work: Work) -> str:
    """The one line that ends an interrupted cell."""
    told = work.run.summary()
    where = f"{work.name} and holynb.last" if work.name else "holynb.last"
    rows = f"{told.n:,} row{'s are' if told.n != 1 else ' is'}"
    return f"Interrupted: {told.ok:,} of {rows} answered and kept in {where}. %infer resume {work.run.name or work.run.id} sends the rest."
