"""Where `--router` sends each row and what that saves, as lines of a dry run. Reads a plan; decides nothing."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from holynb.results import dollars
from holynb.run import routing
from holynb.ui.output import grid, one_line
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Plan

__all__ = ["lines"]

MAX_ROWS_LISTED = 20


def lines(plan: Plan) -> list[str]:
    """A line for each of the first rows (task, route, reason, saving against the cell's own route), then one for each task and route.

    Empty without `--router`.
    """
    own_route = plan.targets.given
    if not plan.targets.decisions or own_route is None:
        return []
    savings = [
        (r.row, d, routing.saving(plan.rows.prompts[r.row], d, own_route, r.sampling.max_tokens or 0))
        for r, d in zip(plan.rows.requests, plan.targets.decisions, strict=True)
        if r is not None
    ]
    table = [
        [str(row), d.task or "none", str(d.route), _dollars(saving), d.why, one_line(plan.rows.prompts[row].text)]
        for row, d, saving in savings[:MAX_ROWS_LISTED]
    ]
    by_route: dict[tuple[str, str], list[Decimal | None]] = defaultdict(list)
    for _, decision, saving in savings:
        by_route[decision.task or "none", str(decision.route)].append(saving)
    totals = [
        f"{task} → {route}: {counted(len(group), 'row')}{_comparison(group, str(own_route) if route != str(own_route) else '')}"
        for (task, route), group in sorted(by_route.items())
    ]
    # Prompts stand last: no font of a page makes wide characters exactly two columns wide, and they would shift what follows.
    head = ["row", "task", "route", "saves at most", "why", "prompt"]
    more = [f"… and {len(savings) - MAX_ROWS_LISTED:,} more rows."] if len(savings) > MAX_ROWS_LISTED else []
    return ["", grid(head, table, {4: 44, 5: 50}), *more, *totals]


def _comparison(savings: list[Decimal | None], own_route: str) -> str:
    """The sum of `savings` (dollars) against `own_route`; empty: the rows stay on that route."""
    if not own_route:
        return ", the route given"
    known = [s for s in savings if s is not None]
    if len(known) < len(savings):
        return f", saving ? against {own_route}: a price is not known"
    total = sum(known, Decimal(0))
    return f", saving up to {dollars(total)} against {own_route}" if total >= 0 else f", up to {dollars(-total)} dearer than {own_route}"


def _dollars(saving: Decimal | None) -> str:
    return "?" if saving is None else f"-{dollars(-saving)}" if saving < 0 else dollars(saving) if saving else ""
