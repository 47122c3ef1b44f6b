"""The events of a run, few enough to draw: of a long run's ends one in so many, with the dollars and tokens of those since. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from holynb.events import Ended, Started

if TYPE_CHECKING:
    from decimal import Decimal

    from holynb.events import Event
    from holynb.types import Outcome

__all__ = ["thinned"]

#: Ends, and other events of each kind, that a chart is drawn of.
MAX_ENDS, MAX_OTHERS = 4_000, 2_000


def thinned(events: Iterable[Event], n: int, routes: int = 1) -> list[Event]:
    """The events of a run of `n` rows for its charts, in order, read once. `routes`: how many of them rows ask in turn.

    Sums over the ends are those over all; rows that no server was asked for are left out, and of other events, those above a bound.
    """
    each = max(1, n // MAX_ENDS)
    waiting: dict[int, list[Ended]] = {}
    counts: dict[type, int] = {}
    out: list[Event] = []
    for event in events:
        if isinstance(event, Ended):
            if not event.outcome.attempts:
                continue
            group = waiting.setdefault(event.row % routes, [])
            group.append(event)
            if len(group) >= each:
                out.append(_joined(group))
                group.clear()
        elif not isinstance(event, Started):
            counts[type(event)] = counts.get(type(event), 0) + 1
            if counts[type(event)] <= MAX_OTHERS:
                out.append(event)
    return [*out, *sorted((_joined(group) for group in waiting.values() if group), key=lambda e: e.at)]


def _joined(group: list[Ended]) -> Ended:
    """The last of them, with what all cost and answered."""
    last = group[-1]
    if len(group) == 1:
        return last
    outcomes = [e.outcome for e in group]
    costs = [o.cost for o in outcomes if o.cost is not None]
    tokens = [t for t in _tokens(outcomes) if t is not None]
    usage = replace(last.outcome.usage, tokens_out=sum(tokens) if tokens else None)
    total: Decimal | None = sum(costs[1:], costs[0]) if costs else None
    return replace(last, outcome=replace(last.outcome, cost=total, usage=usage))


def _tokens(outcomes: Iterable[Outcome]) -> Iterator[int | None]:
    return (None if o.cached else o.usage.tokens_out for o in outcomes)
