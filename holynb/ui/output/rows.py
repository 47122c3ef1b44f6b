"""Rows as an HTML table in which each opens, without a script: prompt, answer, thoughts, attempts and cost, within a number of bytes. Pure.

What does not fit is cut, never left out in silence: a line says which code shows the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from holynb.results import cost_text
from holynb.spool import MANY
from holynb.translation import head
from holynb.ui.output import formats, pictures, quality
from holynb.ui.output.html import CELL_STYLE, CORNER, PROSE_STYLE, number_cell, safe
from holynb.ui.output.report import MAX_PROMPT_CHARS, Report
from holynb.ui.output.text import clean, clip, count, one_line, price, seconds, status, thought, verdict

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = ["MAX_FAILED", "MAX_TABLE_BYTES", "NUMBERS", "STYLE", "as_html", "heads", "latency", "more_rows", "token_counts"]

#: Of the table, in UTF-8. With its charts, which are there as SVG and for plotly, a run stays under 300 kB in a notebook.
MAX_TABLE_BYTES = 190_000
#: Characters of a text: in its cell, and in the opened row; 0: it does not open. The first that fits is taken for all rows.
LIMITS = ((300, 2000), (300, 1000), (200, 500), (120, 200), (80, 80), (60, 0))
#: Of the bytes, for the first rows where failed ones come after them.
FIRST_SHARE = 0.6
#: Rows that failed, after the first MAX_ROWS of all; more would not fit even at the last limit.
MAX_FAILED = 800
MAX_LABEL_CHARS = 40
#: The last columns, named as the frame's.
NUMBERS = ("tokens_in", "tokens_out", "cost", "latency_s")

STYLE = """<style>
.holynb-row>summary{cursor:pointer}
.holynb-row[open]>summary{color:var(--jp-ui-font-color2,#808080)}
.holynb-row>summary>span{display:-webkit-inline-box;-webkit-box-orient:vertical;-webkit-line-clamp:3;overflow:hidden;vertical-align:top;
max-width:calc(100% - 1.2em)}
.holynb-row[open]>summary>span{display:none}
.holynb-row[open]>summary::after{content:"less"}
.holynb-full>div{margin:0 0 6px}
.holynb-rows{container-type:inline-size}
@container (max-width:820px){
.holynb .holynb-rows:not(.holynb-compared) table,.holynb .holynb-rows:not(.holynb-compared) tbody{display:block}
.holynb .holynb-rows:not(.holynb-compared) thead{display:none}
.holynb .holynb-rows:not(.holynb-compared) tr{display:flex;flex-wrap:wrap;gap:0 10px;padding:4px 0;border-bottom:1px solid var(--jp-border-color2,#9e9e9e60)}
.holynb .holynb-rows:not(.holynb-compared) td{border:0;padding:1px 8px;min-width:0;max-width:none}
.holynb .holynb-rows:not(.holynb-compared) td.p{flex:1 0 100%;box-sizing:border-box}
.holynb .holynb-rows:not(.holynb-compared) td.n{text-align:start!important}
.holynb .holynb-rows:not(.holynb-compared) td.n:nth-last-child(-n+4):not(:empty)::before{color:var(--jp-ui-font-color2,#808080)}
.holynb .holynb-rows:not(.holynb-compared) td.n:nth-last-child(4)::before{content:"tokens_in "}
.holynb .holynb-rows:not(.holynb-compared) td.n:nth-last-child(3)::before{content:"tokens_out "}
.holynb .holynb-rows:not(.holynb-compared) td.n:nth-last-child(2)::before{content:"cost "}
.holynb .holynb-rows:not(.holynb-compared) td.n:nth-last-child(1)::before{content:"latency_s "}
.holynb .holynb-rows:not(.holynb-compared) td.s::before{content:"score ";color:var(--jp-ui-font-color2,#808080)}
.holynb .holynb-rows:not(.holynb-compared) td:empty{display:none}
}
</style>"""


def as_html(report: Report, max_bytes: int = MAX_TABLE_BYTES) -> str:
    """The table: the first MAX_ROWS rows and every failed one, each with its texts as long as all of them fit."""
    prompts = report.prompt_previews()
    first = range(len(prompts))
    images = pictures.for_rows(report.attached, first)
    late, n_late = _late(report, len(prompts))
    lines = _fitting(report, first, prompts, images, int(max_bytes * FIRST_SHARE) if late else max_bytes)
    if late and len(lines) == len(first):
        lines += _fitting(report, late[:MAX_FAILED], prompts, {}, max_bytes - sum(len(line.encode()) for line in lines))
    left = n_late - max(0, len(lines) - len(prompts))
    notes = [more_rows(len(lines), len(report.rows)) if not late else _more(report, len(lines), len(prompts), left)]
    style = STYLE + (formats.STYLE if report.format != "text" else "")
    note = "".join(f'<div class="holynb-note">{safe(n)}</div>' for n in notes if n)
    return f'{style}<div class="holynb-rows" tabindex="0" role="group" aria-label="rows"><table><thead>{_head(report)}</thead><tbody>{"".join(lines)}</tbody></table>{note}</div>'


def _late(report: Report, first: int) -> tuple[list[int], int]:
    """The failed rows behind the first ones, no more than a table has room for, and how many there are."""
    behind = (i for i in range(first, len(report.rows)) if _failed(report.rows[i]))
    if len(report.rows) < MANY:
        late = list(behind)
        return late, len(late)
    n = report.summary.error - sum(_failed(report.rows[i]) for i in range(first))  # known without a look at each
    return list(islice(behind, min(n, MAX_FAILED))), n


def more_rows(shown: int, n: int) -> str:
    """What of `n` rows is not shown, or nothing."""
    return f"… and {n - shown:,} more of {n:,} rows; the value holds them all." if shown < n else ""


def token_counts(outcome: Outcome | None) -> list[str]:
    """In and out; nothing where nothing was sent."""
    if outcome is None or not (outcome.attempts or outcome.cached):
        return ["", ""]
    return [count(outcome.usage.tokens_in), count(outcome.usage.tokens_out)]


def latency(outcome: Outcome | None) -> str:
    """How long its answer took; nothing where there is none."""
    return "" if outcome is None or outcome.latency_s is None else seconds(outcome.latency_s)


# -- inside --------------------------------------------------------------------------------------------------------
def _fitting(report: Report, shown: Sequence[int], prompts: Sequence[str], images: Mapping[int, str], max_bytes: int) -> list[str]:
    """The lines of these rows with their texts as long as all fit; where not even the shortest do, as many as fit."""
    lines: list[str] = []
    for limits in LIMITS:
        lines = _within(report, shown, prompts, images, limits, max_bytes=max_bytes)
        if len(lines) == len(shown):
            break
    return lines


def _within(
    report: Report, shown: Sequence[int], prompts: Sequence[str], images: Mapping[int, str], limits: tuple[int, int], *, max_bytes: int
) -> list[str]:
    """The lines of these rows, as many as fit."""
    lines: list[str] = []
    size = 0
    for row in shown:
        lines.append(_row(report, row, prompts[row] if row < len(prompts) else report.prompt_preview(row), limits, images.get(row, "")))
        size += len(lines[-1].encode())
        if size > max_bytes:
            return lines[:-1]
    return lines


def _more(report: Report, shown: int, first: int, left: int) -> str:
    """After a table that goes on with failed rows."""
    n = len(report.rows)
    if shown < first:
        return more_rows(shown, n)
    failed = (
        f"then {shown - first:,} that failed" + (f", without {left:,} more of those" if left else "")
        if shown > first
        else "none that failed"
    )
    return f"The first {first:,} of {n:,} rows, {failed}; the value holds them all."


def _head(report: Report) -> str:
    names = "".join(f"<th{PROSE_STYLE if name not in (head('status'), head('route')) else ''}>{safe(name)}</th>" for name in heads(report))
    numbers = "".join(f'<th class="n">{head(name)}</th>' for name in (*(("score",) if quality.scale_of(report.quality) else ()), *NUMBERS))
    return f"<tr>{CORNER}{names}{numbers}</tr>"


def heads(report: Report) -> list[str]:
    """The names of the columns of texts. Those of the input, and of a schema, are the user's own."""
    asks = [head("prompt")] if report.inputs == ("prompt",) else list(report.inputs)
    answers = [head("text")] if report.schema is None and tuple(report.columns) == ("text",) else list(report.columns)
    return [*asks, *answers, *map(head, ["status", *report.route_column])]


def _row(report: Report, row: int, prompt: str, limits: tuple[int, int], image: str = "") -> str:
    outcome, (most, full) = report.rows[row], limits
    bad = " holynb-bad" if _failed(outcome) else ""
    answers = report.answer_cells(outcome)
    cells = [_short(cell, most // len(answers)) for cell in answers]
    inputs = [_short(cell, min(most, MAX_PROMPT_CHARS) // len(report.inputs)) for cell in report.input_cells(row, prompt)]
    # The row opens where there is most room: in its only answer, else in what was asked.
    place = cells if len(cells) == 1 and cells[0] else inputs
    if full:
        place[0] = _opens(place[0], _full(report, row, full))
    inputs[0] = image + inputs[0]
    colspan = f' colspan="{len(report.columns)}"' if len(cells) < len(report.columns) else ""
    input_html = "".join(f'<td class="p" dir="auto"{PROSE_STYLE}>{text}</td>' for text in inputs)
    answer = "".join(f'<td class="p{bad}" dir="auto"{PROSE_STYLE}{colspan}>{text}</td>' for text in cells)
    route = f'<td class="k"{CELL_STYLE}>{safe(outcome.route if outcome else "")}</td>' if report.route_column else ""
    scale = quality.scale_of(report.quality)
    score = f'<td class="n s"{CELL_STYLE}>{verdict(outcome, scale)}</td>' if scale else ""
    numbers = score + "".join(number_cell(n) for n in [*token_counts(outcome), price(outcome), latency(outcome)])
    return (
        f'<tr><td class="n"{CELL_STYLE}>{safe(clip(report.label(row), MAX_LABEL_CHARS))}</td>{input_html}'
        f'{answer}<td class="k{bad}"{CELL_STYLE}>{safe(status(outcome, pending=report.summary.pending > 0))}</td>{route}{numbers}</tr>'
    )


def _opens(summary: str, opened: str) -> str:
    return f'<details class="holynb-row"><summary><span>{summary or "…"}</span></summary>{opened}</details>'


def _short(text: str, most: int) -> str:
    return safe(clip(clean(text[: 8 * most]).strip(), most))


def _full(report: Report, row: int, most: int) -> str:
    """The row in full, up to `most` characters of each text."""
    outcome = report.rows[row]
    parts = [_part("prompt", report.prompts[row], most, _code(report, row, "prompt"))]
    if outcome is not None:
        if outcome.reasoning:
            folded = _cut(outcome.reasoning, most, _code(report, row, "reasoning"))
            parts.append(f'<details><summary class="holynb-note">{safe(thought(outcome))}</summary>{folded}</details>')
        if outcome.status == "error":
            reason = f"{outcome.error_type or outcome.status}: {outcome.error or ''}"
            parts.append(_part("error", reason, most, _code(report, row, "error")))
        elif outcome.error:  # an answer's note: that it moved, or was repaired
            parts.append(_part("note", outcome.error, most, _code(report, row, "error")))
        if outcome.text:
            parts.append(_part("text", outcome.text, most, _code(report, row, "text"), report.format))
        if outcome.score_reason:
            score = verdict(outcome, quality.scale_of(report.quality)).strip("?")
            parts.append(_part(f"score {score}".strip(), outcome.score_reason, most, _code(report, row, "score_reason")))
    return f'<div class="holynb-full">{"".join(parts)}<div class="holynb-note">{safe(_facts(outcome))}</div></div>'


def _part(title: str, text: str, most: int, code: str, how: str = "text") -> str:
    shown = formats.as_html(text[:most], how) if how != "text" else ""
    return f'<div dir="auto"><b>{title}</b>\n{(shown + _rest(text, most, code)) if shown else _cut(text, most, code)}</div>'


def _cut(text: str, most: int, code: str) -> str:
    return safe(text[:most]) + _rest(text, most, code)


def _rest(text: str, most: int, code: str) -> str:
    left = len(text) - most
    return f'<span class="holynb-note">… {left:,} more characters: <code>{safe(code)}</code></span>' if left > 0 else ""


def _code(report: Report, row: int, column: str) -> str:
    """The line of code that shows a text of a row in full: of the variable that holds it, where one does."""
    if not report.value or column not in (("text",) if report.into else ("text", "error", "reasoning", "score_reason")):
        return f"%infer show {report.run}".rstrip()
    name = json.dumps(report.into if report.into and column == "text" else column, ensure_ascii=False)
    # A label of one's own may stand there twice, and .loc would give both.
    return f"{report.value}.loc[{row}, {name}]" if report.labels is None else f"{report.value}[{name}].iloc[{row}]"


def _facts(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not ended"
    facts = [
        "from the run log"
        if outcome.cached and not outcome.attempts
        else f"{outcome.attempts} attempt{'' if outcome.attempts == 1 else 's'}",
        outcome.route or "",
        outcome.model if outcome.model and not (outcome.route or "").endswith(f"/{outcome.model}") else "",
        outcome.finish_reason or "",
        f"cost {cost_text(outcome.cost, outcome.route)}" if price(outcome) else "",
    ]
    return " · ".join(one_line(fact) for fact in facts if fact)


def _failed(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.status == "error"
