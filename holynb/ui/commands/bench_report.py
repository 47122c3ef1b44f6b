"""How `%infer bench` shows its results: a table as text or HTML, and bars. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from holynb.results import dollars
from holynb.ui.output import bars, listing, one_line, quality, seconds
from holynb.ui.output.listing import Listing, Markup
from holynb.units import three_digits
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Measured
    from holynb.ui.output.listing import Part

__all__ = ["as_html", "as_text", "bars_html", "parts"]

#: Title of a chart → how its values are said, and (column, its name in a chart of several).
CHARTS: Mapping[str, tuple[Callable[[float], str], Sequence[tuple[str, str]]]] = {
    "Tokens/s": (three_digits, [("tokens_per_s", "")]),
    "First token": (seconds, [("ttft_p50_s", "p50"), ("ttft_p95_s", "p95")]),
    "Whole answer": (seconds, [("latency_p50_s", "p50"), ("latency_p95_s", "p95")]),
    "Cost of 1,000 rows": (dollars, [("cost_1000", "")]),
    "Accuracy": (quality.percent, [("accuracy", "")]),
}
HEADERS = (
    "route",
    "rows",
    "rows/s",
    "tokens/s",
    "cold start",
    "first token p50 · p95",
    "answer p50 · p95",
    "context",
    "per 1,000 rows",
    "a month",
    "set-up",
)
#: After the rows, where answers are compared with labels.
OF_LABELS = ("accuracy (95 %)", "failed")


def parts(results: Sequence[Measured]) -> list[Part]:
    """The table, with notes below it."""
    labelled = any(m.compared is not None for m in results)
    head = [*HEADERS[:2], *(OF_LABELS if labelled else ()), *HEADERS[2:]]
    last = len(head) - 1
    return [Listing(head, [_cells(m, labelled=labelled) for m in results], range(1, last), prose={last}, wide={last}), *_notes(results)]


def as_text(results: Sequence[Measured], width: int | None = None) -> str:
    """The table and its notes as text, for a terminal of so many columns."""
    return listing.as_text(parts(results), width)


def as_html(results: Sequence[Measured]) -> str:
    """The table, its notes and the bars as an HTML fragment."""
    return listing.as_html([*parts(results), Markup(bars_html(results))])


def _cells(m: Measured, *, labelled: bool) -> list[str]:
    steps = f"{counted(m.steps, 'step')}: {m.setup}" if m.steps else "none"
    return [
        m.route,
        f"{m.ok:,} of {m.rows:,}",
        *((_accuracy(m), "?" if m.failed is None else f"{m.failed:,}") if labelled else ()),
        _rate(m.rows_per_s),
        _rate(m.tokens_per_s),
        _time(m.cold_s),
        f"{_time(m.ttft_p50_s)} · {_time(m.ttft_p95_s)}",
        f"{_time(m.latency_p50_s)} · {_time(m.latency_p95_s)}",
        "?" if m.context is None else f"{m.context:,}",
        dollars(m.cost_1000),
        dollars(m.cost_month),
        steps,
    ]


def _accuracy(m: Measured) -> str:
    """`87.1 % (84.0 to 89.7)`."""
    if m.accuracy is None or m.accuracy_low is None or m.accuracy_high is None:
        return "?"
    return f"{quality.percent(m.accuracy)} ({m.accuracy_low * 100:.1f} to {m.accuracy_high * 100:.1f})"


def _rate(value: float | None) -> str:
    return "?" if value is None else three_digits(value)


def _time(value: float | None) -> str:
    return f"{value * 1000:.1f} ms" if value is not None and value < 0.1 else seconds(value)


def _notes(results: Sequence[Measured]) -> list[str]:
    notes = [f"{m.route}: {one_line(m.error)}" for m in results if m.error]
    if any(m.simulated and m.cost_month for m in results):
        notes.append("Dollars of sim/ are simulated.")
    if any(m.cost_1000 is None and m.ok and m.route.startswith("pool/") for m in results):
        notes.append(
            'A pool is priced by device time: [price."pool/NAME"] per_device_hour = … in config.toml. %infer roi compares it with an API.'
        )
    return notes


def bars_html(results: Sequence[Measured]) -> str:
    """The bars, which every page shows without a script; empty if nothing was measured."""
    return bars.side_by_side(
        [
            bars.chart(
                title,
                [bars.Bar(f"{m.route} {name}".strip(), getattr(m, column), k) for m in results for k, (column, name) in enumerate(columns)],
                written,
            )
            for title, (written, columns) in CHARTS.items()
        ]
    )
