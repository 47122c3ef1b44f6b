"""What providers' prompt caches saved: the tokens of answers at their price with nothing cached, less what they cost.

A fold of outcomes; prints nothing.
"""

from __future__ import annotations

from decimal import Decimal

from holynb.pricing import prices
from holynb.results.costs import dollars, is_pool
from holynb.types import Outcome, Route, Usage

__all__ = ["CacheSavings", "saved_words"]


class CacheSavings:
    """The fold of a run's outcomes. Counts add up by the rates that they are billed at, so that a row costs no arithmetic of dollars."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, str | None], prices.Price | None] = {}
        self._counts: dict[int, tuple[prices.Rates, list[int]]] = {}

    def add(self, outcome: Outcome) -> None:
        """Fold an outcome; one that the run log answered, or a pool, had nothing to pay."""
        usage, route = outcome.usage, outcome.route
        read, written = usage.tokens_cached or 0, usage.tokens_cache_write or 0
        if not (read or written) or outcome.cached or route is None or is_pool(route):
            return
        if (route, outcome.model) not in self._prices:
            self._prices[route, outcome.model] = prices.list_price(Route.parse(route), outcome.model)
        price = self._prices[route, outcome.model]
        if price is not None and outcome.tier not in (None, "standard"):
            price = price.service.get(outcome.tier or "")
        if price is None:
            return
        rates = price.rates_for(usage.tokens_in or 0)
        counts = self._counts.setdefault(id(rates), (rates, [0, 0, 0]))[1]
        for i, n in enumerate((read, written, usage.tokens_cache_write_1h or 0)):
            counts[i] += n

    @property
    def dollars(self) -> Decimal | None:
        """Negative where what was written was not read; None where nothing was cached, or no price is known."""
        sums = [
            (rates.cost(Usage(read + written, 0)), rates.cost(Usage(read + written, 0, read, written, tokens_cache_write_1h=hour)))
            for rates, (read, written, hour) in self._counts.values()
        ]
        known = [full - paid for full, paid in sums if full is not None and paid is not None]
        return sum(known, Decimal(0)) if known else None


def saved_words(amount: Decimal | None) -> str:
    """`$0.42 saved by the prompt cache`; what it cost where nothing was saved; `""` where nothing was cached."""
    if not amount:
        return ""
    return f"{dollars(amount)} saved by the prompt cache" if amount > 0 else f"{dollars(-amount)} more for the prompt cache"
