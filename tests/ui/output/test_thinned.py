"""A long run's charts come of few events: sums stay, notes stay, and what is held is bounded."""

from __future__ import annotations

from decimal import Decimal

import pytest

from holynb.events import Ended, Event, Failed, Noted, Started
from holynb.types import Outcome, Usage
from holynb.ui.output import series, thinned


def ended(row: int, route: str = "a/b", *, attempts: int = 1) -> Ended:
    outcome = Outcome("ok", "x", route=route, attempts=attempts, usage=Usage(3, 5), cost=Decimal("0.01"), latency_s=1.0)
    return Ended(row, outcome, 10.0 + row / 10)


def test_few_rows_stay_as_they_are_but_for_their_beginnings() -> None:
    events: list[Event] = [Started(0, 1, "a/b", 9.0), ended(0), Noted("a note", 11.0), ended(1)]
    assert thinned.thinned(events, 2) == events[1:]


@pytest.mark.parametrize("routes", [1, 2])
def test_charts_of_many_rows_come_to_the_same(routes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinned, "MAX_ENDS", 40)
    monkeypatch.setattr(thinned, "MAX_OTHERS", 7)
    names = [f"a/{i}" for i in range(routes)]
    events: list[Event] = [
        e for row in range(1_003) for e in (Failed(row, 1, "a/b", "timeout", "no", 9.0, 0.0), ended(row, names[row % routes]))
    ]
    few = thinned.thinned([*events, Noted("end", 200.0), ended(1_003, attempts=0)], 1_004, routes)
    assert len(few) < 60
    assert sum(isinstance(e, Failed) for e in few) == 7
    assert any(isinstance(e, Noted) for e in few)
    whole, drawn = (series.by_route(es, (), 10.0, names if routes > 1 else ()) for es in (events, _in_rows(few)))
    for name, points in whole["cost"].items():
        assert drawn["cost"][name][-1] == pytest.approx(points[-1])
    for name, points in whole["tokens"].items():
        assert sum(y for _, y in drawn["tokens"][name]) == pytest.approx(sum(y for _, y in points), rel=0.02)


def _in_rows(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda e: e.at)
