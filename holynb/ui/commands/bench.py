"""`%infer bench`: its words, the runs it waits for, and what it leaves: a table and bars, of plotly where widgets work. Measures nothing itself."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.config import Option, Options, integer
from holynb.errors import BadOption, BadPrompt, Interrupted, closest
from holynb.ui.cell import LineStep, grammar
from holynb.ui.output import bars, clean, grid, one_line, progress, seconds, svg
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Bench, Measured, Run
    from holynb.ui.cell import Host, Watch

__all__ = ["HELP", "as_html", "as_text", "asked", "spec", "start"]

#: The options of a cell that change how the same prompts are sent.
CELL = (
    "limit",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "p",
    "concurrency",
    "timeout",
    "connect_timeout",
    "retries",
    "debug",
    "quiet",
)
OWN = (
    Option("prompts", ("--prompts",), "WHAT", "a saved prompt, a file, or a variable with texts; without it twenty of its own"),
    Option("per_day", ("--requests-per-day",), "N", "the load that the month's cost is for (10,000)", integer(1)),
)
FLAGS: Mapping[str, Option] = {
    **{flag: option for flag, option in grammar.FLAGS.items() if option.name in CELL},
    **{f: o for o in OWN for f in o.flags},
}
HELP = "\n".join(
    f"  {', '.join(o.flags) + (f' {o.metavar}' if o.metavar else ''):<28} {o.help}" for o in dict.fromkeys((*OWN, *FLAGS.values()))
)

#: Classes of the table's cells: the route is kept on one line, figures are at the end of theirs, set-up steps are text.
CELLS = ("k", *["n"] * 9, "")
#: What is drawn: title → (column, what it is called beside others, how it is written).
BARS: Mapping[str, Sequence[tuple[str, str]]] = {
    "Tokens/s": [("tokens_per_s", "")],
    "First token, s": [("ttft_p50_s", "p50"), ("ttft_p95_s", "p95")],
    "Whole answer, s": [("latency_p50_s", "p50"), ("latency_p95_s", "p95")],
    "Dollars per 1,000 rows": [("cost_1000", "")],
}
HEAD = (
    "route",
    "rows",
    "rows/s",
    "tokens/s",
    "cold start",
    "first token p50 · p95",
    "answer p50 · p95",
    "context",
    "$ per 1,000",
    "$ a month",
    "set-up",
)


# -- the words ---------------------------------------------------------------------------------------------------------
def asked(words: Sequence[str], variables: Mapping[str, Any]) -> Bench:
    """What the words of the line ask for. Raises UserError."""
    from holynb.run import bench

    said, left = grammar.words(words, FLAGS)
    if not left:
        raise BadOption("%infer bench takes the routes to compare: %infer bench R1,R2. For example: %infer bench sim/echo,sim/stream")
    prompts, per_day = said.pop("prompts", None), said.pop("per_day", bench.REQUESTS_PER_DAY)
    try:
        load = integer(1)(per_day)
    except ValueError as exc:
        raise BadOption(f"--requests-per-day takes a whole number from 1, not {per_day!r}.") from exc
    routes = [r.strip() for word in left for r in word.split(",") if r.strip()]
    texts = bench.PROMPTS if prompts is None else _prompts(prompts, variables)
    return bench.Bench(routes, texts, Options.parse(said), load)


def _prompts(name: str, variables: Mapping[str, Any]) -> Sequence[Any]:
    """The texts that `--prompts` names: a variable, a saved prompt, or a file."""
    from holynb.prompts import render, saved
    from holynb.results import frame

    if name in variables:
        value = variables[name]
        if frame.is_frame(value):
            return _column(value, name)
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            value = [value]
        return list(value)
    known = [s.name for s in saved.listing()]
    if name in known:
        options = Options.parse(dict(saved.load(name).options))
        made = render.render(saved.load(name).body, rows=None, variables=variables, options=options)
        return [{"messages": [{"role": m.role, "content": m.content} for m in p.messages]} for p in made]
    if Path(name).expanduser().exists():
        return _column(frame.read(name), name)
    raise BadOption(f"--prompts {name}: there is no variable, saved prompt or file of this name.{closest(name, [*known, *variables])}")


def _column(table: Any, name: str) -> list[str]:
    """The texts of a frame: its column prompt or text, else its only one."""
    columns = list(map(str, table.columns))
    chosen = next((c for c in ("prompt", "text") if c in columns), columns[0] if len(columns) == 1 else None)
    if chosen is None:
        raise BadPrompt(f"--prompts {name}: no column is called prompt or text. It has {', '.join(columns[:8])}.")
    return [str(v) for v in table[chosen].dropna().tolist()]


def start(magic: Host, words: Sequence[str]) -> LineStep:
    """The first of the runs that the line waits for; the value at the end is the frame. Raises UserError before anything is sent."""
    from holynb.run import Run, bench

    what = asked(words, magic.shell.user_ns)
    todo = bench.plans(what)
    page = _Page(magic.shell, len(todo), quiet=what.options.quiet)
    found: list[Measured] = []
    runs: list[Run] = []

    def after(watch: Watch) -> Any:
        if watch.interrupted:
            _leave(magic, page, found)
            raise Interrupted(f"Interrupted: {len(found)} of {len(todo)} routes are measured.", watch.run)
        if len(runs) == 2 or not runs[0].summary().ok:
            found.append(bench.measured(runs, what.per_day))
            runs.clear()
        page.done = len(found)
        return step() if len(found) < len(todo) else _leave(magic, page, found)

    def step() -> LineStep:
        runs.append(Run(todo[len(found)][len(runs)]).start())
        return LineStep(runs[-1], page, after)

    return step()


class _Page:
    """One place for all the runs: a line that says which of them goes on, then what came of all. Owned by the line that waits."""

    every = 0.2

    width: int | None = None

    def __init__(self, shell: Any, routes: int, *, quiet: bool) -> None:
        from holynb.ui.cell import views

        self.done = 0
        self.quiet = quiet
        self._routes = routes
        self.terminal = getattr(shell, "kernel", None) is None
        self._notice = views.Notice(shell)
        self._handle: Any = None

    def paint(self, run: Run) -> None:
        """Which route, and how far it is."""
        from holynb.ui.cell import views

        if self.quiet:
            return
        told = run.summary()
        line = f"{run.route}, route {self.done + 1} of {self._routes}: {progress(told, None, None)}"
        if self.terminal:
            self._notice(line)
        else:
            self._handle = views.show({"text/plain": line}, self._handle)

    def end(self, bundle: Mapping[str, str]) -> None:
        """What stays; nothing where the value's own display says it."""
        from holynb.ui.cell import views

        if self.terminal:
            self._notice.end("")
        elif bundle or self._handle is not None:
            self._handle = views.show(dict(bundle) or {"text/plain": ""}, self._handle)


