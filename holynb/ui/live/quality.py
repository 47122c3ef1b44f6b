"""How good the answers are so far, row by row: a line for the head, and tables of classes and of who is taken for what. Pure fold."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from holynb.quality.assessment import Assessment, Labelled, Scored
from holynb.quality.confusion import Confusion
from holynb.quality.matching import fold
from holynb.run.labels import compared
from holynb.translation import brief
from holynb.ui.live.measure import Measure
from holynb.ui.live.qualitytable import QualityTable
from holynb.ui.output import quality

if TYPE_CHECKING:
    from holynb.events import Ended

__all__ = ["QualitySoFar"]

#: Routes whose tables are shown.
MAX_TABLES = 4


class QualitySoFar:
    """The fold of one run. `whole`: the figures of a run that is over, which nothing is folded into."""

    def __init__(self, measure: Measure | None, whole: Assessment | None = None) -> None:
        self._measure, self._whole = measure or Measure(), whole
        names = self._measure.labels.names() if self._measure.labels else {}
        self._names = names
        self._places = {key: i for i, key in enumerate(names)}
        self._pairs: dict[str, Counter[tuple[int, int]]] = {route: Counter() for route, _ in self._measure.variants}
        self._failed, self._unlabelled, self._unscored = Counter[str](), Counter[str](), Counter[str]()
        self._scores: dict[str, Counter[int]] = {route: Counter() for route, _ in self._measure.variants}
        self._changed = True

    def fold(self, event: Ended) -> None:
        """A row that has ended."""
        measure, outcome = self._measure, event.outcome
        if self._whole is not None or not measure.variants:
            return
        route, labels = measure.variants[event.row % len(measure.variants)][0], measure.labels
        self._changed = True
        if measure.scale and outcome.status == "ok":
            if outcome.score is None:
                self._unscored[route] += 1
            else:
                self._scores[route][outcome.score] += 1
        if labels is None:
            return
        label = labels.of(event.row)
        if label is None:
            self._unlabelled[route] += 1
            return
        answer = compared(outcome, labels, measure.schema, exact=labels.exact)
        if answer is not None:
            place = self._places[fold(label, exact=labels.exact)]
            self._pairs[route][place, self._places.get(answer, len(self._places))] += 1
        elif outcome.status in ("error", "cancelled"):
            self._failed[route] += 1

    def line(self) -> str:
        """The figures in short; empty where there are none."""
        return "\n".join(quality.lines(self._assessment(), intervals=False))

    def tables(self, *, again: bool = False) -> list[QualityTable] | None:
        """The tables of each route; None where nothing has changed since they were asked for, unless `again`."""
        if not self._changed and not again:
            return None
        self._changed = False
        return [table for x in self._assessment().labelled[:MAX_TABLES] if x.confusion.n for table in _tables(x)]

    def _assessment(self) -> Assessment:
        if self._whole is not None:
            return self._whole
        routes = list(self._pairs)
        names, scale = list(self._names.values()), self._measure.scale
        labelled = [Labelled(r, Confusion.counted(names, self._pairs[r]), self._failed[r], self._unlabelled[r]) for r in routes]
        scored = [Scored.of(r, scale, self._scores[r], self._unscored[r]) for r in routes if self._scores[r] or self._unscored[r]]
        return Assessment(
            labelled if self._measure.labels and any(x.confusion.n or x.failed for x in labelled) else (), scored if scale else ()
        )


def _tables(x: Labelled) -> list[QualityTable]:
    classes = quality.classes(x.confusion)
    heads, rows = quality.shown(x.confusion)
    named = f"{x.route}, " if x.route else ""
    return [
        {
            "title": f"{named}{brief('by class')}",
            "kind": "classes",
            "head": list(classes.head),
            "rows": [list(row) for row in classes.rows],
        },
        {
            "title": f"{named}{brief('rows: the label, columns: the answer')}",
            "kind": "matrix",
            "head": ["", *heads],
            "rows": [[heads[i], *map(str, row)] for i, row in enumerate(rows)],
        },
    ]
