"""The final output: a run as plain HTML and text, with small SVG charts. No script, no widget, nothing to fetch. Pure.

Every string of a model, a server or a row is data: cleaned, escaped, in its own direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from holynb import units
from holynb.events import Failed, Noted
from holynb.results import dollars, is_simulated
from holynb.translation import brief, head, say
from holynb.ui.output import compared, formats, pictures, quality, rows, series, svg
from holynb.ui.output.html import OPEN_TAG, SIDEWAYS, safe
from holynb.ui.output.report import MAX_ROWS, Report, error_text
from holynb.ui.output.text import clean, clip, grid, one_line, price, seconds, status, thought, verdict

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = ["STYLE", "as_html", "as_text", "bundle", "charts"]

#: Of a table: bytes of answers side by side, rows in plain text.
MAX_TABLE_BYTES, MAX_TEXT_ROWS = 90_000, 10
MAX_ERROR_CHARS, MAX_ERROR_KINDS = 300, 3
#: A run that took less has no charts.
LEAST_CHARTED_S = 1.0
#: Of what was thought before a single answer.
MAX_THOUGHT_CHARS = 50_000

#: Charts of plotly that were drawn side by side lie over each other in a window that has become narrow: they stay as wide, and scroll.
WIDE_CHARTS = (
    f".jp-OutputArea-child:has(>.jp-RenderedPlotly [class*=traceholynb-wide]){{{SIDEWAYS}}}\n"
    ".jp-OutputArea-child>.jp-RenderedPlotly:has([class*=traceholynb-wide]){min-width:720px}\n"
)
STYLE = (
    """<style>
