"""Monthly cost of APIs against own GPUs, from a load, measured tokens a second and a price an hour. Pure arithmetic.

An API costs by the token; own GPUs cost by the hour, busy or not, and have a limited capacity. So there is a break-even load, unless a
token of fully used GPUs still costs more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from holynb.errors import BadOption
from holynb.pricing import prices
from holynb.types import Route

__all__ = ["ARTICLE", "OwnGpus", "Roi", "RoiLine", "Workload", "listed_routes", "parse_own", "parse_tokens", "roi", "round_dollars"]

DAYS = 30
#: The article's monthly figures for managed services; not measured here.
ARTICLE: tuple[tuple[str, Decimal], ...] = (("AWS SageMaker", Decimal(5000)), ("Azure OpenAI", Decimal(3000)))

Range = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class Workload:
    """A load: requests a day, tokens per request (low, high; input and output together), and the share of them that is output."""

    requests_per_day: float
    tokens: tuple[float, float]
    out_share: float = 0.5
    days: int = DAYS

    def __post_init__(self) -> None:
        low, high = self.tokens
        finite = all(math.isfinite(x) for x in (self.requests_per_day, low, high, self.out_share))
        if not finite or self.requests_per_day <= 0 or not 0 < low <= high or not 0 <= self.out_share <= 1:
            raise BadOption("A load is requests a day above 0, tokens such as 333..667, and a share of output between 0 and 1.")

    @property
    def month(self) -> Range:
        """Tokens a month."""
        low, high = (Decimal(str(self.requests_per_day)) * self.days * Decimal(str(t)) for t in self.tokens)
        return low, high


@dataclass(frozen=True, slots=True)
class OwnGpus:
    """Own GPUs that serve one model together: dollars an hour for each, tokens a second of all, the share of time in use.

    `tokens_per_s` is None where nothing was measured; `assumed` names what was not measured.
    """

    devices: int
    name: str
    per_device_hour: Decimal
    tokens_per_s: float | None = None
    utilisation: float = 0.5
    assumed: str = ""

    def __post_init__(self) -> None:
        speed = self.tokens_per_s
        if self.devices < 1 or not self.per_device_hour.is_finite() or self.per_device_hour <= 0 or not 0 < self.utilisation <= 1:
            raise BadOption("Own GPUs are at least one, at a price an hour above 0, used for a share of the time between 0 and 1.")
        if speed is not None and (not math.isfinite(speed) or speed <= 0):
            raise BadOption(f"Tokens a second are a number above 0, not {speed}.")

    def __str__(self) -> str:
        return f"{self.devices} × {self.name}"

    def month(self, days: int = DAYS) -> Decimal:
        """Dollars a month, busy or not."""
        return self.devices * self.per_device_hour * 24 * days

    def capacity(self, days: int = DAYS) -> Decimal | None:
        """Tokens a month at this utilisation."""
        return None if self.tokens_per_s is None else Decimal(str(self.tokens_per_s)) * Decimal(str(self.utilisation)) * 86_400 * days

    def sets(self, tokens: Decimal, days: int = DAYS) -> int:
        """Sets of such GPUs that a load of `tokens` a month needs; 1 where their speed is unknown."""
        capacity = self.capacity(days)
        return 1 if capacity is None else max(1, math.ceil(tokens / capacity))


@dataclass(frozen=True, slots=True)
class RoiLine:
    """One route. `month`: dollars (low, high). `saving`: the share of own GPUs' cost that the route saves, negative where they are cheaper.

    `break_even_requests`: requests a day from which own GPUs are cheaper, None where they never are (a second set, where one is full, may
    make the API cheaper again until that is used too). The three are None too where unknown.
    """

    route: Route
    input: Decimal | None
    output: Decimal | None
    month: Range | None
    saving: Range | None = None
    break_even_requests: int | None = None
    assumed: str = ""


@dataclass(frozen=True, slots=True)
class Roi:
    """The comparison. `own_month`: dollars (low, high) of as many sets as the load needs; `own_per_million`: dollars when fully used."""

    load: Workload
    lines: tuple[RoiLine, ...]
    own: OwnGpus | None
    own_month: Range | None
    own_per_million: Decimal | None
    advice: str


def roi(load: Workload, routes: Sequence[Route], own: OwnGpus | None = None) -> Roi:
    """A month of `load` on each route and on own GPUs, the break-even loads, and one sentence of advice."""
    own_month = None
    if own is not None:
        own_month = tuple(own.sets(tokens, load.days) * own.month(load.days) for tokens in load.month)
    own_range = None if own_month is None else (own_month[0], own_month[1])
    lines = tuple(_line(load, route, own, own_range) for route in routes)
    capacity = None if own is None else own.capacity(load.days)
    own_per_million = None if own is None or capacity is None else own.month(load.days) / capacity * prices.MILLION
    return Roi(load, lines, own, own_range, own_per_million, _advice(load, lines, own, own_range))


def _line(load: Workload, route: Route, own: OwnGpus | None, own_month: Range | None) -> RoiLine:
    price = prices.list_price(route)
    if price is None or price.input is None or price.output is None:
        return RoiLine(route, None, None, None)
    share = Decimal(str(load.out_share))
    per_token = (price.input * (1 - share) + price.output * share) / prices.MILLION
    month = (load.month[0] * per_token, load.month[1] * per_token)
    line = RoiLine(route, price.input, price.output, month, assumed=price.assumed)
    if own is None or own_month is None:
        return line
    saving = sorted(1 - m / o for m, o in zip(month, own_month, strict=True))
    return RoiLine(
        route, price.input, price.output, month, (saving[0], saving[1]), _break_even_requests(load, per_token, own), price.assumed
    )


def _break_even_requests(load: Workload, per_token: Decimal, own: OwnGpus) -> int | None:
    """Requests a day at which own GPUs cost as much as an API of `per_token` dollars; None where they never do."""
    if per_token <= 0:
        return None
    tokens = own.month(load.days) / per_token
    capacity = own.capacity(load.days)
    # If one set's capacity is below that load, two sets' is below twice of it: fully used GPUs cost more per token than the API.
    if capacity is not None and tokens > capacity:
        return None
    middle = Decimal(str(sum(load.tokens) / 2))
    return math.ceil(tokens / load.days / middle)


# -- advice ------------------------------------------------------------------------------------------------------------
def _advice(load: Workload, lines: Sequence[RoiLine], own: OwnGpus | None, own_month: Range | None) -> str:
    priced = [line for line in lines if line.month is not None]
    if not priced:
        return 'No price is known for these routes, so no advice is possible: set [price."ROUTE"] in config.toml.'
    cheapest = min(priced, key=lambda line: _high_end(line.month))
    monthly = _dollar_range(cheapest.month)
    if own is None or own_month is None:
        dearest = max(priced, key=lambda line: _high_end(line.month))
        if dearest is cheapest:
            return f"{cheapest.route} costs {monthly} a month; --own 4xA100-80GB --per-hour USD compares it with GPUs of your own."
        times = f"{_high_end(dearest.month) / _high_end(cheapest.month):.2g}" if _high_end(cheapest.month) else "many"
        return (
            f"Use {cheapest.route} where its quality suffices ({monthly} a month): {dearest.route} costs {times} × as much for "
            "the same tokens; --own compares both with GPUs of your own."
        )
    # At the middle of the load, as the table's break-even is: so the two never disagree.
    costlier = [line for line in priced if sum(line.month or ()) > sum(own_month)]
    if not costlier:
        return f"Stay with the API: {_reasons_for_api(cheapest, own, own_month)}."
    if len(costlier) == len(priced):
        return (
            f"Own GPUs: {own} cost {_dollar_range(own_month)} a month, less than {cheapest.route} at {monthly}"
            + (_needed_speed(load, own) or f", and carry the load at {own.utilisation:.0%} utilisation")
            + "."
        )
    names = ", ".join(str(line.route) for line in costlier)
    return (
        f"Stay with {cheapest.route} if its answers are good enough ({monthly} a month against {_dollar_range(own_month)} for {own}); "
        f"against {names} own GPUs are cheaper at this load{_needed_speed(load, own)}."
    )


def _reasons_for_api(cheapest: RoiLine, own: OwnGpus, own_month: Range) -> str:
    start = f"{cheapest.route} costs {_dollar_range(cheapest.month)} a month where {own} cost {_dollar_range(own_month)}"
    if cheapest.break_even_requests is None:
        return f"{start}, and even fully used a token of theirs costs more"
    return f"{start}; own GPUs are cheaper from about {_round_count(Decimal(cheapest.break_even_requests)):,} requests a day on"


def _needed_speed(load: Workload, own: OwnGpus) -> str:
    """The speed that own GPUs need for this load, where theirs is not measured; else `""`."""
    if own.tokens_per_s is not None:
        return ""
    tokens_per_s = load.month[1] / (load.days * 86_400) / Decimal(str(own.utilisation))
    return f", if they make {_round_count(tokens_per_s):,} tokens a second (not measured: %infer bench pool/MODEL)"


def _high_end(month: Range | None) -> Decimal:
    return Decimal(0) if month is None else month[1]


# -- format ------------------------------------------------------------------------------------------------------------
def round_dollars(value: Decimal) -> str:
    """Dollars to two significant digits, as for a forecast: `$800`, `$1,600`, `$7.20`, `$0.042`."""
    if value == 0:
        return "$0"
    places = 1 - value.adjusted()
    rounded = round(value, places)
    if rounded.adjusted() > value.adjusted():  # 9.96 became 10.0
        rounded = round(rounded, places - 1)
    return f"${rounded:,.{0 if rounded == rounded.to_integral_value() else max(2, places)}f}"


def _dollar_range(month: Range | None) -> str:
    low, high = (round_dollars(m) for m in month or (Decimal(0), Decimal(0)))
    return low if low == high else f"{low} to {high}"


def _round_count(value: Decimal) -> int:
    return int(round(value, 1 - value.adjusted())) if value >= 1 else math.ceil(value)


# -- parsing -----------------------------------------------------------------------------------------------------------
def parse_tokens(text: str) -> tuple[float, float]:
    """(low, high) tokens per request of `333..667` or `500`. Raises BadOption."""
    match = re.fullmatch(r"\s*(\d[\d_,]*)(?:\s*\.\.\s*(\d[\d_,]*))?\s*", text)
    low, high = (float(re.sub(r"[_,]", "", n)) for n in (match[1], match[2] or match[1])) if match else (0.0, 0.0)
    if not 0 < low <= high:
        raise BadOption(f"--tokens takes tokens of a request such as 500 or 333..667, not {text!r}.")
    return low, high


def parse_own(text: str) -> tuple[int, str]:
    """(number, name) of the devices of `4xA100-80GB`, `2x4090` or `2x24GB`, as `pool plan --gpus` takes them. Raises BadOption."""
    match = re.fullmatch(r"\s*(?:(\d+)\s*[x×*]\s*)?([A-Za-z][\w .-]*|[2-5]0[5-9]0(?:[ -]?Ti)?|\d+(?:\.\d+)?\s*Gi?B)\s*", text)
    if match is None or (match[1] is not None and int(match[1]) < 1):
        raise BadOption(f"--own takes GPUs such as 4xA100-80GB, not {text!r}.")
    return int(match[1] or 1), match[2].strip()


def listed_routes(provider: str) -> list[Route]:
    """The routes of a provider that prices.toml lists and that answer, each once. Raises BadOption where there are none."""
    provider = "openai" if provider == "azure" else provider
    names = [
        re.sub(r"\[.*?\]|[*?]", "", entry.models[0]).rstrip("-")
        for entry in prices.table()
        if entry.provider == provider and not entry.embeds
    ]
    if not [name for name in names if name]:
        providers = ", ".join(dict.fromkeys(e.provider for e in prices.table() if e.provider != "sim"))
        raise BadOption(f"--provider {provider}: no prices are listed for it. Known: {providers}; or name routes that have a [price].")
    return [Route(provider, name) for name in dict.fromkeys(names) if name]
