"""`%infer bench`: its arguments, the runs that the line waits for, and the display of the result. Measures and draws nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holynb import typed_path
from holynb.config import Option, Options, integer
from holynb.errors import BadOption, BadPrompt, Interrupted, closest
from holynb.ui.cell import LineStep, grammar, said, scope
from holynb.ui.commands import bench_report
from holynb.ui.output import progress
from holynb.ui.output.helplines import entry

if TYPE_CHECKING:
    from holynb.run import Bench, Measured, Run
    from holynb.ui.cell import Host, WaitState

__all__ = ["HELP", "parse_args", "start"]

#: The options of `%%infer` that apply here: those that change how the same prompts are sent.
CELL_OPTIONS = (
    "limit",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "think",
    "p",
    "concurrency",
    "timeout",
    "connect_timeout",
    "retries",
    "label",
    "exact",
    "debug",
    "quiet",
)
BENCH_OPTIONS = (
    Option("prompts", ("--prompts",), "WHAT", "a saved prompt, a file, or a variable with texts; without it twenty of its own"),
    Option("per_day", ("--requests-per-day",), "N", "the load that the month's cost is for (10,000)", integer(1)),
)
FLAGS: Mapping[str, Option] = {
    **{flag: option for flag, option in grammar.FLAGS.items() if option.name in CELL_OPTIONS},
    **{f: o for o in BENCH_OPTIONS for f in o.flags},
}
HELP = "\n".join(
    entry(", ".join(o.flags) + (f" {o.metavar}" if o.metavar else ""), o.help, grammar.OPTION_COLUMN)
    for o in dict.fromkeys((*BENCH_OPTIONS, *FLAGS.values()))
)


def parse_args(args: Sequence[str], variables: Mapping[str, Any]) -> Bench:
    """The benchmark that the line describes. `variables`: those of the notebook. Raises UserError."""
    from holynb.run import bench

    values, positional = grammar.parse_options(args, FLAGS)
    if not positional:
        raise BadOption("%infer bench takes the routes to compare: %infer bench R1,R2. For example: %infer bench sim/echo,sim/stream")
    prompts, per_day = values.pop("prompts", None), values.pop("per_day", bench.REQUESTS_PER_DAY)
    try:
        requests_per_day = integer(1)(per_day)
    except ValueError as exc:
        raise BadOption(f"--requests-per-day takes a whole number from 1, not {per_day!r}.") from exc
    routes = [r.strip() for word in positional for r in word.split(",") if r.strip()]
    options = Options.parse(values)
    if options.label is not None or options.exact:
        return _labelled(bench.Bench(routes, (), options, requests_per_day), prompts, variables)
    texts = bench.PROMPTS if prompts is None else _prompts(prompts, variables)
    return bench.Bench(routes, texts, options, requests_per_day)


def _labelled(benchmark: Bench, name: str | None, variables: Mapping[str, Any]) -> Bench:
    """The bench with its prompts and what they should be answered, of one table. Raises UserError."""
    from holynb.run import labels

    options = benchmark.options
    table = None if name is None else _table(name, variables)
    if table is None and options.label is not None:
        raise BadOption(f"--label {options.label} names a column: --prompts takes a frame or a file that has it, beside one called prompt.")
    if table is not None:
        column = _text_column(table, str(name), but=options.label)
        table = table[table[column].notna()]
    n = 0 if table is None else len(table)
    known = labels.load(options, table, None, prompts=n, each=1)
    texts = [] if table is None else [str(v) for v in table[column].tolist()]
    return replace(benchmark, prompts=texts, options=replace(options, label=None, exact=False), labels=known)


def _table(name: str, variables: Mapping[str, Any]) -> Any:
    """The frame or the file that `--prompts` names; None where it is something else."""
    from holynb import files
    from holynb.results import frame

    if name not in variables:
        return files.read(name) if typed_path.is_there(typed_path.typed(name)) else None
    given = files.given(variables[name])
    value = variables[name] if given is None else given.frame()
    return value if frame.is_frame(value) else None


def _prompts(name: str, variables: Mapping[str, Any]) -> Sequence[Any]:
    """The prompts that `--prompts` names: a variable, a saved prompt, or a file, in this order. Raises UserError."""
    from holynb import files
    from holynb.prompts import render, saved

    if name in variables:
        value = variables[name]
        if (table := _table(name, variables)) is not None:
            return _column(table, name)
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            value = [value]
        return list(value)
    saved_names = [s.name for s in saved.listing()]
    if name in saved_names:
        options = Options.parse(dict(saved.load(name).options))
        rendered = render.render(saved.load(name).body, rows=None, variables=variables, options=options)
        return [{"messages": [{"role": m.role, "content": m.content} for m in p.messages]} for p in rendered]
    if typed_path.is_there(typed_path.typed(name)):
        return _column(files.read(name), name)
    raise BadOption(
        f"--prompts {name}: there is no variable, saved prompt or file of this name.{closest(name, [*saved_names, *variables])}"
    )


def _column(table: Any, name: str) -> list[str]:
    """The texts of a frame. Raises BadPrompt."""
    return [str(v) for v in table[_text_column(table, name)].dropna().tolist()]


def _text_column(table: Any, name: str, but: str | None = None) -> Any:
    """The column prompt or text, else the only one, `but` that of the labels. Raises BadPrompt if there is no such column."""
    columns = [c for c in table.columns if str(c) != but]
    column = next((c for c in columns if str(c) in ("prompt", "text")), columns[0] if len(columns) == 1 else None)
    if column is None:
        raise BadPrompt(f"--prompts {name}: no column is called prompt or text. It has {', '.join(map(str, columns[:8]))}.")
    return column


def start(magic: Host, args: Sequence[str]) -> LineStep:
    """Start the first of the runs that the line waits for. The line's value is the frame. Raises UserError before anything is sent."""
    from holynb.run import Run, bench

    benchmark = parse_args(args, scope.variables(magic.shell))
    plans = bench.plans(benchmark)
    page = _Page(magic.shell, len(plans), quiet=benchmark.options.quiet)
    results: list[Measured] = []
    runs: list[Run] = []

    def after(state: WaitState) -> Any:
        if state.interrupts:
            _show_result(magic, page, results)
            raise Interrupted(f"Interrupted: {len(results)} of {len(plans)} routes are measured.", state.run)
        if len(runs) == 2 or not runs[0].summary().ok:
            results.append(bench.measured(runs, benchmark))
            runs.clear()
        page.done = len(results)
        return step() if len(results) < len(plans) else _show_result(magic, page, results)

    def step() -> LineStep:
        runs.append(Run(plans[len(results)][len(runs)]).start())
        return LineStep(runs[-1], page, after)

    return step()


