"""Answers beside each other: what `--compare` and `--samples` asked, a line a prompt and a column for each route and sample. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holynb.results.summary import summarize
from holynb.ui.cells import PROSE, safe
from holynb.ui.text import clean, clip, count, grid, one_line, percentile, price, seconds, status

if TYPE_CHECKING:
    from holynb.run.session import SessionRun
    from holynb.types import Outcome
    from holynb.ui.static import Record

__all__ = ["MOST", "as_html", "as_text", "labels", "title", "ways"]

#: Columns that have room beside each other; of more, each answer has a line of its own.
MOST = 4
#: Characters of an answer, divided among the columns, on a page and in a terminal.
ANSWER, PLAIN = 1000, 96
LIGHT = 'class="holynb-note" style="font-weight:normal"'
LEVELS = ["asked_route", "sample"]


def ways(index: Any) -> tuple[str, ...]:
    """What each prompt was asked, from the levels that a crossed index ends in: routes, samples, or both; `()` of any other index."""
    if index is None or list(index.names[-2:]) != LEVELS or not len(index):
        return ()
    asked = list(dict.fromkeys(label[-2:] for label in index.tolist()))
    if len(asked) == 1:
        return ()
    routes, samples = {r for r, _ in asked}, {k for _, k in asked}
    if len(samples) == 1:
        return tuple(str(r) for r, _ in asked)
    return tuple(f"sample {k}" if len(routes) == 1 else f"{r}, sample {k}" for r, k in asked)


def labels(index: Any) -> list[object]:
    """The index labels of the input, one a row, of an index that `ways` knows."""
    from holynb.results import frame

    return [label[0] if len(label) == len(LEVELS) + 1 else tuple(label[: -len(LEVELS)]) for label in frame.labels(index)]


def title(run: SessionRun) -> str:
    """Which run, and where it was sent."""
    named = (
        dict.fromkeys(str(r) for r, _ in (label[-2:] for label in run.plan.index.tolist())) if ways(run.plan.index) else [str(run.route)]
    )
    return f"{run.name or run.id} on {', '.join(named)}"


def as_html(record: Record, most: int, size: int) -> str:
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


def as_text(record: Record, most: int) -> str:
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
