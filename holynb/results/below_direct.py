"""What answers by batch cost less than they would have directly. Folds outcomes, prints nothing."""

from __future__ import annotations

from decimal import Decimal

from holynb.pricing import prices
from holynb.types import Outcome, Route

__all__ = ["BelowDirect"]


class BelowDirect:
    """How much less the answers that batches gave cost than at the standard price of their models. `saved`: None where there is none."""

    def __init__(self) -> None:
        self.saved: Decimal | None = None
        self._listed: dict[tuple[str, str | None], prices.Price | None] = {}

    def add(self, o: Outcome) -> None:
        """Add a row that has ended."""
        if o.tier != "batch" or o.status != "ok" or o.cost is None or o.route is None or o.attempts != 1:
            return
        if (o.route, o.model) not in self._listed:
            self._listed[o.route, o.model] = prices.list_price(Route.parse(o.route), o.model)
        price = self._listed[o.route, o.model]
        direct = None if price is None else price.cost(o.usage)
        if direct is not None:
            self.saved = (self.saved or Decimal(0)) + direct - o.cost