class _Page:
    """One output for all the runs: a progress line, then the result. Owned by the LineStep that waits."""

    interval_s = 0.2
    width: int | None = None

    def __init__(self, shell: Any, routes: int, *, quiet: bool) -> None:
        from holynb.ui.cell import views

        self.done = 0
        self.quiet = quiet
        self._routes = routes
        self.terminal = getattr(shell, "kernel", None) is None
        self._status = views.StatusLine(shell)
        self._handle: Any = None

    def paint(self, run: Run) -> None:
        """Show which route is measured, and its progress."""
        from holynb.ui.cell import views

        if self.quiet:
            return
        summary = run.summary()
        line = f"{run.route}, route {self.done + 1} of {self._routes}: {progress(summary, None, None)}"
        if self.terminal:
            self._status(line)
        else:
            self._handle = views.display_bundle({"text/plain": line}, self._handle)

    def end(self, bundle: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> None:
        """Replace the progress line with `bundle`; remove it if that is empty or the terminal prints the value itself."""
        from holynb.ui.cell import views

        if self.terminal:
            self._status.end("")
        elif bundle or self._handle is not None:
            self._handle = views.display_bundle(dict(bundle) or {"text/plain": ""}, self._handle)
        if below:
            views.display_bundle(dict(below))


def _show_result(magic: Host, page: _Page, results: Sequence[Measured]) -> Any:
    """Show the results. Returns the frame, which the display hook then does not show a second time."""
    from holynb.run import bench
    from holynb.ui.cell import displayhook

    frame = bench.table(results)
    if page.quiet or not results or page.terminal:
        page.end({})
        if results and not page.quiet:
            displayhook.replace_display(magic.shell, frame, bench_report.as_text(results, said.terminal_width()))
        return frame
    page.end({"text/html": bench_report.as_html(results), "text/plain": bench_report.as_text(results)})
    displayhook.replace_display(magic.shell, frame)
    return frame
