"""A hard cap on what a run may spend: the worst case of every attempt is reserved before it is sent. Owned by the io thread.

`spent + reserved` never exceeds the cap. A server that bills beyond its own tokenizer's bound exceeds the reservation; the excess is
reported as `overrun`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

from holynb.errors import Fault
from holynb.types import Request, Route, Usage

__all__ = ["Budget", "Money"]


class Budget:
    """Dollars: `cap`, `spent`, `reserved` by attempts in flight, and `overrun`. `before`: of `spent`, what a run that goes on had spent."""

    def __init__(self, cap: Decimal, before: Decimal = Decimal(0)) -> None:
        self.cap = cap
        self.spent = self.before = before
        self.reserved = Decimal(0)
        self.overrun = Decimal(0)
        self._changed = asyncio.Event()

    async def reserve(self, worst_case: Decimal) -> bool:
        """Reserve `worst_case`, waiting while attempts in flight may release enough. Returns False where they cannot: do not send."""
        while self.spent + self.reserved + worst_case > self.cap:
            if self.reserved <= 0 or self.spent + worst_case > self.cap:
                return False
            self._changed.clear()
            await self._changed.wait()
        self.reserved += worst_case
        return True

    def settle(self, worst_case: Decimal, cost: Decimal | None) -> None:
        """Replace an attempt's reservation by its `cost`; None (unknown) counts as the whole reservation."""
        self.reserved -= worst_case
        amount = worst_case if cost is None else cost
        self.spent += amount
        if amount > worst_case:
            self.overrun += amount - worst_case
        self._changed.set()


#: Dollars of an answer of a route: the model as the server named it, its usage, and the service tier where the reply names one.
Price = Callable[[Route, str | None, Usage, str | None], Decimal | None]


class Money:
    """What attempts cost: `price` of an answer, `worst_case` of a request (None: unknown), and the run's budget, if it has one."""

    def __init__(
        self,
        price: Price,
        worst_case: Callable[[Request, Route], Decimal | None] = lambda request, route: Decimal(0),
        budget: Budget | None = None,
    ) -> None:
        self.price = price
        self.worst_case = worst_case
        self.budget = budget

    def settle(self, worst_case: Decimal, cost: Decimal | None) -> None:
        """Settle with the budget, if there is one. An attempt without a reservation (a pool's time) spends nothing of it."""
        if self.budget is not None:
            self.budget.settle(worst_case, cost if worst_case else Decimal(0))

    def check(self, request: Request, route: Route) -> Fault | None:
        """The Fault for a request that the rest of the budget can never cover, whatever is released; else None."""
        if self.budget is None:
            return None
        worst_case = self.worst_case(request, route)
        fits = worst_case is not None and self.budget.spent + worst_case <= self.budget.cap
        return None if fits else self.refusal(worst_case)

    def refusal(self, worst_case: Decimal | None) -> Fault:
        """The Fault of an attempt that the budget does not cover."""
        if self.budget is None or worst_case is None:
            return Fault("budget", 'not sent: its price is not known, so no budget can cover it ([price."ROUTE"] in config.toml)')
        left = max(Decimal(0), self.budget.cap - self.budget.spent)
        cap = f"{self.budget.cap.normalize():f}"
        before = f" (${self.budget.before:.6f} was spent before by this run)" if self.budget.before else ""
        return Fault(
            "budget",
            f"not sent: it could cost up to ${worst_case:.6f}, but only ${left:.6f} of the budget of ${cap} is left{before}: raise --budget, or lower --max-tokens",
        )
