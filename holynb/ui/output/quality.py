"""How good a run's answers are, to read: a line for the head, tables of classes and of who is taken for what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.quality.assessment import Agreement, Assessment, Labelled, PairTest, Scored
from holynb.ui.output import listing
from holynb.ui.output.html import SIDEWAYS, safe
from holynb.ui.output.listing import Listing, Markup, Part
from holynb.ui.output.text import clip, grid, one_line
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.quality.confusion import Confusion
    from holynb.quality.intervals import Interval

__all__ = ["as_html", "as_text", "classes", "labelled", "lines", "matrix", "parts", "percent", "scale_of", "scored", "shown"]

#: Classes of a table, and characters of a name.
MAX_CLASSES, MAX_NAME_CHARS = 12, 24
#: Routes with a table of their own.
MAX_TABLES = 4
#: Backgrounds of right and wrong, over a light page and a dark one: the share of the row is their strength.
RIGHT, WRONG, MOST = "46,125,50", "198,40,40", 0.42

STYLE = (
    "<style>\n.holynb-matrix{width:fit-content;max-width:100%;margin:6px 0;"
    + SIDEWAYS
    + """}
.holynb .holynb-matrix table{border-collapse:collapse;width:auto;font-size:12px;margin:0;background:transparent}
.holynb .holynb-matrix caption{caption-side:top;text-align:start;padding:0 0 3px;color:var(--jp-ui-font-color2,#808080)}
.holynb .holynb-matrix :is(th,td){padding:3px 8px;border:1px solid var(--jp-border-color2,#9e9e9e60);text-align:end!important;white-space:nowrap;
font-variant-numeric:tabular-nums;color:inherit;min-width:2.2em}
.holynb .holynb-matrix :is(th[scope=row],td:first-child){text-align:start!important}
.holynb .holynb-matrix th{font-weight:600}
</style>"""
)


# -- one line ----------------------------------------------------------------------------------------------------------
def lines(assessment: Assessment, *, intervals: bool = True) -> list[str]:
    """What the figures come to: a line for each route's labels and for its scores."""
    several = len(assessment.labelled) > 1 or len(assessment.scored) > 1
    out = [_named(x.route, labelled(x, intervals=intervals), several) for x in assessment.labelled]
    return [*out, *(_named(s.route, scored(s), several) for s in assessment.scored), *(tested(t) for t in assessment.tested)]


def labelled(x: Labelled, *, intervals: bool = True) -> str:
    """`accuracy 87.1 % (84.0 to 89.7) of 495 · macro F1 0.86 (…) · κ 0.81 (…) · 5 failed: 86.2 % with them as wrong`."""
    c = x.confusion
    if c.accuracy is None:
        return f"accuracy ?: no answer to compare ({x.failed:,} failed)" if x.failed else "accuracy ?: no answer to compare"
    parts = [f"accuracy {percent(c.accuracy)}{_range(x.accuracy_interval, 100)} of {c.n:,}"]
    if intervals and c.macro is not None:
        parts.append(f"macro F1 {c.macro[2]:.2f}{_range(x.f1_interval)}")
    if intervals and c.kappa is not None:
        parts.append(f"κ {c.kappa:.2f}{_range(x.kappa_interval)}")
    if x.failed and x.accuracy_of_all is not None:
        parts.append(f"{x.failed:,} failed: {percent(x.accuracy_of_all)} with them as wrong")
    if x.unlabelled:
        parts.append(f"{x.unlabelled:,} without a label")
    return " · ".join(parts)


def scored(s: Scored) -> str:
    """`score 4.2 of 5 (4.1 to 4.3), the mean of 495 · 3 unscored`; of pass and fail, the share that passed."""
    if s.mean is None:
        return f"score ?: {counted(s.unscored, 'answer')} unscored"
    if s.scale == "pass/fail":
        text = f"{percent(s.mean)} pass{_range(s.interval, 100)} of {s.n:,}"
    else:
        text = f"score {s.mean:.2f} of 5{_range(s.interval)}, the mean of {s.n:,}"
    return f"{text} · {s.unscored:,} unscored" if s.unscored else text


def scale_of(assessment: Assessment | None) -> str:
    """The judge's; "" where nobody judged."""
    return "" if assessment is None else next((s.scale for s in assessment.scored), "")


def tested(t: PairTest) -> str:
    """`b/y is more accurate than a/x by 4.0 points (1.2 to 6.9) on 495 rows, p = 0.006 (exact McNemar)`."""
    if t.difference == 0:
        return f"{t.first} and {t.second} are equal in {t.what} on {counted(t.n, 'row')}."
    better, worse = (t.second, t.first) if t.difference > 0 else (t.first, t.second)
    size, interval = abs(t.difference), t.interval
    if interval is not None and t.difference < 0:
        interval = type(interval)(-interval.high, -interval.low)
    by = f"{size * 100:.1f} points{_range(interval, 100)}" if t.what == "accuracy" else f"{size:.2f}{_range(interval)}"
    p = t.p if t.p_holm is None else t.p_holm
    how = f"{t.test}{', Holm' if t.p_holm is not None else ''}"
    chance = "" if p is None else f", {_p(p)} ({how}){'' if p < 0.05 else ': this may be chance'}"
    return f"{better} is better than {worse} in {t.what} by {by} on {counted(t.n, 'row')}{chance}."


def percent(share: float) -> str:
    """`87.1 %`; 100 % and 0 % only where it is exactly that."""
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    return "<0.1 %" if share < 0.0005 else ">99.9 %" if share >= 0.9995 else f"{share * 100:.1f} %"


def _range(interval: Interval | None, scale: int = 1) -> str:
    if interval is None:
        return ""
    form = "z.1f" if scale == 100 else "z.2f"  # z: no -0.0
    return f" ({interval.low * scale:{form}} to {interval.high * scale:{form}})"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _named(route: str, text: str, several: bool) -> str:
    return f"{route}: {text}" if several and route else text


# -- tables ------------------------------------------------------------------------------------------------------------
def parts(assessment: Assessment) -> list[Part]:
    """Tables below the head: classes and confusion by route, scores, agreement."""
    out: list[Part] = []
    several = len(assessment.labelled) > 1
    for x in assessment.labelled[:MAX_TABLES]:
        if x.confusion.n:
            out += [x.route if several else "", classes(x.confusion), *_advice(x.confusion)]
            out.append(Markup(matrix(x.confusion)))
    if assessment.scored and any(s.n for s in assessment.scored):
        out.append(_scores(assessment.scored))
    if assessment.agreed:
        out.append(_agreement(assessment.agreed))
    return [p for p in out if p]


def classes(c: Confusion) -> Listing:
    largest = sorted(c.by_class, key=lambda f: -f.support)[:MAX_CLASSES]
    order = {name: i for i, name in enumerate(c.names)}
    rows = [
        [_name(f.name), _two(f.precision), _two(f.recall), _two(f.f1), f"{f.support:,}", f"{f.predicted:,}"]
        for f in sorted(largest, key=lambda f: order[f.name])
    ]
    if c.macro is not None:
        rows.append(["macro average", *map(_two, c.macro), f"{c.n:,}", f"{c.n - c.others:,}"])
    return Listing(["class", "precision", "recall", "F1", "labels", "answers"], rows, range(1, 6), prose={0})


def _advice(c: Confusion) -> list[str]:
    hidden = len(c.by_class) - MAX_CLASSES
    notes = [f"{hidden:,} smaller classes are not listed; run.quality().classes has them."] if hidden > 0 else []
    if c.others * 2 > c.n:
        notes.append(
            f"{c.others:,} of {counted(c.n, 'answer')} {'is' if c.others == 1 else 'are'} none of the labels. "
            "Ask for the label alone, or use --schema with --label COL=FIELD."
        )
    return notes


def _scores(scored: Sequence[Scored]) -> Listing:
    values = ("fail", "pass") if scored[0].scale == "pass/fail" else ("1", "2", "3", "4", "5")
    first = 0 if scored[0].scale == "pass/fail" else 1
    rows = [
        [s.route or "answers", *(f"{s.counts.get(i, 0):,}" for i in range(first, first + len(values))), f"{s.unscored:,}"] for s in scored
    ]
    return Listing(["score", *values, "unscored"], rows, range(1, len(values) + 2))


def _agreement(agreed: Sequence[Agreement]) -> Listing:
    names = {"kappa": "Cohen's κ", "alpha": "Krippendorff's α"}
    rows = [[a.between, names[a.measure], _two(a.value), _range(a.interval).strip(" ()"), f"{a.n:,}"] for a in agreed]
    return Listing(["agreement of", "measure", "value", "95 %", "prompts"], rows, {2, 4}, prose={0})


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _name(name: str) -> str:
    return clip(one_line(name), MAX_NAME_CHARS) or "(blank)"


def shown(c: Confusion) -> tuple[list[str], list[list[int]]]:
    """The matrix with at most MAX_CLASSES classes, then the others together: heads of its columns, the last of other answers; its rows."""
    support = {f.name: f.support for f in c.by_class}
    largest = sorted(range(len(c.names)), key=lambda i: -support.get(c.names[i], 0))
    listed = sorted(i for i in largest[:MAX_CLASSES] if c.names[i] in support)
    rest = [i for i in range(len(c.names)) if i not in listed and c.names[i] in support]
    groups = [[i] for i in listed] + ([rest] if rest else [])
    place = {i: g for g, group in enumerate(groups) for i in group} | {len(c.names): len(groups)}
    rows = [[0] * (len(groups) + 1) for _ in groups]
    for (i, j), n in c.counts.items():
        rows[place[i]][place[j]] += n
    heads = [_name(c.names[i]) for i in listed] + ([f"{len(rest):,} others"] if rest else []) + ["no label"]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return heads, rows


def matrix(c: Confusion) -> str:
    """The confusion matrix as HTML: what stands in a cell is a number; its background is the number's share of the row."""
    heads, rows = shown(c)
    head = "".join(f'<th scope="col" style="text-align:right">{safe(h)}</th>' for h in heads)
    body = []
    for i, row in enumerate(rows):
        total = sum(row)
        cells = "".join(_matrix_cell(n, total, right=i == j) for j, n in enumerate(row))
        body.append(f'<tr><th scope="row" style="text-align:left" dir="auto">{safe(heads[i])}</th>{cells}</tr>')
    return (
        f'{STYLE}<div class="holynb-matrix" tabindex="0" role="group" aria-label="confusion matrix"><table>'
        f'<caption style="text-align:left">Rows: the label. Columns: the answer.</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _matrix_cell(n: int, total: int, *, right: bool) -> str:
    strength = MOST * n / total if total else 0.0
    colour = f"background-color:rgba({RIGHT if right else WRONG},{strength:.2f});" if n else ""
    text = f"<b>{n:,}</b>" if right else f"{n:,}" if n else "·"
    return f'<td style="text-align:right;{colour}">{text}</td>'


def as_html(assessment: Assessment) -> str:
    """The tables, folded open."""
    tables = parts(assessment)
    if not tables:
        return ""
    body = listing.as_html(tables)
    return (
        f'<details class="holynb-quality" open style="flex:1 1 100%;min-width:0;max-width:100%"><summary>Quality</summary>{body}</details>'
    )


def as_text(assessment: Assessment) -> str:
    """The same for a terminal."""
    out = [listing.as_text([part]) for part in parts(assessment) if not isinstance(part, Markup)]
    for x in assessment.labelled[:MAX_TABLES]:
        if x.confusion.n:
            heads, rows = shown(x.confusion)
            table = grid(
                ["label \\ answer", *heads], [[heads[i], *map(str, row)] for i, row in enumerate(rows)], numbers=range(1, len(heads) + 1)
            )
            out.append(table)
    return "\n\n".join(out)