.holynb{color:var(--jp-ui-font-color1,inherit);font-size:13px;line-height:1.4}
.holynb-head{margin:2px 0 6px;font-variant-numeric:tabular-nums}
.holynb-bad{color:var(--jp-error-color1,#d6493e)}
.holynb-note{color:var(--jp-ui-font-color2,#808080)}
.holynb-body{display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start}
.holynb-rows{flex:3 1 460px;min-width:0;max-height:430px;overflow:auto}
.holynb-charts{flex:1 1 290px;display:flex;flex-wrap:wrap;gap:6px}
.holynb table{border-collapse:collapse;width:100%;font-size:12px;table-layout:auto}
.holynb .holynb-quality .holynb-list table{width:auto}
.holynb .holynb-rows th,.holynb .holynb-rows td{text-align:start!important;vertical-align:baseline!important;line-height:1.4;padding:3px 8px;border:0;
border-bottom:1px solid var(--jp-border-color2,#9e9e9e60);
white-space:pre-wrap;overflow-wrap:anywhere;min-width:3em;max-width:34em;background:transparent}
.holynb .holynb-rows tbody tr:nth-child(n):not(:hover){background:transparent}
.holynb .holynb-rows th{white-space:normal;overflow-wrap:normal}
.holynb .holynb-rows td[dir=auto]{min-width:5em}
.holynb .holynb-rows td.k{white-space:nowrap}
.holynb .holynb-rows td.n,.holynb .holynb-rows th.n{text-align:end!important}
.holynb .holynb-rows td.n{white-space:nowrap}
.holynb-thoughts{margin:0 0 6px;color:var(--jp-ui-font-color2,#808080)}
.holynb-thoughts>summary{cursor:pointer}
.holynb .holynb-thoughts>pre{margin:4px 0 0;padding:0 0 0 10px;border:0;border-left:2px solid var(--jp-border-color2,#9e9e9e60);white-space:pre-wrap;
overflow-wrap:anywhere;word-break:normal;font-family:inherit;font-size:13px;background:transparent;color:inherit}
.holynb pre.holynb-answer{white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;margin:0 0 6px;
font-family:inherit;font-size:14px;background:transparent;color:inherit}
"""
    + WIDE_CHARTS
    + "</style>"
)


def bundle(report: Report, show: str = "all") -> dict[str, str]:
    """Mime types → the final output. show: all, table or charts."""
    return {"text/html": as_html(report, show), "text/plain": as_text(report, show)}


def as_html(report: Report, show: str = "all") -> str:
    """As HTML: the summary, the answer or the table, the charts."""
    body, beginning = [], ""
    if show in ("all", "table") and not report.failed_alike:
        body.append(_answer(report) if len(report.rows) == 1 else _html_table(report))
        beginning = _beginning(report)
    if show in ("all", "charts") and (svgs := charts(report)):
        body.append(f'<div class="holynb-charts">{"".join(map(svg.picture, svgs.values()))}</div>')
    body.append(quality.as_html(report.quality))
    return f'{OPEN_TAG}{STYLE}{_summary(report)}{beginning}<div class="holynb-body">{"".join(body)}</div></div>'


def as_text(report: Report, show: str = "all") -> str:
    """The same for a terminal."""
    parts = []
    if show in ("all", "table") and not report.failed_alike:
        parts += [report.shared_beginning, _plain_answer(report) if len(report.rows) == 1 else _plain_table(report)]
    parts.append(f"{text}\n" if (text := quality.as_text(report.quality)) else "")
    figures = quality.lines(report.quality)
    lines = [report.summary.line(), *figures, *(reasons(report) if len(report.rows) > 1 else ()), *(clean(n) for n in report.notes)]
    return "\n".join(p for p in (*parts, *map(say, lines)) if p)


def charts(report: Report, least_s: float = LEAST_CHARTED_S) -> dict[str, str]:
    """SVGs by name: cost, latency, tokens, server, memory, but those of unknown values or of one dot; none of fewer than two rows.

    least_s: seconds that the run took at least.
    """
    events, started = report.events, report.started
    ended = series.ends(events, report.rows, started)
    if len(ended) < 2 or report.summary.elapsed < least_s:
        return {}
    lines = series.by_route(events, report.rows, started, report.compared)

    def format_x(x: float) -> str:
        return seconds(x) if events else brief(f"row {x:.0f}")

    title = "Cost, dollars (simulated)" if any(is_simulated(o.route) for _, o in ended) else "Cost, dollars"
    svgs = {
        "cost": svg.chart(brief(title), _lines(lines["cost"]), dollars, format_x),
        "latency": svg.chart(brief("Latency, p50" if report.compared else "Latency"), _lines(lines["latency"]), seconds, format_x),
        "tokens": svg.chart(
            brief("Tokens/s"), _lines(lines["tokens"]), units.three_digits, format_x, series.marks(events, started, Failed)
        ),
        "server": svg.chart(brief("Server"), _lines(series.load(events, started)), units.three_digits, format_x),
        "memory": svg.chart(
            brief("Memory"), _lines(series.memory(events, started)), units.memory, format_x, series.marks(events, started, Noted)
        ),
    }
    return {name: drawing for name, drawing in svgs.items() if drawing}


def _lines(points_by_name: Mapping[str, Sequence[tuple[float, float]]]) -> list[svg.Series]:
    return [svg.Series(brief(name), points) for name, points in points_by_name.items() if len(points) > 1]


def reasons(report: Report) -> list[str]:
    """The first message of each kind of failure, the commonest first."""
    first: dict[str, str] = {}
    for o in report.rows:
        if len(first) >= len(report.summary.errors):
            break
        if o is not None and o.status == "error":
            first.setdefault(o.error_type or "error", one_line(o.error))
    kinds = [kind for kind, _ in report.summary.errors.most_common(MAX_ERROR_KINDS)]
    return [f"{kind}: {clip(first[kind], MAX_ERROR_CHARS)}" for kind in kinds if first.get(kind)]


def _summary(report: Report) -> str:
    summary, *more = report.summary.line().split("\n")
    out = [f'<div class="holynb-head">{safe(summary)} <span class="holynb-note">· {safe(report.title)}</span></div>']
    for line in more:
        kind = "bad" if line == report.summary.failures() else "note"
        out.append(f'<div class="holynb-head holynb-{kind}">{safe(say(line))}</div>')
    out += [f'<div class="holynb-head" dir="auto">{safe(line)}</div>' for line in quality.lines(report.quality)]
    if len(report.rows) > 1:
        out += [f'<div class="holynb-head holynb-note" dir="auto">{safe(say(r))}</div>' for r in reasons(report)]
    out += [f'<div class="holynb-head holynb-note" dir="auto">{safe(say(n))}</div>' for n in report.notes]
    return "".join(out)


def _answer(report: Report) -> str:
    """One prompt: its answer in full, and what was thought before it, folded."""
    outcome = report.rows[0]
    body = formats.switched(outcome.text, report.format) if outcome is not None and outcome.text else ""
    if outcome is not None and outcome.status not in ("ok", "cancelled"):
        body += f'<div class="holynb-bad" dir="auto">{safe(error_text(outcome))}</div>'
    seen = pictures.for_rows(report.attached, (0,), 72).get(0, "")
    return f'<div style="flex:1 1 460px;min-width:0">{seen and f"<div>{seen}</div>"}{_thoughts(outcome)}{body}</div>'


def _thoughts(outcome: Outcome | None) -> str:
    """What was thought, folded: it is opened without a script."""
    if outcome is None or not outcome.reasoning:
        return ""
    text, left = outcome.reasoning[:MAX_THOUGHT_CHARS], len(outcome.reasoning) - MAX_THOUGHT_CHARS
    more = f"\n… and {left:,} more characters; the value holds them all." if left > 0 else ""
    body = f'<pre dir="auto" style="white-space:pre-wrap">{safe(text)}{more}</pre>'
    return f'<details class="holynb-thoughts"><summary>{safe(thought(outcome))}</summary>{body}</details>'


def _html_table(report: Report) -> str:
    if 1 < len(report.variants) <= compared.MAX_COLUMNS and report.schema is None:
        return compared.as_html(report, MAX_ROWS, MAX_TABLE_BYTES)
    return rows.as_html(report)


def _beginning(report: Report) -> str:
    """What the table's prompts leave out."""
    return f'<div class="holynb-head holynb-note" dir="auto">{safe(text)}</div>' if (text := report.shared_beginning) else ""


def _plain_answer(report: Report) -> str:
    outcome = report.rows[0]
    if outcome is None:
        return ""
    return formats.as_text(outcome.text or "", report.format) if outcome.status in ("ok", "cancelled") else error_text(outcome)


def _plain_table(report: Report) -> str:
    if 1 < len(report.variants) <= compared.MAX_COLUMNS and report.schema is None:
        return compared.as_text(report, MAX_TEXT_ROWS)
    lines, scale = [], quality.scale_of(report.quality)
    for row, (prompt, outcome) in enumerate(zip(report.prompt_previews(), report.rows[:MAX_TEXT_ROWS], strict=False)):
        inputs = report.input_cells(row, prompt)
        cells = report.answer_cells(outcome)
        cells += [""] * (len(report.columns) - len(cells))
        route = [outcome.route or "" if outcome else ""] if report.route_column else []
        score = [verdict(outcome, scale)] if scale else []
        numbers = [*score, *rows.token_counts(outcome), price(outcome), rows.latency(outcome)]
        lines.append([report.label(row), *inputs, *cells, status(outcome, pending=report.summary.pending > 0), *route, *numbers])
    asks, answers = len(report.inputs), len(report.columns)
    widths = {0: 16, **{1 + i: 32 // asks for i in range(asks)}, **{1 + asks + i: 48 // answers for i in range(answers)}}
    table = grid(["", *rows.heads(report), *map(head, [*(["score"] if scale else []), *rows.NUMBERS])], lines, widths)
    more = rows.more_rows(len(lines), len(report.rows))
    return f"{table}\n{more}\n" if more else f"{table}\n"
