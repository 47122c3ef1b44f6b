"""What the attempts of a run cost, and what they may: prices, the worst case of a request, the budget, and what was spent before."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import NamedTuple, Protocol

from holynb.config import settings, suggest
from holynb.config.model_traits import HOSTED_MAX_TOKENS
from holynb.pricing import prices, spending
from holynb.results import dollars
from holynb.run import service_tiers
from holynb.run.plan import Plan
from holynb.runlog import RunLog
from holynb.scheduler import Budget, Money
from holynb.types import Request, Route, Usage

__all__ = ["NOTHING", "Account", "Before", "WorstCase", "before", "in_all", "money", "unpriced", "worst_case"]

#: The most that a request may cost on a route; None where that is not known.
WorstCase = Callable[[Request, Route], Decimal | None]


class Before(NamedTuple):
    """Dollars of a run's budget that are gone when it goes on.

    spent:  what its answers and attempts cost; one of unknown cost counts as the most that it may have cost.
    unseen: the most that attempts cost which were under way when its process was killed: nobody wrote down what became of them.
    killed: whether the last that worked on it was killed.
    """

    spent: Decimal = Decimal(0)
    unseen: Decimal = Decimal(0)
    killed: bool = False

    @property
    def gone(self) -> Decimal:
        """Both together."""
        return self.spent + self.unseen


NOTHING = Before()


class Account(Protocol):
    """Where a run's dollars are written down."""

    @property
    def before(self) -> Before:
        """What was gone when the run went on."""

    def hold(self, dollars: Decimal) -> Awaitable[None] | None:
        """Write down the most that may be gone by now. Returns something to wait for until it is on disk."""


def money(plan: Plan, notice: Callable[[str], None], account: Account | None = None, *, batch: bool = False) -> Money:
    """Prices, and the budget where there is one. A pool spends nothing. `notice`: told once of each service tier that has no price.

    `batch`: of what is sent by batch, which the log knows of anyhow.
    """
    price = _Prices(notice)
    if plan.options.budget is None:
        return Money(price)
    before = account.before if account is not None else NOTHING
    budget = Budget(Decimal(str(plan.options.budget)), before.gone, account.hold if account is not None and not batch else None)
    if before.gone and plan.earlier.run is not None:
        notice(_counts(before, budget.cap))
    return Money(price, worst_case(plan, batch=batch), budget)


def worst_case(plan: Plan, *, batch: bool | None = None) -> WorstCase:
    """The most that a request of this plan may cost. `batch`: sent by batch, which is as the plan says unless told."""
    endpoints = {e.route: e for e in plan.targets.endpoints}
    by_batch = plan.options.batch if batch is None else batch

    def worst(request: Request, route: Route) -> Decimal | None:
        if route.provider == "pool":
            return Decimal(0)
        longest, extra = request.sampling.max_tokens or HOSTED_MAX_TOKENS, request.sampling.extra
        if request.embedding is not None:
            return prices.worst_case(route, request.messages, 0, texts=len(request.messages))
        first = service_tiers.offered(endpoints[route], request.tiers)[:1] if request.tiers else ()
        tiers = ("batch",) if by_batch else service_tiers.billed(endpoints[route], first) if first else ()
        hour = {"cache_control": {"ttl": "1h"}} if request.cache is not None and request.cache.hour else {}
        return prices.worst_case(route, request.messages, longest, {**extra, **hour}, tiers)

    return worst


def before(plan: Plan, log: RunLog | None, run: str) -> Before:
    """What is gone of the budget of the run of this id, all its attempts. Nothing without a log that can be read, or where nobody asks.

    Raises sqlite3.Error.
    """
    if log is None or (held := spending.held(log, run)) is None:
        return NOTHING
    if plan.options.budget is None and held.now is None:
        return NOTHING
    paid, worst, requests = spending.paid(log, run), worst_case(plan), plan.rows.requests
    unknown = ((requests[row], times) for row, times in paid.unknown.items() if row < len(requests))
    spent = sum((times * (worst(r, r.route) or Decimal(0)) for r, times in unknown if r is not None), paid.known)
    unseen = max(held.unseen, (held.now or Decimal(0)) - spent)
    return Before(spent, unseen, held.now is not None)


def in_all(log: RunLog, run: str) -> tuple[Decimal | None, tuple[int, int]]:
    """Dollars of all attempts of a run, None where there are none, and their tokens in and out. Raises sqlite3.Error."""
    return spending.paid(log, run).known or None, spending.tokens(log, run)


def unpriced(plan: Plan) -> Iterator[str]:
    """What to say of each route whose cost will not be known."""
    for endpoint in plan.targets.endpoints:
        if endpoint.wire not in ("pool", "sim") and prices.list_price(endpoint.route, None) is None:
            near = suggest.model(endpoint.route, settings.providers())
            yield f"No price is known for {endpoint.route}, so its cost is shown as ?.{near} {prices.how_to_set(endpoint.route)}"


def _counts(before: Before, cap: Decimal) -> str:
    """What to say of what was spent before."""
    counts = f"This run has spent {dollars(before.spent)} before, which counts"
    if before.unseen:
        counts = (
            f"This run has spent {dollars(before.spent)} before, and up to {dollars(before.unseen)} for what was under way when its kernel "
            "was killed; both count"
        )
    left = dollars(max(Decimal(0), cap - before.gone))
    return f"{counts}: {left} of --budget {cap.normalize():f} is left. A larger --budget sends more; under another --name it begins at 0."


class _Prices:
    """`prices.price` with the price of a model looked up once a second: the files behind it need not be looked at for every row."""

    FRESH_S = 1.0

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._unpriced: set[tuple[Route, str]] = set()
        self._known: dict[tuple[Route, str | None], prices.Price | None] = {}
        self._at = 0.0

    def __call__(self, route: Route, model: str | None, usage: Usage, tier: str | None = None) -> Decimal | None:
        now = time.time()
        if not 0 <= now - self._at <= self.FRESH_S:  # a clock may be set back
            self._known, self._at = {}, now
        if (route, model) not in self._known:
            self._known[route, model] = prices.list_price(route, model, now)
        listed = self._known[route, model]
        if listed is None:
            return None
        cost = listed.cost(usage, now, tier)
        if cost is None and tier is not None and (route, tier) not in self._unpriced and listed.cost(usage, now) is not None:
            self._unpriced.add((route, tier))
            self._notice(prices.no_tier_price(route, tier))
        return cost
