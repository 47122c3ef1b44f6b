"""A hard cap on what a run may spend: the worst case of every attempt is reserved before it is sent. Owned by the io thread.

`spent + reserved` never exceeds the cap. A server that bills beyond its own tokenizer's bound exceeds the reservation; the excess is
reported as `overrun`. A process that is killed forgets what it had under way: so how much may be gone by now is written down before more
is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

from holynb.errors import Fault
from holynb.types import Request, Route, Usage

__all__ = ["Budget", "Hold", "Money"]

#: Writes down dollars that may be gone by now. Returns something to wait for until it is on disk.
Hold = Callable[[Decimal], "Awaitable[None] | None"]

#: Parts of the cap by which what is written down is ahead of what may be gone: so many writes a run, and so much less is left after a kill.
STEPS = 50


class Budget:
    """Dollars: `cap`, `spent`, `reserved` by attempts in flight, and `overrun`. `before`: of `spent`, what a run that goes on had spent.

    `hold`: writes down how much may be gone; without it nothing is.
    """

    def __init__(self, cap: Decimal, before: Decimal = Decimal(0), hold: Hold | None = None) -> None:
        self.cap = cap
        self.spent = self.before = before
        self.reserved = Decimal(0)
        self.overrun = Decimal(0)
        self._changed = asyncio.Event()
        self._hold, self._held = hold, Decimal(0)
        self._writing: asyncio.Future[None] | None = None

    async def reserve(self, worst_case: Decimal) -> bool:
        """Reserve `worst_case`, waiting while attempts in flight may release enough, and until that is written down.

        Returns False where they cannot: do not send.
        """
        while self.spent + self.reserved + worst_case > self.cap:
            if self.reserved <= 0 or self.spent + worst_case > self.cap:
                return False
            self._changed.clear()
            await self._changed.wait()
        self.reserved += worst_case
        try:
            await self._write_down()
        except BaseException:
            self.settle(worst_case, Decimal(0))
            raise
        return True

    def settle(self, worst_case: Decimal, cost: Decimal | None) -> None:
        """Replace an attempt's reservation by its `cost`; None (unknown) counts as the whole reservation."""
        self.reserved -= worst_case
        amount = worst_case if cost is None else cost
        self.spent += amount
        if amount > worst_case:
            self.overrun += amount - worst_case
        self._changed.set()

    async def _write_down(self) -> None:
        """What is on disk stays at or above what may be gone, and not far above."""
        if self._hold is None:
            return
        gone, step = self.spent + self.reserved, self.cap / STEPS
        if not gone <= self._held <= gone + 2 * step:
            self._held = max(gone, min(gone + step, self.cap))
            written = self._hold(self._held)
            self._writing = None if written is None else asyncio.ensure_future(written)
        if self._writing is not None and not self._writing.done():
            await asyncio.shield(self._writing)  # others wait for it, too


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
