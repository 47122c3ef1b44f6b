"""Where `--router` sends each row and what that saves, in lines for a dry run. Reads a plan; decides nothing."""

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

MOST = 20


def lines(plan: Plan) -> list[str]:
    """A line for each of the first rows (task, route, why, saving against the cell's own route), then one for each route."""
    given = plan.targets.given
    if not plan.targets.decisions or given is None:
        return []
    rows = [
        (r.row, d, routing.saving(plan.rows.prompts[r.row], d, given, r.sampling.max_tokens or 0))
        for r, d in zip(plan.rows.requests, plan.targets.decisions, strict=True)
        if r is not None
    ]
    table = [
        [str(row), d.task or "none", str(d.route), _money(saved), d.why, one_line(plan.rows.prompts[row].text)]
        for row, d, saved in rows[:MOST]
    ]
    sums: dict[tuple[str, str], list[Decimal | None]] = defaultdict(list)
    for _, d, saved in rows:
        sums[d.task or "none", str(d.route)].append(saved)
    told = [
        f"{task} → {route}: {counted(len(all_), 'row')}{_against(all_, str(given) if route != str(given) else '')}"
        for (task, route), all_ in sorted(sums.items())
    ]
    # What may be in a script of wide letters stands last: no font of a page has them exactly two columns wide.
    head = ["row", "task", "route", "saves at most", "why", "prompt"]
    more = [f"… and {len(rows) - MOST:,} more rows."] if len(rows) > MOST else []
    return ["", grid(head, table, {4: 44, 5: 50}), *more, *told]


def _against(saved: list[Decimal | None], given: str) -> str:
    if not given:
        return ", the route given"
    known = [s for s in saved if s is not None]
    if len(known) < len(saved):
        return f", saving ? against {given}: a price is not known"
    total = sum(known, Decimal(0))
    return f", saving up to {dollars(total)} against {given}" if total >= 0 else f", up to {dollars(-total)} dearer than {given}"


def _money(saved: Decimal | None) -> str:
    return "?" if saved is None else f"-{dollars(-saved)}" if saved < 0 else dollars(saved) if saved else ""
