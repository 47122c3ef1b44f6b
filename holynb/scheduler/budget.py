"""A hard cap on what a run may spend: the worst case of every attempt is reserved before it goes out. Owned by the io thread.

`spent + reserved` never exceeds the cap. What a server bills beyond its own tokenizer's bound is more than was reserved, and is
reported as `overrun`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

from holynb.errors import Fault
from holynb.types import Request, Route, Usage

__all__ = ["FREE", "Budget", "Money"]

#: Faults that a server answers before it does any work: they cost nothing. After any other, unknown usage counts as its reservation.
FREE = frozenset({"rate_limit", "quota", "auth", "context_length", "bad_request", "not_found", "connection", "budget", "content_filter"})


class Budget:
    """Dollars. `reserve` waits while attempts in flight may still give some back, and says False when they cannot give enough."""

    def __init__(self, cap: Decimal) -> None:
        self.cap = cap
        self.spent = Decimal(0)
        self.reserved = Decimal(0)
        self.overrun = Decimal(0)
        self._changed = asyncio.Event()

    async def reserve(self, worst: Decimal) -> bool:
        """Set `worst` aside. False where it does not fit and nothing in flight can make room: the row must not be sent."""
        while self.spent + self.reserved + worst > self.cap:
            if self.reserved <= 0 or self.spent + worst > self.cap:
                return False
            self._changed.clear()
            await self._changed.wait()
        self.reserved += worst
        return True

    def settle(self, worst: Decimal, cost: Decimal | None) -> None:
        """An attempt is over: `cost` is what it came to, None where nobody knows (it then counts as what was set aside)."""
        self.reserved -= worst
        known = worst if cost is None else cost
        self.spent += known
        if known > worst:
            self.overrun += known - worst
        self._changed.set()


class Money:
    """What attempts cost: `price` of an answer, `worst` of a request (None: nobody knows), and the run's budget, if it has one."""

    def __init__(
        self,
        price: Callable[[Route, str | None, Usage], Decimal | None],
        worst: Callable[[Request, Route], Decimal | None] = lambda request, route: Decimal(0),
        budget: Budget | None = None,
    ) -> None:
        self.price = price
        self.worst = worst
        self.budget = budget

    def settle(self, worst: Decimal, cost: Decimal | None) -> None:
        """An attempt is over; without a budget there is nothing to settle. What nothing was set aside for (a pool's time) spends nothing."""
        if self.budget is not None:
            self.budget.settle(worst, cost if worst else Decimal(0))

    def refuses(self, request: Request, route: Route) -> Fault | None:
        """Why a request can never be sent: what is left of the budget does not hold it, and what is spent does not come back. Else None."""
        if self.budget is None:
            return None
        worst = self.worst(request, route)
        fits = worst is not None and self.budget.spent + worst <= self.budget.cap
        return None if fits else self.refusal(worst)

    def refusal(self, worst: Decimal | None) -> Fault:
        """Why an attempt is not sent."""
        if self.budget is None or worst is None:
            return Fault("budget", 'not sent: its price is not known, so no budget can hold it ([price."ROUTE"] in config.toml)')
        left = self.budget.cap - self.budget.spent
        cap = f"{self.budget.cap.normalize():f}"
        return Fault(
            "budget",
            f"not sent: it could cost up to ${worst:.6f}, and ${left:.6f} of the budget of ${cap} is left: raise --budget, or lower --max-tokens",
        )
