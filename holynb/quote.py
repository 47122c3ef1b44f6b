"""What a plan will cost: the rows still to be sent, estimated from answers like them in the run log. Reads the log; sends nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from holynb import history, spending
from holynb.errors import BadOption
from holynb.estimate import Estimate, Seen, estimate
from holynb.plan import Plan
from holynb.summary import dollars
from holynb.types import Message, Prompt, Request, Route

__all__ = ["Quote", "check", "quote"]

#: Characters at the beginning of a prompt that make two of one kind: rows of one template share them, and a row asked before has its own.
LEAD = 24


@dataclass(frozen=True, slots=True)
class Quote:
    """What will be sent (`estimate`), and how many rows the log, an earlier run or an equal row answers. `free`: every route is a pool."""

    estimate: Estimate
    answered: int
    free: bool

    @property
    def range(self) -> tuple[Decimal, Decimal] | None:
        """Dollars, low and high; None where a price is not known."""
        return (Decimal(0), Decimal(0)) if self.free else self.estimate.cost

    def says(self) -> str:
        """`$0.12 to $0.20`, `nothing`, or that the price is not known and of what."""
        if self.range is None:
            return f"? (no price is known for {', '.join(map(str, self.estimate.unpriced))})"
        low, high = self.range
        return "nothing" if high == 0 else f"{dollars(low)} to {dollars(high)}"


def quote(plan: Plan) -> Quote:
    """The estimate of a plan, retries not counted. Where the log cannot be read, everything is taken as still to be sent."""
    try:
        log = history.log()
        due = _due(plan)
        leads = {_lead(r.messages) for r in plan.requests if r is not None}
        routes = {r.route for r in due}
        seen = [s for route in routes for s in spending.answered(log, route) if _lead(s.messages) in leads]
    except sqlite3.Error:
        due, seen = [r for r in plan.requests if r is not None], []
    rest = [r for r in due if r.route.provider != "pool"]
    known = sum(r is not None for r in plan.requests) - len(due)
    return Quote(estimate(rest or due, _enough(seen)), known, not rest)


def check(plan: Plan, ask: Callable[[str], bool] | None = None) -> None:
    """Hold a plan against its `--confirm`. `ask` puts a question to a person; None where nobody could answer. Raises BadOption."""
    limit = plan.options.confirm
    if limit is None:
        return
    made = quote(plan)
    if made.range is not None and made.range[1] <= Decimal(str(limit)):
        return
    rows = f"{made.estimate.rows:,} row{'s' * (made.estimate.rows != 1)} on {plan.route}"
    if ask is None:
        raise BadOption(
            f"{rows} may cost {made.says()}, which is above --confirm {limit:g}, and nobody can be asked here. Raise --confirm, or leave it "
            "out and set --budget."
        )
    if not ask(f"{rows} may cost {made.says()}. Send them? [y/N] "):
        raise BadOption("Nothing was sent.")


def _due(plan: Plan) -> list[Request]:
    """The requests that neither the plan's own earlier run, nor the cache, nor an equal row answers."""
    asked = [r for r in plan.requests if r is not None and r.row not in plan.kept]
    options, addresses = plan.options, {e.route: e.base_url for e in plan.endpoints}
    keys: Mapping[int, str] = {r.row: r.key(addresses[r.route]) for r in asked}
    if options.cache:  # rows that ask the same are asked once
        asked = list({keys[r.row]: r for r in reversed(asked)}.values())[::-1]
    if options.refresh:
        return asked
    before = history.log().answers(plan.continues) if plan.continues else {}
    mine = {row for row, (key, outcome) in before.items() if outcome.status == "ok" and key is not None and key == keys.get(row)}
    found = history.log().cached(list(set(keys.values()))) if options.cache else {}
    return [r for r in asked if r.row not in mine and keys[r.row] not in found]


def _lead(messages: Sequence[Message]) -> tuple[str, str]:
    """What makes two prompts of one kind: their system prompt, and how they begin."""
    said = tuple(messages)
    system = "\n".join(m.content for m in said if m.role == "system")
    return system, Prompt(said).text[:LEAD]


def _enough(seen: list[Seen]) -> list[Seen]:
    """Routes of which too little was seen say nothing: an estimate from three answers would only look exact."""
    routes: dict[Route, int] = {}
    for one in seen:
        routes[one.route] = routes.get(one.route, 0) + 1
    return [s for s in seen if routes[s.route] >= 8]
