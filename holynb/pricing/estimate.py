"""Estimates of a run before it is sent: a range of tokens and dollars. Pure.

Without a measured answer, input lies between the extremes of known tokenizers and output anywhere up to `max_tokens`. With some answers
of the same route (earlier rows, the run log, a few rows sent first) both follow what the server counted, and the range is their spread.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from holynb import attachments
from holynb.pricing import prices
from holynb.prompts import tokens
from holynb.types import Message, Request, Route, Usage

__all__ = ["Estimate", "MeasuredAnswer", "estimate"]

#: Tokens that a chat template adds to a message, lowest and highest: some bring a system prompt of their own.
TEMPLATE_TOKENS = (3, 40)
#: What is put around a text that is embedded: nothing, or a mark at its beginning and its end.
MARK_TOKENS = (0, 2)
#: Fewest answers that are used, and the standard errors of the range to each side (99 %, were they normally distributed).
MIN_ANSWERS, RANGE_SIGMAS = 3, 2.6
#: Least half-width of a range, as a share of its middle: the rows measured are not the rows to come.
MIN_SPREAD = 0.04


@dataclass(frozen=True, slots=True)
class MeasuredAnswer:
    """An answer with the usage that the server counted."""

    route: Route
    messages: Sequence[Message]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Estimate:
    """Ranges (low, high) over `rows` requests. `cost` is None where `unpriced` names routes without a price. `measured`: answers used."""

    rows: int
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[Decimal, Decimal] | None
    unpriced: tuple[Route, ...] = ()
    measured: int = 0

    def seconds(self, rpm: int | None, tpm: int | None) -> float | None:
        """Shortest time within limits of requests and tokens per minute; None without a limit."""
        needs = [amount * 60 / limit for amount, limit in ((self.rows, rpm), (self.tokens_in[1] + self.tokens_out[1], tpm)) if limit]
        return max(needs, default=None)


@dataclass(frozen=True, slots=True)
class _Measurement:
    """One route: the server's count of a prompt over ours, and tokens per answer; each the range of the mean over the rows to come."""

    ratio: tuple[float, float]
    answer: tuple[float, float]
    n: int


def estimate(
    requests: Iterable[Request | None],
    measured_answers: Iterable[MeasuredAnswer] = (),
    billed: Callable[[Route], Sequence[str]] = lambda route: (),
) -> Estimate:
    """The estimate for these requests. None is a row that is not sent. `billed`: the service tiers a route's answers may be billed at."""
    sent = [r for r in requests if r is not None]
    by_route: dict[Route, list[MeasuredAnswer]] = {}
    for answer in measured_answers:
        by_route.setdefault(answer.route, []).append(answer)
    rows: dict[Route, int] = {}
    for request in sent:
        rows[request.route] = rows.get(request.route, 0) + 1
    measurements = {route: _measure(by_route.get(route, ()), n) for route, n in rows.items()}
    ranges = [_range(request, measurements[request.route]) for request in sent]
    tiers: dict[Route, Sequence[str | None]] = {route: billed(route) or (None,) for route in rows}
    unpriced = tuple(route for route in rows if any(prices.price(route, None, Usage(1, 1), tier=t) is None for t in tiers[route]))
    return Estimate(
        len(sent),
        (sum(low.tokens_in or 0 for low, _ in ranges), sum(high.tokens_in or 0 for _, high in ranges)),
        (sum(low.tokens_out or 0 for low, _ in ranges), sum(high.tokens_out or 0 for _, high in ranges)),
        None
        if unpriced
        else (_total_cost(sent, [low for low, _ in ranges], tiers, min), _total_cost(sent, [high for _, high in ranges], tiers, max)),
        unpriced,
        sum(m.n for m in measurements.values() if m is not None),
    )


def _range(request: Request, measurement: _Measurement | None) -> tuple[Usage, Usage]:
    max_tokens = request.sampling.max_tokens or 0
    around = TEMPLATE_TOKENS if request.embedding is None else MARK_TOKENS
    if measurement is None:
        low, high = (
            sum(count(m.content) + overhead for m in request.messages)
            for count, overhead in ((tokens.count_low, around[0]), (tokens.count_high, around[1]))
        )
        seen = _attached(request.route, request.messages)
        return Usage(low + seen[0], min(1, max_tokens)), Usage(high + seen[1], max_tokens)
    typical = _typical_tokens(request.route, request.messages)
    ends = [
        Usage(round(typical * r), min(round(a), max_tokens or round(a))) for r, a in zip(measurement.ratio, measurement.answer, strict=True)
    ]
    return ends[0], ends[1]


def _typical_tokens(route: Route, messages: Sequence[Message]) -> int:
    text = sum(tokens.count_typical(m.content) + TEMPLATE_TOKENS[0] for m in messages)
    return text + sum(_attached(route, messages)) // 2


def _attached(route: Route, messages: Sequence[Message]) -> tuple[int, int]:
    """The fewest and the most tokens of the messages' attachments, by the rule of the model's vendor."""
    counts = [attachments.tokens(route.model, a) for m in messages for a in m.attachments]
    return sum(low for low, _ in counts), sum(high for _, high in counts)


def _measure(answers: Sequence[MeasuredAnswer], rows: int) -> _Measurement | None:
    counts = [(s, s.usage.tokens_in, s.usage.tokens_out) for s in answers]
    ratios = [a / max(1, _typical_tokens(s.route, s.messages)) for s, a, _ in counts if a is not None]
    lengths = [float(b) for _, _, b in counts if b is not None]
    if min(len(ratios), len(lengths)) < MIN_ANSWERS:
        return None
    return _Measurement(_mean_range(ratios, rows), _mean_range(lengths, rows), min(len(ratios), len(lengths)))


def _mean_range(values: Sequence[float], rows: int) -> tuple[float, float]:
    """The range of the mean of `rows` further values."""
    middle = statistics.fmean(values)
    # The mean of the sample has one error, the mean of the rows to come another.
    error = RANGE_SIGMAS * statistics.stdev(values) * math.sqrt(1 / len(values) + 1 / rows)
    spread = max(error, MIN_SPREAD * middle)
    return max(0.0, middle - spread), middle + spread


def _total_cost(
    requests: Sequence[Request],
    usages: Sequence[Usage],
    tiers: Mapping[Route, Sequence[str | None]],
    choose: Callable[[list[Decimal]], Decimal],
) -> Decimal:
    """The sum over the requests, each at the tier that `choose` takes of those it may be billed at."""
    priced = ([prices.price(r.route, None, u, tier=t) for t in tiers[r.route]] for r, u in zip(requests, usages, strict=True))
    return sum((choose(known) for costs in priced if (known := [c for c in costs if c is not None])), Decimal(0))
