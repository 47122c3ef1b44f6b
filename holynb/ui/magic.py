"""`%%infer` and `%infer`: run a cell or a line, wait for it, and show, bind and return its value. Knows IPython; sends no requests."""

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
from holynb.translation import choose, say
from holynb.ui.cell import LineStep, Work, complete, displayhook, grammar, renewed, scope, transform
from holynb.words import KEY_SHAPES, clean

if TYPE_CHECKING:
    from holynb.run import Plan, Run
    from holynb.ui.cell import WaitState

__all__ = ["InferMagic", "Work", "load", "unload"]

#: Kind and name of what is registered. IPython takes `%%infer` below other code for a line magic called `%infer`.
MAGICS = [(kind, name) for name in ("infer", "holynb") for kind, name in (("line", name), ("cell", name), ("line", f"%{name}"))]

#: For a run cancelled by unloading, to log its end.
UNLOAD_GRACE_S = 5.0


class InferMagic(Configurable):
    """The magics of one shell. `%config InferMagic` lists the settings of this session, which override both configuration files."""

    default = Unicode("", help="Route or alias of cells that name none: provider/model.").tag(config=True)
    alias = Dict(key_trait=Unicode(), value_trait=Unicode(), help='Names for routes: {"fast": "openai/gpt-6-luna"}.').tag(config=True)
    provider = Dict(key_trait=Unicode(), help='Addresses: {"mine": {"base": "https://…/v1", "key": "MINE_API_KEY"}}.').tag(config=True)
    price = Dict(key_trait=Unicode(), help='Dollars per million tokens: {"mine/model": {"input": 1, "output": 2}}.').tag(config=True)
    router = Dict(key_trait=Unicode(), help="Rules that choose a route by task type.").tag(config=True)

    def __init__(self, shell: Any) -> None:
        super().__init__(parent=shell)
        self.shell = shell
        self.replaced: dict[tuple[str, str], Any] = {}
        """(kind, name) → the magic of that name before loading, None if there was none; restored by `unload`."""
        self.transform = transform.install(shell)

    @validate("default", "alias", "provider", "price", "router")
    def _configure(self, proposal: Any) -> Any:
        """Override the settings files; refuse what they would refuse."""
        from holynb.config import settings

        try:
            settings.override(**{proposal.trait.name: proposal.value or None})
        except HolynbError as exc:
            raise TraitError(str(exc)) from None
        return proposal.value

    # -- entry points -----------------------------------------------------------------------------------------------
    @no_var_expand
    def infer(self, line: str, cell: str | None = None) -> Any:
        # Synchronous: inside `%%time`, `%%capture`, `run_cell`, and wherever a cell cannot be awaited.
        from holynb.ui.cell.wait import wait

        with _one_line_errors("--debug" in line):
            work = self._line(line) if cell is None else self._cell(line, cell)
            while isinstance(work, LineStep):
                work = work.then(wait(work.run, work.page))
            return self._finish(work, wait(work.run, work.page)) if isinstance(work, Work) else work

    infer.__doc__ = grammar.cell_help()

    @no_var_expand
    def below(self, line: str) -> Any:  # noqa: ARG002 - as a magic takes it
        raise UsageError("%%infer goes in the first line of its cell, below comments only: move the code above it into its own cell.")

    async def acell(self, line: str, cell: str) -> Any:
        """`%%infer`, awaited."""
        return await self._follow(line, lambda: self._cell(line, cell))

    async def aline(self, line: str) -> Any:
        """`%infer run`, `%infer resume` and `%infer bench`, awaited."""
        return await self._follow(line, lambda: self._line(line))

    async def _follow(self, line: str, prepare: Callable[[], Any]) -> Any:
        from holynb.ui.cell.wait import follow

        with _one_line_errors("--debug" in line):
            work = prepare()
            while isinstance(work, LineStep):
                work = work.then(await follow(work.run, work.page))
            return self._finish(work, await follow(work.run, work.page)) if isinstance(work, Work) else work

    # -- before the run ------------------------------------------------------------------------------------------------
    def _cell(self, line: str, body: str) -> Any:
        return self.send(grammar.parse(line), body)

    def send(self, line: grammar.CellLine, body: str) -> Any:
        """Run a cell. Returns a Work to wait for, or the value (`--bg`, `--show-code`, `--dry-run`, `--no-execute`)."""
        from holynb.prompts import saved
        from holynb.run import plan, pythoncode, resume
        from holynb.ui.commands import money

        body, route, options = saved.apply(body, line.route, Options.parse(line.options))
        if not body.strip():
            raise BadPrompt("This cell has no prompt. Write it on the lines below %%infer.")
        body = body.removesuffix("\n") if options.show_code or options.save else body
        if options.show_code:
            print(pythoncode.code(body, route, options))
            return None
        if options.no_execute:
            return money.save_prompt(body, route, options)
        planned = resume.continued(plan.make(body, route, options, variables=scope.variables(self.shell)))
        if options.save:
            money.save_prompt(body, route, options)
        if options.dry_run:
            from holynb.ui.commands import preview

            preview.show(self.shell, planned)
            return None
        money.confirm_cost(planned, can_ask=self.can_ask)
        show = "charts" if line.name and not line.show and "show" not in line.options else options.show
        return self.start(planned, line.name, show)

    def _line(self, line: str) -> Any:
        from holynb.ui import line_magic

        return line_magic.run(self, line)

    def start(self, plan: Plan, name: str | None = None, show: str = "all") -> Any:
        """Start a planned run. Returns a Work to wait for; with `--bg` the run itself, or None where it is bound to `name`."""
        from holynb.run import Run
        from holynb.ui.cell import rundisplay, views
        from holynb.ui.live import memory, servers

        plan = plan if name is None else replace(plan, variable=name)
        renewal = renewed.of(self.shell, plan) if name is None else None
        run = Run(self._with_streaming(plan)).start()
        memory.watch(run)
        servers.watch(run)
        quiet = plan.options.quiet
        if plan.options.bg:
            line = renewal.follow(self.shell, run) if renewal else ""
            return rundisplay.hand_over(run, name, self.shell, shown=not quiet and show != "none", line=line)
        return Work(run, views.select_view(self.shell, quiet=quiet), name, "none" if quiet else show, plan.options.debug, renewal)

    def _with_streaming(self, plan: Plan) -> Plan:
        """Stream a single prompt if a user is there to see it, unless the cell sets `--stream`."""
        if plan.options.stream is not None or plan.options.batch or len(plan.rows.requests) != 1 or not self.can_ask():
            return plan
        return replace(plan, rows=replace(plan.rows, requests=[r and replace(r, stream=True) for r in plan.rows.requests]))

    def can_ask(self) -> bool:
        """Whether the user can be asked for input."""
        from kernels_support.jupyter.capabilities import detect

        return detect(self.shell).asks

    # -- after the run -------------------------------------------------------------------------------------------------
    def _finish(self, work: Work, state: WaitState) -> Any:
        """Bind, show, then raise or return: NAME holds the frame first, whatever the outcome; a run by batch that goes on, itself."""
        from holynb.ui.cell import rundisplay
        from holynb.ui.output import report

        run = work.run
        if run.batch.accepted and not run.done and not state.interrupts:
            work.page.end({})
            line = work.renewal.follow(self.shell, run) if work.renewal else ""
            return rundisplay.hand_over(run, work.name, self.shell, shown=work.show != "none", line=line)
        frame = run.value()
        if work.name is not None:
            self.shell.push({work.name: frame})
        failure = _failure(run)
        line = work.renewal.fill(self.shell, run, frame) if work.renewal and (failure is None or state.interrupts) else ""
        if isinstance(failure, UserError) or (failure is not None and (run.n == 1 or report.of(run).failed_alike)):
            # Nothing was sent, or the error is that of all rows: there is nothing else to show.
            work = replace(work, show="none")
        text = self._show(work, state, returned=work.name is None and not state.interrupts and failure is None)
        if work.show != "none" and (line := line or ("" if state.interrupts else work.stopped())):
            print(say(line))
        if state.interrupts:
            raise Interrupted(work.interrupted(), run)
        if failure is not None:
            raise failure
        if work.name is not None:
            return None
        displayhook.replace_display(self.shell, frame, text)
        return frame

    def _show(self, work: Work, state: WaitState, *, returned: bool) -> str | None:
        """Show the final output. A terminal shows the returned value after `Out[n]`, so its text is returned there instead."""
        from holynb.ui.cell import views
        from holynb.ui.output import plots, static

        if work.show == "none":
            work.page.end({})
            return None
        # Another library's table is asked otherwise.
        record = replace(state.report(), value=work.name if work.name and work.run.plan.rows.given is None else "")
        if returned and isinstance(work.page, views.TerminalView):
            work.page.clear()
            return static.bundle(record, work.show)["text/plain"]
        plots.show(work.page, record, work.show, self.shell)
        return None


