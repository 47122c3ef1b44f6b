"""How many rows a `--budget` lets run at once: each reserves its longest answer, which is long where a model thinks. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from holynb.config.model_traits import HOSTED_MAX_TOKENS
from holynb.results import dollars
from holynb.run import assembly
from holynb.run.plan import Plan, traits
from holynb.types import Request
from holynb.words import counted

__all__ = ["line"]

#: With fewer rows at once a line says so: a provider takes more, so the run is slower than it need be.
FEW = 8


def line(plan: Plan, due: Iterable[Request]) -> str:
    """What to say where the long default answer of a model that thinks lets the budget hold fewer rows; empty where it does not."""
    if plan.options.budget is None:
        return ""
    long = [r for r in due if r.default_limit and (r.sampling.max_tokens or 0) > HOSTED_MAX_TOKENS and r.route.provider != "pool"]
    worst_case = assembly.money(plan, lambda _: None, batch=plan.options.batch).worst_case
    dearest = max(long, key=lambda r: worst_case(r, r.route) or Decimal(0), default=None)
    if dearest is None or not (each := worst_case(dearest, dearest.route)):
        return ""
    shorter = worst_case(replace(dearest, sampling=replace(dearest.sampling, max_tokens=HOSTED_MAX_TOKENS)), dearest.route)
    budget, cap = Decimal(str(plan.options.budget)), min(len(long), plan.options.concurrency or FEW, FEW)
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
