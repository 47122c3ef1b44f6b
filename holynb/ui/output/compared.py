"""Answers beside each other: what `--compare` and `--samples` asked, a line a prompt and a column for each route and sample. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.results import summarize
from holynb.ui.output.html import PROSE, safe
from holynb.ui.output.report import Report
from holynb.ui.output.text import clean, clip, count, grid, one_line, percentile, price, seconds, status

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = ["MOST", "as_html", "as_text"]

#: Columns that have room beside each other; of more, each answer has a line of its own.
MOST = 4
#: Characters of an answer, divided among the columns, on a page and in a terminal.
ANSWER, PLAIN = 1000, 96
LIGHT = 'class="holynb-note" style="font-weight:normal"'


def as_html(record: Report, most: int, size: int) -> str:
    """The table: at most `most` prompts and about `size` bytes."""
    n = len(record.beside)
    head = "".join(
        f"<th{PROSE}>{safe(name)}<br><span {LIGHT}>{safe(_sum(record.rows[i::n]))}</span></th>" for i, name in enumerate(record.beside)
    )
    lines: list[str] = []
    for i, asked in enumerate(record.asked_shortly(n)[:most]):
        mine = record.rows[i * n : (i + 1) * n]
        lines.append(
            f'<tr><td class="n">{safe(clip(record.prompt_label(i * n), 40))}</td><td dir="auto"{PROSE}>{safe(asked)}</td>'
            + "".join(_cell(o, ANSWER // n) for o in mine)
            + "</tr>"
        )
        if sum(len(line.encode()) for line in lines) > size:
            break
    more = _more(len(lines), len(record.rows) // n)
    note = f'<div class="holynb-note">{more}</div>' if more else ""
    names = f'<tr><th class="n"></th><th{PROSE}>prompt</th>{head}</tr>'
    return f'<div class="holynb-rows"><table><thead>{names}</thead><tbody>{"".join(lines)}</tbody></table>{note}</div>'


def as_text(record: Report, most: int) -> str:
    """The same for a terminal."""
    n = len(record.beside)
    asked = record.asked_shortly(n)[:most]
    lines = [[record.prompt_label(i * n), a, *map(_said, record.rows[i * n : (i + 1) * n])] for i, a in enumerate(asked)]
    table = grid(["", "prompt", *record.beside], lines, {0: 16, 1: 32, **{2 + i: PLAIN // n for i in range(n)}})
    sums = [f"{name}: {_sum(record.rows[i::n])}" for i, name in enumerate(record.beside)]
    return "\n".join(part for part in (table, _more(len(lines), len(record.rows) // n), *sums) if part) + "\n"


def _more(shown: int, n: int) -> str:
    return f"… and {n - shown:,} more of {n:,} prompts; the value holds them all." if shown < n else ""


def _sum(rows: Sequence[Outcome | None]) -> str:
    """What one column comes to: `20 of 20 · $0.0035 · p50 2.0 s`. Dollars of the simulator are nobody's."""
    told = summarize(rows, 0.0)
    whole = [o.latency_s for o in rows if o is not None and o.status == "ok" and o.latency_s is not None]
    middle = percentile(whole, 0.5)
    money = (
        f"{told.money()} simulated" if told.cost and all((o.route or "").startswith("sim/") for o in rows if o and o.cost) else told.money()
    )
    return " · ".join(p for p in (f"{told.ok:,} of {told.n:,}", money, f"p50 {seconds(middle)}" if middle is not None else "") if p)


def _said(outcome: Outcome | None) -> str:
    if outcome is None or outcome.status in ("ok", "cancelled"):
        return "" if outcome is None else clean(outcome.text)
    return f"{status(outcome)}: {one_line(outcome.error)}" if outcome.status == "error" else status(outcome)


def _cell(outcome: Outcome | None, most: int) -> str:
    bad = ' class="holynb-bad"' if outcome is not None and outcome.status == "error" else ""
    said = safe(clip(_said(outcome)[: 8 * most].strip(), most))
    return f'<td dir="auto"{bad}{PROSE}>{said}<div class="holynb-note" style="white-space:nowrap;font-size:11px">{safe(_facts(outcome))}</div></td>'


def _facts(outcome: Outcome | None) -> str:
    if outcome is None or not (outcome.attempts or outcome.cached):
        return ""
    took = "" if outcome.latency_s is None else seconds(outcome.latency_s)
    told = f"{count(outcome.usage.tokens_out)} tokens" if outcome.status == "ok" else ""
    return " · ".join(p for p in ("cached" if outcome.cached else "", told, price(outcome) if outcome.cost is not None else "", took) if p)
