"""How many rows a `--budget` covers, and how many it lets run at once: each reserves its longest answer. Sends nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

from holynb import runlog
from holynb.config.model_traits import HOSTED_MAX_TOKENS
from holynb.results import dollars
from holynb.run import assembly, billing
from holynb.run.plan import Plan, traits
from holynb.run.quote import Quote
from holynb.types import Request
from holynb.words import counted

__all__ = ["coverage", "left", "line"]

#: With fewer rows at once a line says so: a provider takes more, so the run is slower than it need be.
FEW = 8


def line(plan: Plan, due: Iterable[Request]) -> str:
    """What to say where the long default answer of a model that thinks lets the budget hold fewer rows; empty where it does not."""
    if plan.options.budget is None:
        return ""
    long = [r for r in due if r.default_limit and (r.sampling.max_tokens or 0) > HOSTED_MAX_TOKENS and r.route.provider != "pool"]
    worst_case = billing.worst_case(plan)
    dearest = max(long, key=lambda r: worst_case(r, r.route) or Decimal(0), default=None)
    if dearest is None or not (each := worst_case(dearest, dearest.route)):
        return ""
    shorter = worst_case(replace(dearest, sampling=replace(dearest.sampling, max_tokens=HOSTED_MAX_TOKENS)), dearest.route)
    budget, cap = left(plan)[0], min(len(long), plan.options.concurrency or FEW, FEW)
    now, then = (int(budget // amount) for amount in (each, shorter or each))
    if now >= cap or then <= now:
        return ""
    rows = f"{counted(now, 'row')} at once" if now else "no row"
    quieter = traits(dearest.route).quieter(dearest.sampling.think)
    less = f"--think {quieter} --max-tokens" if quieter else "--max-tokens"
    return (
        f"The budget of {dollars(budget)} holds {rows}: {dearest.route} thinks, so each reserves an answer of "
        f"{dearest.sampling.max_tokens or 0:,} tokens ({dollars(each)}). With {less} {HOSTED_MAX_TOKENS} it holds {then:,}."
    )


def coverage(plan: Plan, forecast: Quote) -> str:
    """How many of the rows still to be sent the budget covers: for sure, and where answers like them are known, as long as those were.

    Empty without a budget, and where nothing is spent. Rows that a judge grades or that are asked in chunks cost more than their own
    request, so of them only the whole is said.
    """
    if plan.options.budget is None or forecast.free or not forecast.rows or forecast.range is None:
        return ""
    (budget, spent), n = left(plan), forecast.rows
    before = f", of which {dollars(spent)} was spent before by this run" if spent else ""
    if plan.judge is not None or plan.rows.long:
        most = forecast.range[1]
        return (
            f"Budget: {dollars(budget + spent)}{before}; the whole may cost {dollars(most)}, and what it does not cover is not sent."
            if most > budget
            else ""
        )
    whole = dearest = Decimal(0)
    sure = 0
    for amount in _worst_cases(plan, forecast.due):
        whole, dearest = whole + amount, max(dearest, amount)
        sure += whole <= budget
    if whole <= budget:
        return f"Budget: {dollars(budget + spent)}{before} covers {_all(n)}, which cost {dollars(whole)} at worst."
    likely = ""
    if forecast.estimate.measured:
        # A row is sent while its own worst case is left; those before it have cost what answers like them did.
        fewest, most_rows = (
            min(n, int((budget - dearest) * n // cost) + 1 if budget >= dearest else 0) for cost in reversed(forecast.range)
        )
        likely = f" With answers as long as those so far it covers {_all(n) if fewest == n else _between(fewest, most_rows)}."
    head = f"Budget: {dollars(budget + spent)}{before} is sure to cover {sure:,} of {counted(n, 'row')}: at worst {dollars(dearest)} each, {dollars(whole)} in all."
    return f"{head}{likely} What it does not cover is not sent."


def left(plan: Plan) -> tuple[Decimal, Decimal]:
    """Dollars that are left of the plan's budget, below 0 where the run it goes on with has spent more; and what that has spent."""
    spent = Decimal(0)
    if plan.earlier.run is not None:
        with suppress(sqlite3.Error):  # a log that cannot be read has no run to go on with
            spent = billing.before(plan, runlog.log(), plan.earlier.run).gone
    return Decimal(str(plan.options.budget)) - spent, spent


def _worst_cases(plan: Plan, due: Iterable[Request]) -> Iterator[Decimal]:
    """What each request may cost at most, as the run will reserve it."""
    worst_case = billing.worst_case(plan)
    validator = assembly.validator(plan)
    for request in due:
        yield worst_case(request if validator is None else validator.prepare(request, request.route), request.route) or Decimal(0)


def _all(n: int) -> str:
    return "the row" if n == 1 else f"all {n:,} rows"


def _between(fewest: int, most: int) -> str:
    return counted(most, "row") if fewest == most else f"{fewest:,} to {counted(most, 'row')}"