def _leave(magic: Host, page: _Page, found: Sequence[Measured]) -> Any:
    """Put what was measured on the page; the frame is the value, and is not shown a second time."""
    from IPython.display import display

    from holynb.run import bench
    from holynb.ui.cell import displayhook
    from holynb.ui.output.plots import MIME
    from holynb.ui.output.static import OPEN_TAG
    from kernels_support.jupyter.capabilities import detect

    frame = bench.table(found)
    if page.quiet or not found or page.terminal:
        page.end({})
        if found and not page.quiet:
            displayhook.already(magic.shell, frame, as_text(found))
        return frame
    live = detect(magic.shell).widgets
    page.end({"text/html": as_html(found, drawn=not live), "text/plain": as_text(found)})
    if live:
        drawn = f"{OPEN_TAG}{_bars(found)}</div>"
        display({MIME: spec(found), "text/html": drawn, "text/plain": "Bars of the table above."}, raw=True)  # type: ignore[no-untyped-call]
    displayhook.already(magic.shell, frame)
    return frame


# -- what it leaves ------------------------------------------------------------------------------------------------------
def as_text(found: Sequence[Measured]) -> str:
    """The table for a terminal."""
    lines = [_cells(m) for m in found]
    return "\n".join([grid(HEAD, lines, {10: 60}), *_notes(found)])


