"""How a cost is said, once for every room: dollars, `?` where it is unknown, `free`, or marked as simulated. Pure."""

from __future__ import annotations

from decimal import Decimal

from holynb.faults import UNBILLED_KINDS
from holynb.types import SIMULATED as PROVIDERS
from holynb.types import Outcome, Route

__all__ = ["FREE", "SIMULATED", "UNKNOWN", "captioned", "cost_text", "dollars", "in_all", "is_pool", "is_simulated", "is_unsettled"]

UNKNOWN, FREE, SIMULATED = "?", "free", "simulated"


def cost_text(
    amount: Decimal | float | None,
    route: Route | str | None = None,
    *,
    unknown: int = 0,
    mark: bool = True,
    simulated: Decimal | None = None,
) -> str:
    """`$0.42`, `$0.42 + 3 unknown`, `$0.42 simulated`, `free` of a pool without a price, `?` where none is known, never `$0.00`.

    route: of all answers that are summed, if they have one. unknown: how many answers beside them have no known cost.
    mark: whether simulated dollars are told apart; not in a column whose heading or caption says so. simulated: how many of them are,
    where answers are summed that need not have one route.
    """
    if amount is None:
        return FREE if is_pool(route) else UNKNOWN
    share = simulated if simulated is not None else amount if is_simulated(route) else 0
    word = f" {'' if share == amount else 'partly '}{SIMULATED}" if mark and amount and share else ""
    return dollars(amount) + word + (f" + {unknown:,} unknown" if unknown else "")


def captioned(text: str) -> str:
    """A cost as a part of a line, where nothing says that it is one: `cost ?`, and dollars as they are."""
    return f"cost {text}" if text == UNKNOWN else text


def in_all(cost: Decimal | None, tokens: tuple[int, int] | None, answers: tuple[int, int]) -> str:
    """`this run cost $0.42 in all, 300 + 80 tokens`, where a run has cost more, or taken more tokens, than its answers now."""
    counts = f"{tokens[0]:,} + {tokens[1]:,} tokens" if tokens is not None and (tokens[0] > answers[0] or tokens[1] > answers[1]) else ""
    if cost:
        return ", ".join(filter(None, [f"this run cost {dollars(cost)} in all", counts]))
    return counts and f"{counts} over all requests of this run"


def is_pool(route: Route | str | None) -> bool:
    """Whether a pool of one's own answers: what it costs is device time, and nothing where that has no price."""
    return str(route or "").startswith("pool/")


def is_simulated(route: Route | str | None) -> bool:
    """Whether the simulator or the demo answers, whose dollars nobody is billed."""
    return str(route or "").partition("/")[0] in PROVIDERS


def dollars(amount: Decimal | float | None) -> str:
    """`$0.000123`, `$0.42`, `$1,234.00`; `?` where unknown. Small sums keep two significant digits."""
    if amount is None:
        return UNKNOWN
    value = float(amount)
    if value == 0 or abs(value) >= 0.1:
        return f"${value:,.2f}"
    digits = 2
    while digits < 8 and abs(value) < 10 ** -(digits - 1):
        digits += 1
    return f"${value:.{digits}f}"


def is_unsettled(outcome: Outcome) -> bool:
    """Whether a row was sent and has no answer and no cost, though its server may bill one: it was stopped, or failed at work."""
    if outcome.cost is not None or not outcome.attempts or outcome.status not in ("error", "cancelled") or is_pool(outcome.route):
        return False
    return outcome.status == "cancelled" or outcome.error_type not in UNBILLED_KINDS
