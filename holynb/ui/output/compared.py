"""Answers side by side, of `--compare` and `--samples`: a row per prompt, a column per route and sample. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.results import summarize
from holynb.ui.output import quality
from holynb.ui.output.glosses import tip
from holynb.ui.output.html import CELL_STYLE, CORNER, PROSE_STYLE, safe
from holynb.ui.output.report import Report, error_text
from holynb.ui.output.text import clean, clip, count, grid, percentile, price, seconds, status, verdict

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = ["MAX_COLUMNS", "as_html", "as_text"]

#: With more columns, each answer gets a row of its own.
MAX_COLUMNS = 4
#: Characters of answers in a row, divided among the columns: in HTML, in a terminal.
HTML_ANSWER_CHARS, TEXT_ANSWER_CHARS = 1000, 96
MAX_LABEL_CHARS = 40
NOTE_STYLE = 'class="holynb-note" style="font-weight:normal"'
#: A class of its own: a page's style sheets reach every output, and the columns of a run without comparison are others. The columns stand
#: below each other where they would be narrower than a long word.
STYLE = """<style>
.holynb-rows.holynb-compared{container-type:inline-size}
.holynb .holynb-rows.holynb-compared :is(td,th)[dir=auto]{min-width:10em}
@container (max-width:LEASTpx){
.holynb .holynb-rows.holynb-compared.holynb-of-COLUMNS :is(table,tbody,tr,td){display:block}
.holynb .holynb-rows.holynb-compared.holynb-of-COLUMNS thead{display:none}
.holynb .holynb-rows.holynb-compared.holynb-of-COLUMNS tr{padding:4px 0;border-bottom:1px solid var(--jp-border-color2,#9e9e9e60)}
.holynb .holynb-rows.holynb-compared.holynb-of-COLUMNS :is(td,td.n){border:0;padding:1px 8px;min-width:0;max-width:none;text-align:start!important}
.holynb .holynb-rows.holynb-compared.holynb-of-COLUMNS td[data-of]::before{content:attr(data-of);display:block;color:var(--jp-ui-font-color2,#808080)}
}
</style>"""
#: Widths in px: of a column of text with its padding, and of the rows' labels.
COLUMN_PX, LABEL_PX, LEAST_PX = 136, 100, 560


def as_html(report: Report, max_prompts: int, max_bytes: int) -> str:
    """The table: at most `max_prompts` prompts and about `max_bytes` bytes."""
    n, scale = len(report.variants), quality.scale_of(report.quality)
    head = "".join(
        f'<th{PROSE_STYLE}>{safe(name)}<br><span {NOTE_STYLE} title="{safe(tip("p50"))}">{safe(_column_summary(report.rows[i::n]))}</span></th>'
        for i, name in enumerate(report.variants)
    )
    lines: list[str] = []
    for i, prompt in enumerate(report.prompt_previews(n)[:max_prompts]):
        label, outcomes = clip(report.prompt_label(i * n), MAX_LABEL_CHARS), report.rows[i * n : (i + 1) * n]
        lines.append(
            f'<tr><td class="n"{CELL_STYLE}>{safe(label)}</td><td dir="auto"{PROSE_STYLE}>{safe(prompt)}</td>'
            + "".join(_cell(o, name, HTML_ANSWER_CHARS // n, scale) for o, name in zip(outcomes, report.variants, strict=True))
            + "</tr>"
        )
        if sum(len(line.encode()) for line in lines) > max_bytes:
            break
    more = _more(len(lines), len(report.rows) // n)
    note = f'<div class="holynb-note">{more}</div>' if more else ""
    names = f"<tr>{CORNER}<th{PROSE_STYLE}>prompt</th>{head}</tr>"
    style = STYLE.replace("COLUMNS", str(n)).replace("LEAST", str(max(LEAST_PX, LABEL_PX + COLUMN_PX * (n + 1))))
    return f'{style}<div class="holynb-rows holynb-compared holynb-of-{n}" tabindex="0" role="group" aria-label="answers side by side"><table><thead>{names}</thead><tbody>{"".join(lines)}</tbody></table>{note}</div>'


def as_text(report: Report, max_prompts: int) -> str:
    """The same for a terminal."""
    n = len(report.variants)
    prompts = report.prompt_previews(n)[:max_prompts]
    lines = [[report.prompt_label(i * n), p, *map(_answer_text, report.rows[i * n : (i + 1) * n])] for i, p in enumerate(prompts)]
    table = grid(["", "prompt", *report.variants], lines, {0: 16, 1: 32, **{2 + i: TEXT_ANSWER_CHARS // n for i in range(n)}})
    summaries = [f"{name}: {_column_summary(report.rows[i::n])}" for i, name in enumerate(report.variants)]
    return "\n".join(part for part in (table, _more(len(lines), len(report.rows) // n), *summaries) if part) + "\n"


def _more(shown: int, n: int) -> str:
    return f"… and {n - shown:,} more of {n:,} prompts; the value holds them all." if shown < n else ""


def _column_summary(rows: Sequence[Outcome | None]) -> str:
    """`20 of 20 · $0.0035 · p50 2.0 s`."""
    summary = summarize(rows, 0.0)
    latencies = [o.latency_s for o in rows if o is not None and o.status == "ok" and o.latency_s is not None]
    p50 = percentile(latencies, 0.5)
    return " · ".join(
        p for p in (f"{summary.ok:,} of {summary.n:,}", summary.money(), f"p50 {seconds(p50)}" if p50 is not None else "") if p
    )


def _answer_text(outcome: Outcome | None) -> str:
    if outcome is None or outcome.status in ("ok", "cancelled"):
        return "" if outcome is None else clean(outcome.text)
    return error_text(outcome) if outcome.status == "error" else status(outcome)


def _cell(outcome: Outcome | None, name: str, max_chars: int, scale: str) -> str:
    css_class = ' class="holynb-bad"' if outcome is not None and outcome.status == "error" else ""
    text = safe(clip(_answer_text(outcome)[: 8 * max_chars].strip(), max_chars))
    note = f'<div class="holynb-note" style="white-space:nowrap;font-size:11px">{safe(_facts(outcome, scale))}</div>'
    return f'<td dir="auto" data-of="{safe(name)}"{css_class}{PROSE_STYLE}>{text}{note}</td>'


def _facts(outcome: Outcome | None, scale: str) -> str:
    if outcome is None or not (outcome.attempts or outcome.cached):
        return ""
    latency = "" if outcome.latency_s is None else seconds(outcome.latency_s)
    thought = f" ({outcome.usage.tokens_reasoning:,} thought)" if outcome.usage.tokens_reasoning else ""
    tokens = (
        f"{count(outcome.usage.tokens_out)} token{'' if outcome.usage.tokens_out == 1 else 's'}{thought}" if outcome.status == "ok" else ""
    )
    score = f"score {value}" if (value := verdict(outcome, scale)) else ""
    return " · ".join(
        p for p in (score, "cached" if outcome.cached else "", tokens, price(outcome) if outcome.cost is not None else "", latency) if p
    )
