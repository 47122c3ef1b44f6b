"""What a run will cost before it runs: a range of tokens and dollars. Pure; guesses where nothing was measured, and says which it did.

Without a measured answer, input lies between the extremes of known tokenizers and output anywhere up to `max_tokens`. With some answers
of the same route (earlier rows, the run log, a few rows sent first) both follow what the server counted, and the range is their spread.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from holynb.pricing import prices
from holynb.prompts import tokens
from holynb.types import Message, Request, Route, Usage

__all__ = ["Estimate", "MeasuredAnswer", "estimate"]

#: Tokens that a chat template puts around a message, least and most: some bring a system prompt of their own.
AROUND = (3, 40)
#: Answers needed before they count, and how many standard errors the range reaches to each side (99 in 100, were they normal).
FEW, SIGMAS = 3, 2.6
#: A range is never narrower than this to each side: the rows seen are not the rows to come.
LEAST_SPREAD = 0.04


@dataclass(frozen=True, slots=True)
class MeasuredAnswer:
    """An answer that was counted: what was asked of which route, and the server's usage."""

    route: Route
    messages: Sequence[Message]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Estimate:
    """Ranges (low, high) over `rows` requests. `cost` is None where a price is unknown; `unpriced` names those routes. `seen`: answers used."""

    rows: int
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[Decimal, Decimal] | None
    unpriced: tuple[Route, ...] = ()
    measured: int = 0

    def seconds(self, rpm: int | None, tpm: int | None) -> float | None:
        """Shortest time that limits of requests and tokens a minute allow; None without a limit."""
        needs = [amount * 60 / limit for amount, limit in ((self.rows, rpm), (self.tokens_in[1] + self.tokens_out[1], tpm)) if limit]
        return max(needs, default=None)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Of one route: the server's count over ours, and tokens of an answer; each low and high for a mean over the rows to come."""

    ratio: tuple[float, float]
    answer: tuple[float, float]
    n: int


def estimate(requests: Iterable[Request | None], seen: Iterable[MeasuredAnswer] = ()) -> Estimate:
    """The range for these requests; a row that asks nothing counts nothing."""
    asked = [r for r in requests if r is not None]
    by_route: dict[Route, list[MeasuredAnswer]] = {}
    for one in seen:
        by_route.setdefault(one.route, []).append(one)
    rows: dict[Route, int] = {}
    for request in asked:
        rows[request.route] = rows.get(request.route, 0) + 1
    measured = {route: _measured(by_route.get(route, ()), n) for route, n in rows.items()}
    ends = [_row(request, measured[request.route]) for request in asked]
    unpriced = tuple(route for route in rows if prices.price(route, None, Usage(1, 1)) is None)
    return Estimate(
        len(asked),
        (sum(low.tokens_in or 0 for low, _ in ends), sum(high.tokens_in or 0 for _, high in ends)),
        (sum(low.tokens_out or 0 for low, _ in ends), sum(high.tokens_out or 0 for _, high in ends)),
        None if unpriced else (_cost(asked, [low for low, _ in ends]), _cost(asked, [high for _, high in ends])),
        unpriced,
        sum(m.n for m in measured.values() if m is not None),
    )


def _row(request: Request, measured: _Measured | None) -> tuple[Usage, Usage]:
    longest = request.sampling.max_tokens or 0
    if measured is None:
        low, high = (
            sum(count(m.content) + around for m in request.messages)
            for count, around in ((tokens.count_low, AROUND[0]), (tokens.count_high, AROUND[1]))
        )
        return Usage(low, min(1, longest)), Usage(high, longest)
    ours = _ours(request.messages)
    ends = [Usage(round(ours * r), min(round(a), longest or round(a))) for r, a in zip(measured.ratio, measured.answer, strict=True)]
    return ends[0], ends[1]


def _ours(messages: Sequence[Message]) -> int:
    return sum(tokens.count_typical(m.content) + AROUND[0] for m in messages)


def _measured(seen: Sequence[MeasuredAnswer], rows: int) -> _Measured | None:
    known = [(s, s.usage.tokens_in, s.usage.tokens_out) for s in seen]
    ratios = [a / max(1, _ours(s.messages)) for s, a, _ in known if a is not None]
    answers = [float(b) for _, _, b in known if b is not None]
    if min(len(ratios), len(answers)) < FEW:
        return None
    return _Measured(_mean(ratios, rows), _mean(answers, rows), min(len(ratios), len(answers)))


def _mean(values: Sequence[float], rows: int) -> tuple[float, float]:
    """Where the mean of `rows` further values will lie."""
    middle = statistics.fmean(values)
    # The mean of those seen is off by one error, the mean of those to come by another.
    error = SIGMAS * statistics.stdev(values) * math.sqrt(1 / len(values) + 1 / rows)
    spread = max(error, LEAST_SPREAD * middle)
    return max(0.0, middle - spread), middle + spread


def _cost(requests: Sequence[Request], usages: Sequence[Usage]) -> Decimal:
    costs = (prices.price(r.route, None, u) for r, u in zip(requests, usages, strict=True))
    return sum((c for c in costs if c is not None), Decimal(0))
