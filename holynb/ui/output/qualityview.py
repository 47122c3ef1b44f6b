"""What `run.quality()` gives: figures that are shown as tables and read as frames. Reads an assessment; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holynb.quality.assessment import Assessment
from holynb.ui.output import quality
from holynb.ui.output.html import safe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["QualityView"]


class QualityView:
    """What `run.quality()` gives: shown as a table and a matrix, and read as frames.

    metrics: a row for each figure; classes: precision, recall, F1 by class; confusion: labels by answers; agreement and tests: of
    `--compare` and `--samples`.
    """

    def __init__(self, assessment: Assessment) -> None:
        self.assessment = assessment

    @property
    def metrics(self) -> pd.DataFrame:
        """Each figure with its interval, and how many rows it is of. Indexed by metric."""
        rows: list[tuple[Any, ...]] = []
        for x in self.assessment.labelled:
            c = x.confusion
            macro = c.macro or (None, None, None)
            rows += [
                ("accuracy", x.route, c.accuracy, x.accuracy_interval, c.n),
                ("accuracy, failed as wrong", x.route, x.accuracy_of_all, None, c.n + x.failed),
                ("macro precision", x.route, macro[0], None, c.n),
                ("macro recall", x.route, macro[1], None, c.n),
                ("macro F1", x.route, macro[2], x.f1_interval, c.n),
                ("weighted F1", x.route, c.weighted_f1, None, c.n),
                ("kappa", x.route, c.kappa, x.kappa_interval, c.n),
            ]
        for s in self.assessment.scored:
            rows.append(("pass rate" if s.scale == "pass/fail" else "mean score", s.route, s.mean, s.interval, s.n))
            rows.append(("unscored", s.route, float(s.unscored), None, s.n + s.unscored))
        return _frame(
            "metric",
            {
                "metric": ("string", [r[0] for r in rows]),
                "route": ("string", [r[1] for r in rows]),
                "value": ("Float64", [r[2] for r in rows]),
                "low": ("Float64", [None if r[3] is None else r[3].low for r in rows]),
                "high": ("Float64", [None if r[3] is None else r[3].high for r in rows]),
                "n": ("Int64", [r[4] for r in rows]),
            },
        )

    @property
    def classes(self) -> pd.DataFrame:
        """Figures by class."""
        rows = [(x.route, f) for x in self.assessment.labelled for f in x.confusion.by_class]
        floats = {name: ("Float64", [getattr(f, name) for _, f in rows]) for name in ("precision", "recall", "f1")}
        counts = {name: ("Int64", [getattr(f, name) for _, f in rows]) for name in ("support", "predicted")}
        names = {"class": ("string", [f.name for _, f in rows]), "route": ("string", [r for r, _ in rows])}
        return _frame("class", {**names, **floats, **counts})

    @property
    def confusion(self) -> pd.DataFrame:
        """Of the first route: labels by answers, all classes; the last column counts answers that are none."""
        if not self.assessment.labelled:
            return _frame("label", {"label": ("string", [])})
        c = self.assessment.labelled[0].confusion
        rows = [c.row(i) for i in range(len(c.names))]
        columns = {name: ("Int64", [row[j] for row in rows]) for j, name in enumerate([*c.names, "(no label)"])}
        return _frame("label", {"label": ("string", list(c.names)), **columns})

    @property
    def agreement(self) -> pd.DataFrame:
        """How far routes, or samples, agree."""
        rows = self.assessment.agreed
        return _frame(
            "between", {**_columns(rows, between="string", measure="string", value="Float64"), **_ends(rows), **_columns(rows, n="Int64")}
        )

    @property
    def tests(self) -> pd.DataFrame:
        """Pairs of routes: the second's figure less the first's."""
        rows = self.assessment.tested
        names = _columns(rows, what="string", first="string", second="string", test="string", difference="Float64")
        return _frame("what", {**names, **_ends(rows), **_columns(rows, p="Float64", p_holm="Float64", n="Int64")})

    def __repr__(self) -> str:
        text = "\n\n".join(t for t in ("\n".join(quality.lines(self.assessment)), quality.as_text(self.assessment)) if t)
        return (
            text or "Nothing to say of quality: add --label COL or --judge ROUTE, or --compare routes whose answers are names of classes."
        )

    def _repr_html_(self) -> str:
        heads = "".join(
            f'<div class="holynb-head" dir="auto">{safe(line)}</div>' for line in quality.lines(self.assessment) or [repr(self)]
        )
        return f'<div class="holynb tex2jax_ignore mathjax_ignore">{heads}{quality.as_html(self.assessment)}</div>'


def _columns(rows: Sequence[Any], **kinds: str) -> dict[str, tuple[str, list[Any]]]:
    return {name: (kind, [getattr(r, name) for r in rows]) for name, kind in kinds.items()}


def _ends(rows: Sequence[Any]) -> dict[str, tuple[str, list[Any]]]:
    return {end: ("Float64", [None if r.interval is None else getattr(r.interval, end) for r in rows]) for end in ("low", "high")}


def _frame(index: str, columns: dict[str, Any]) -> pd.DataFrame:
    from holynb.results import frame

    return frame.from_columns(columns, index)