def as_html(found: Sequence[Measured], *, drawn: bool = True) -> str:
    """The table, and the bars beside it."""
    from holynb.ui.output.static import OPEN_TAG, STYLE

    head = "".join(f"<th{' class=n' if 0 < i < 10 else ''}>{html.escape(h)}</th>" for i, h in enumerate(HEAD))
    body = "".join(
        "<tr>" + "".join(f"<td class='{CELLS[i]}'>{html.escape(clean(c))}</td>" for i, c in enumerate(_cells(m))) + "</tr>" for m in found
    )
    notes = "".join(f'<div class="holynb-head holynb-note" dir="auto">{html.escape(clean(n))}</div>' for n in _notes(found))
    table = f'<div class="holynb-rows"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"{OPEN_TAG}{STYLE}{table}{notes}{_bars(found) if drawn else ''}</div>"


def _cells(m: Measured) -> list[str]:
    def figure(value: float | None, form: str = ",.1f") -> str:
        return "?" if value is None else f"{value:{form}}"

    steps = f"{counted(m.steps, 'step')}: {m.setup}" if m.steps else "none"
    return [
        m.route,
        f"{m.ok:,} of {m.rows:,}",
        figure(m.rows_per_s),
        figure(m.tokens_per_s),
        _time(m.cold_s),
        f"{_time(m.ttft_p50_s)} · {_time(m.ttft_p95_s)}",
        f"{_time(m.latency_p50_s)} · {_time(m.latency_p95_s)}",
        "?" if m.context is None else f"{m.context:,}",
        figure(m.cost_1000, ",.4f" if (m.cost_1000 or 1) < 0.1 else ",.2f"),
        figure(m.cost_month, ",.2f"),
        steps,
    ]


def _time(value: float | None) -> str:
    return f"{value * 1000:.1f} ms" if value is not None and value < 0.1 else seconds(value)


def _notes(found: Sequence[Measured]) -> list[str]:
    notes = [f"{m.route}: {one_line(m.error)}" for m in found if m.error]
    if any(m.simulated and m.cost_month for m in found):
        notes.append("Dollars of sim/ are simulated.")
    if any(m.cost_1000 is None and m.ok and m.route.startswith("pool/") for m in found):
        notes.append(
            'A pool is priced by device time: [price."pool/NAME"] per_device_hour = … in config.toml. %infer roi compares it with an API.'
        )
    return notes


def _bars(found: Sequence[Measured]) -> str:
    """The bars in HTML: every page shows them, with no script."""
    drawn = [
        bars.chart(
            title,
            [bars.Bar(f"{m.route} {name}".strip(), getattr(m, column), k) for m in found for k, (column, name) in enumerate(columns)],
            lambda v: f"{v:,.3g}" if v < 1000 else f"{v:,.0f}",
        )
        for title, columns in BARS.items()
    ]
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(map(svg.picture, drawn))}</div>' if any(drawn) else ""


def spec(found: Sequence[Measured]) -> dict[str, Any]:
    """The bars side by side as one figure in plotly's JSON."""
    from holynb.ui.output import COLOURS
    from holynb.ui.output.plots import CONFIG, INK, RULE

    shown = {t: c for t, c in BARS.items() if any(getattr(m, column) is not None for m in found for column, _ in c)}
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": 130 + 44 * len(found),
        "margin": {"l": 8, "r": 8, "t": 46, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 11, "color": INK},
        "barmode": "group",
        "showlegend": False,
        "annotations": [],
    }
    width = (1 - 0.16) / max(1, len(shown))
    for i, (title, columns) in enumerate(shown.items()):
        at, left = "" if i == 0 else str(i + 1), 0.16 + i * width
        for k, (column, name) in enumerate(columns):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name or title,
                    "y": [m.route for m in found],
                    "x": [getattr(m, column) for m in found],
                    "marker": {"color": COLOURS[k]},
                    "xaxis": f"x{at}",
                    "yaxis": f"y{at}",
                }
            )
        layout[f"xaxis{at}"] = {
            "domain": [left, left + width - 0.03],
            "anchor": f"y{at}",
            "gridcolor": RULE,
            "rangemode": "tozero",
            "nticks": 4,
        }
        layout[f"yaxis{at}"] = {"anchor": f"x{at}", "autorange": "reversed", "showticklabels": i == 0, "automargin": i == 0}
        said = f"<b>{title}</b>" + (f"<br>{' · '.join(n for _, n in columns)}" if len(columns) > 1 else "")
        layout["annotations"].append(
            {
                "text": said,
                "x": left,
                "y": 1.02,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return {"data": data, "layout": layout, "config": CONFIG}
