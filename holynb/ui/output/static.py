"""What stays in the notebook: a run as plain HTML and text, with small SVG charts. No script, no widget, nothing to fetch. Pure.

Every string of a model, a server or a row is data: cleaned, escaped, in its own direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from holynb.results import dollars
from holynb.types import Failed, Noted
from holynb.ui.output import compared, series, svg
from holynb.ui.output.html import PROSE, figure, safe
from holynb.ui.output.report import MOST_ROWS, Report, trouble
from holynb.ui.output.text import clean, clip, count, grid, one_line, price, seconds, status

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = ["OPEN", "STYLE", "as_html", "as_text", "bundle", "charts"]

#: Bytes of a table at most, characters of an answer in a cell at most.
MOST_BYTES, MOST_ANSWER = 90_000, 400
TEXT_ROWS = 10

#: What all of ours stands in. Two dollar signs in one text are prices here, not a formula: the classes keep MathJax 2, 3 and 4 away.
OPEN = '<div class="holynb tex2jax_ignore mathjax_ignore">'
STYLE = """<style>
.holynb{color:var(--jp-ui-font-color1,inherit);font-size:13px;line-height:1.4}
.holynb-head{margin:2px 0 6px;font-variant-numeric:tabular-nums}
.holynb-bad{color:var(--jp-error-color1,#d6493e)}
.holynb-note{color:var(--jp-ui-font-color2,#808080)}
.holynb-body{display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start}
.holynb-rows{flex:3 1 460px;min-width:0;max-height:430px;overflow:auto}
.holynb-charts{flex:1 1 290px;display:flex;flex-wrap:wrap;gap:6px}
.holynb table{border-collapse:collapse;width:100%;font-size:12px;table-layout:auto}
.holynb .holynb-rows th,.holynb .holynb-rows td{text-align:start!important;vertical-align:top;padding:3px 8px;border:0;border-bottom:1px solid var(--jp-border-color2,#9e9e9e60);
white-space:pre-wrap;overflow-wrap:anywhere;min-width:3em;max-width:34em;background:transparent}
.holynb .holynb-rows th{white-space:normal;overflow-wrap:normal}
.holynb .holynb-rows td.k{white-space:nowrap}
.holynb .holynb-rows td.n,.holynb .holynb-rows th.n{text-align:end!important}
.holynb .holynb-rows td.n{white-space:nowrap}
.holynb pre.holynb-answer{white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;margin:0 0 6px;font-family:inherit;font-size:14px;background:transparent;color:inherit}
</style>"""


def bundle(record: Report, show: str = "all") -> dict[str, str]:
    """Mime types → the final output. show: all, table or charts."""
    return {"text/html": as_html(record, show), "text/plain": as_text(record, show)}


def as_html(record: Report, show: str = "all") -> str:
    """The page's part: what came of it, the answer or the table, the charts beside."""
    body = []
    if show in ("all", "table"):
        body.append(_answer(record) if len(record.rows) == 1 else _table(record))
    if show in ("all", "charts") and (drawn := charts(record)):
        body.append(f'<div class="holynb-charts">{"".join(map(svg.picture, drawn.values()))}</div>')
    return f'{OPEN}{STYLE}{_head(record)}<div class="holynb-body">{"".join(body)}</div></div>'


def as_text(record: Report, show: str = "all") -> str:
    """The same for a terminal."""
    parts = []
    if show in ("all", "table"):
        parts.append(_plain_answer(record) if len(record.rows) == 1 else _plain_table(record))
    parts += [line(record), *(reasons(record) if len(record.rows) > 1 else ()), *(clean(n) for n in record.notes)]
    return "\n".join(p for p in parts if p)


def charts(record: Report) -> dict[str, str]:
    """SVGs by name: cost, latency, tokens, server, memory. One row says nothing a chart could show, and what is not known is not drawn."""
    events, since = record.events, record.started
    done = series.ends(events, record.rows, since)
    if len(done) < 2:
        return {}

    def at(x: float) -> str:
        return seconds(x) if events else f"row {x:.0f}"

    spent = series.cost(done)
    title = "Cost, dollars" + (" (simulated)" if any((o.route or "").startswith("sim/") for _, o in done) else "")
    drawn = {
        "cost": svg.chart(title, _lines({"total": spent}), dollars, at),
        "latency": svg.chart("Latency", _lines(series.latency(done)), seconds, at),
        "tokens": svg.chart(
            "Tokens/s", _lines({"": series.tokens(events, since)}), lambda v: f"{v:,.0f}", at, series.marks(events, since, Failed)
        ),
        "server": svg.chart("Server", _lines(series.load(events, since)), lambda v: f"{v:.0f}", at),
        "memory": svg.chart("Memory", _lines(series.memory(events, since)), _size, at, series.marks(events, since, Noted)),
    }
    return {name: drawing for name, drawing in drawn.items() if drawing}


def _lines(found: Mapping[str, Sequence[tuple[float, float]]]) -> list[svg.Series]:
    return [svg.Series(name, points) for name, points in found.items()]


def line(record: Report) -> str:
    """What came of the run in a line, and one for what failed. Dollars of the simulator are nobody's, and are never taken for others."""
    priced = [(o.route or "").startswith("sim/") for o in record.rows if o is not None and o.cost]
    if not any(priced):
        return record.told.line()
    money = record.told.money()
    said = f"{money} {'' if all(priced) else 'partly '}simulated"
    return " · ".join(said if part == money else part for part in record.told.line().split(" · "))


def reasons(record: Report) -> list[str]:
    """The first message of each kind of failure, the commonest first, three at most."""
    first: dict[str, str] = {}
    for o in record.rows:
        if o is not None and o.status == "error":
            first.setdefault(o.error_type or "error", one_line(o.error))
    kinds = [kind for kind, _ in record.told.errors.most_common(3)]
    return [f"{kind}: {clip(first[kind], 300)}" for kind in kinds if first.get(kind)]


def _head(record: Report) -> str:
    said, _, failures = line(record).partition("\n")
    out = [f'<div class="holynb-head">{safe(said)} <span class="holynb-note">· {safe(record.title)}</span></div>']
    if failures:
        out.append(f'<div class="holynb-head holynb-bad">{safe(failures)}</div>')
    if len(record.rows) > 1:
        out += [f'<div class="holynb-head holynb-note" dir="auto">{safe(r)}</div>' for r in reasons(record)]
    out += [f'<div class="holynb-head holynb-note" dir="auto">{safe(n)}</div>' for n in record.notes]
    return "".join(out)


def _answer(record: Report) -> str:
    """One prompt: its answer in full."""
    outcome = record.rows[0]
    style = "white-space:pre-wrap"
    text = safe(outcome.text) if outcome is not None and outcome.text else ""
    said = f'<pre class="holynb-answer" dir="auto" style="{style}">{text}</pre>' if text else ""
    if outcome is not None and outcome.status not in ("ok", "cancelled"):
        said += f'<div class="holynb-bad" dir="auto">{safe(trouble(outcome))}</div>'
    return f'<div style="flex:1 1 460px;min-width:0">{said}</div>'


def _table(record: Report) -> str:
    if 1 < len(record.beside) <= compared.MOST and record.schema is None:
        return compared.as_html(record, MOST_ROWS, MOST_BYTES)
    names = "".join(
        f"<th{PROSE if name not in ('status', 'route') else ''}>{safe(name)}</th>"
        for name in ("prompt", *record.columns, "status", *record.routed)
    )
    head = f'<tr><th class="n"></th>{names}<th class="n">tokens</th><th class="n">cost</th><th class="n">time</th></tr>'
    out: list[str] = []
    size = 0
    for row, asked in zip(range(len(record.rows)), record.asked_shortly(), strict=False):
        line = _row(record, row, asked)
        size += len(line.encode())
        if size > MOST_BYTES:
            break
        out.append(line)
    more = _more(len(out), len(record.rows))
    note = f'<div class="holynb-note">{more}</div>' if more else ""
    return f'<div class="holynb-rows"><table><thead>{head}</thead><tbody>{"".join(out)}</tbody></table>{note}</div>'


def _row(record: Report, row: int, asked: str) -> str:
    outcome = record.rows[row]
    bad = outcome is not None and outcome.status == "error"
    said = record.said(outcome)
    cls, key = (' class="holynb-bad"', "k holynb-bad") if bad else ("", "k")
    wide = f' colspan="{len(record.columns)}"' if len(said) < len(record.columns) else ""
    told = "".join(
        f'<td dir="auto"{cls}{PROSE}{wide}>{safe(clip(clean(s[: 8 * MOST_ANSWER]).strip(), MOST_ANSWER // len(said)))}</td>' for s in said
    )
    route = f'<td class="k">{safe(outcome.route if outcome else "")}</td>' if record.routed else ""
    numbers = "".join(figure(n) for n in (_tokens(outcome), price(outcome), _time(outcome)))
    return (
        f'<tr><td class="n">{safe(clip(record.label(row), 40))}</td><td dir="auto"{PROSE}>{safe(asked)}</td>'
        f'{told}<td class="{key}">{safe(status(outcome))}</td>{route}{numbers}</tr>'
    )


def _plain_answer(record: Report) -> str:
    outcome = record.rows[0]
    if outcome is None:
        return ""
    return clean(outcome.text) if outcome.status in ("ok", "cancelled") else trouble(outcome)


def _plain_table(record: Report) -> str:
    if 1 < len(record.beside) <= compared.MOST and record.schema is None:
        return compared.as_text(record, TEXT_ROWS)
    lines = []
    for row, (asked, outcome) in enumerate(zip(record.asked_shortly(), record.rows[:TEXT_ROWS], strict=False)):
        said = record.said(outcome)
        said += [""] * (len(record.columns) - len(said))
        route = [outcome.route or "" if outcome else ""] if record.routed else []
        lines.append([record.label(row), asked, *said, status(outcome), *route, _tokens(outcome), price(outcome), _time(outcome)])
    widths = {0: 16, 1: 32, **{2 + i: 48 // len(record.columns) for i in range(len(record.columns))}}
    table = grid(["", "prompt", *record.columns, "status", *record.routed, "tokens", "cost", "time"], lines, widths)
    more = _more(len(lines), len(record.rows))
    return f"{table}\n{more}\n" if more else f"{table}\n"


def _more(shown: int, n: int) -> str:
    return f"… and {n - shown:,} more of {n:,} rows; the value holds them all." if shown < n else ""


def _tokens(outcome: Outcome | None) -> str:
    """`in + out`; nothing where nothing was sent."""
    if outcome is None or not (outcome.attempts or outcome.cached):
        return ""
    return f"{count(outcome.usage.tokens_in)} + {count(outcome.usage.tokens_out)}"


def _time(outcome: Outcome | None) -> str:
    return "" if outcome is None or outcome.latency_s is None else seconds(outcome.latency_s)


def _size(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