def load(shell: Any) -> None:
    """Register the magics, under both names, the transform and the completion. Idempotent."""
    unload(shell)
    magics = InferMagic(shell)
    for kind, name in MAGICS:
        table = shell.magics_manager.magics[kind]
        magics.replaced[kind, name] = table.get(name)
        table[name] = magics.below if name.startswith("%") else magics.infer
    shell.configurables.append(magics)
    setattr(shell, transform.ATTRIBUTE, magics)
    complete.install(shell, lambda: shell.user_ns, _commands)
    choose(_language)


def _language() -> str:
    from holynb.config import language

    return language.chosen()


def _commands() -> Collection[str]:
    from holynb.ui.line_magic import COMMANDS

    return COMMANDS


def unload(shell: Any) -> None:
    """Remove magics, transform, attribute, threads, connections; cancel unfinished runs (their answers are in the run log). Idempotent."""
    magics = vars(shell).get(transform.ATTRIBUTE)
    if magics is None:
        return
    transform.remove(shell, magics.transform)
    complete.remove(shell)
    displayhook.restore(shell)
    for (kind, name), function in magics.replaced.items():
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
    """End runs, threads and settings of modules that are loaded: unloading imports nothing."""
    choose(None)
    if (timer := sys.modules.get("holynb.ui.live.timer")) is not None:
        timer.stop()
    if (session := sys.modules.get("holynb.run.session")) is not None:
        unfinished = [run for run in session.runs() if not run.done]
        for run in unfinished:
            run.release()
            run.release()
        for run in unfinished:
            with suppress(Exception):  # how it ended is in the run log
                run.wait(UNLOAD_GRACE_S)
    if (runlog := sys.modules.get("holynb.runlog.current")) is not None:
        runlog.close()  # before the loop, which it notifies of what was written
    if (loop := sys.modules.get("holynb.loop")) is not None:
        loop.close()
    if (settings := sys.modules.get("holynb.config.settings")) is not None:
        settings.reset()


@contextmanager
def _one_line_errors(debug: bool) -> Iterator[None]:
    """Errors that the user can fix are one line without a traceback; with `--debug` every error has one."""
    try:
        yield
    except HolynbError as exc:
        if debug:
            # Its causes have words of their own, of servers and of whatever else it went through.
            lines = KEY_SHAPES.sub("***", clean("".join(traceback.format_exception(exc)))).splitlines()
            exc._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
            raise
        if isinstance(exc, InferError | Interrupted):
            raise
        raise UsageError(say(" ".join(str(exc).split()))) from None


def _failure(run: Run) -> Exception | None:
    """The exception of `run.check()`, or None. A run that was left before its end has none yet."""
    try:
        run.check()
    except Exception as exc:  # noqa: BLE001 - raised by the caller, once the output is in its place
        return exc
    return None
