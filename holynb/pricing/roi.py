"""What a month costs: API prices against own GPUs, from a load, measured tokens a second and a price an hour. Pure arithmetic.

An API costs by the token; own GPUs cost by the hour, busy or not, and carry only so many tokens. So there is a load at which the
cheaper of the two changes, unless a token of a fully used GPU is still the dearer one.
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
#: The article's own monthly figures for managed services, which nothing here measured.
ARTICLE: tuple[tuple[str, Decimal], ...] = (("AWS SageMaker", Decimal(5000)), ("Azure OpenAI", Decimal(3000)))

Range = tuple[Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked: requests a day, tokens of a request (low, high; input and output together), and the share of them that is output."""

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
    """Own GPUs that serve one model together: dollars an hour for each, the tokens a second they make together, the share of time they do.

    `tokens_per_s` is None where nothing was measured; `assumed` says what of this was not measured.
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
        """How many such sets of GPUs carry so many tokens a month; 1 where their speed is not known."""
        room = self.capacity(days)
        return 1 if room is None else max(1, math.ceil(tokens / room))


@dataclass(frozen=True, slots=True)
class RoiLine:
    """One route. `month`: dollars (low, high). `saving`: the share of own GPUs' cost that the route saves; negative where they are cheaper.

    `break_even_requests`: requests a day from which own GPUs are cheaper, None where they never are (a second set, where one is full, may make the
    API cheaper again until that is used too). The three are None too where unknown.
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
    """The whole comparison. `own_month`: dollars (low, high) for as many sets as the load needs; `own_per_million`: fully used."""

    load: Workload
    lines: tuple[RoiLine, ...]
    own: OwnGpus | None
    own_month: Range | None
    own_per_million: Decimal | None
    advice: str


def roi(load: Workload, routes: Sequence[Route], own: OwnGpus | None = None) -> Roi:
    """A month of `load` on each route and on own GPUs, where the cheaper one changes, and one sentence of advice."""
    own_month = None
    if own is not None:
        own_month = tuple(own.sets(tokens, load.days) * own.month(load.days) for tokens in load.month)
    pair = None if own_month is None else (own_month[0], own_month[1])
    lines = tuple(_line(load, route, own, pair) for route in routes)
    room = None if own is None else own.capacity(load.days)
    each = None if own is None or room is None else own.month(load.days) / room * prices.MILLION
    return Roi(load, lines, own, pair, each, _advice(load, lines, own, pair))


def _line(load: Workload, route: Route, own: OwnGpus | None, own_month: Range | None) -> RoiLine:
    known = prices.list_price(route)
    if known is None or known.input is None or known.output is None:
        return RoiLine(route, None, None, None)
    share = Decimal(str(load.out_share))
    each = (known.input * (1 - share) + known.output * share) / prices.MILLION
    month = (load.month[0] * each, load.month[1] * each)
    line = RoiLine(route, known.input, known.output, month, assumed=known.assumed)
    if own is None or own_month is None:
        return line
    saving = sorted(1 - m / o for m, o in zip(month, own_month, strict=True))
    return RoiLine(route, known.input, known.output, month, (saving[0], saving[1]), _flip(load, each, own), known.assumed)


def _flip(load: Workload, each: Decimal, own: OwnGpus) -> int | None:
    """Requests a day at which own GPUs cost as much as an API of `each` dollars a token; None where they never do."""
    if each <= 0:
        return None
    tokens = own.month(load.days) / each
    room = own.capacity(load.days)
    # If one set cannot carry that load, neither can two carry twice of it: full GPUs cost more a token than the API.
    if room is not None and tokens > room:
        return None
    middle = Decimal(str(sum(load.tokens) / 2))
    return math.ceil(tokens / load.days / middle)


# -- advice --------------------------------------------------------------------------------------------------------------
def _advice(load: Workload, lines: Sequence[RoiLine], own: OwnGpus | None, own_month: Range | None) -> str:
    priced = [line for line in lines if line.month is not None]
    if not priced:
        return 'No price is known for these routes, so nothing can be advised: set [price."ROUTE"] in config.toml.'
    cheap = min(priced, key=lambda line: _high(line.month))
    if own is None or own_month is None:
        dear = max(priced, key=lambda line: _high(line.month))
        if dear is cheap:
            return f"{cheap.route} costs {_span(cheap.month)} a month; --own 4xA100-80GB --per-hour USD compares it with GPUs of your own."
        times = f"{_high(dear.month) / _high(cheap.month):.2g}" if _high(cheap.month) else "many"
        return (
            f"Send to {cheap.route} what it answers well enough ({_span(cheap.month)} a month), because {dear.route} costs {times} times as "
            "much for the same tokens; --own compares both with GPUs of your own."
        )
    # At the middle of the load, where the table says from how many requests a day own GPUs are cheaper: the two never disagree.
    dearer = [line for line in priced if sum(line.month or ()) > sum(own_month)]
    if not dearer:
        return f"Stay with the API: {_why(cheap, own, own_month)}."
    if len(dearer) == len(priced):
        return (
            f"Own GPUs: {own} cost {_span(own_month)} a month, less than {cheap.route} at {_span(cheap.month)}"
            + (_unmeasured(load, own) or f", and carry the load at {own.utilisation:.0%} utilisation")
            + "."
        )
    names = ", ".join(str(line.route) for line in dearer)
    return (
        f"Stay with {cheap.route} if its answers are good enough ({_span(cheap.month)} a month against {_span(own_month)} for {own}); against "
        f"{names} own GPUs are cheaper at this load{_unmeasured(load, own)}."
    )


def _why(cheap: RoiLine, own: OwnGpus, own_month: Range) -> str:
    start = f"{cheap.route} costs {_span(cheap.month)} a month where {own} cost {_span(own_month)}"
    if cheap.break_even_requests is None:
        return f"{start}, and even fully used a token of theirs costs more"
    return f"{start}; own GPUs are cheaper from about {_round(Decimal(cheap.break_even_requests)):,} requests a day on"


def _unmeasured(load: Workload, own: OwnGpus) -> str:
    """What own GPUs would have to do, where nobody measured what they can."""
    if own.tokens_per_s is not None:
        return ""
    needed = load.month[1] / (load.days * 86_400) / Decimal(str(own.utilisation))
    return f", if they make {_round(needed):,} tokens a second (not measured: %infer bench pool/MODEL)"


def _high(month: Range | None) -> Decimal:
    return Decimal(0) if month is None else month[1]


# -- words ---------------------------------------------------------------------------------------------------------------
def round_dollars(value: Decimal) -> str:
    """Dollars to two digits that count, as a forecast deserves: `$800`, `$1,600`, `$7.20`, `$0.042`."""
    if value == 0:
        return "$0"
    places = 1 - value.adjusted()
    rounded = round(value, places)
    if rounded.adjusted() > value.adjusted():  # 9.96 became 10.0
        rounded = round(rounded, places - 1)
    return f"${rounded:,.{0 if rounded == rounded.to_integral_value() else max(2, places)}f}"


def _span(month: Range | None) -> str:
    low, high = (round_dollars(m) for m in month or (Decimal(0), Decimal(0)))
    return low if low == high else f"{low} to {high}"


def _round(value: Decimal) -> int:
    return int(round(value, 1 - value.adjusted())) if value >= 1 else math.ceil(value)


# -- what a person types -------------------------------------------------------------------------------------------------
def parse_tokens(text: str) -> tuple[float, float]:
    """`333..667` or `500`, tokens of one request. Raises BadOption."""
    found = re.fullmatch(r"\s*(\d[\d_,]*)(?:\s*\.\.\s*(\d[\d_,]*))?\s*", text)
    low, high = (float(re.sub(r"[_,]", "", n)) for n in (found[1], found[2] or found[1])) if found else (0.0, 0.0)
    if not 0 < low <= high:
        raise BadOption(f"--tokens takes tokens of a request such as 500 or 333..667, not {text!r}.")
    return low, high


def parse_own(text: str) -> tuple[int, str]:
    """`4xA100-80GB`: how many devices, and which. Raises BadOption."""
    found = re.fullmatch(r"\s*(?:(\d+)\s*[x×*]\s*)?([A-Za-z][\w .-]*)\s*", text)
    if found is None or (found[1] is not None and int(found[1]) < 1):
        raise BadOption(f"--own takes GPUs such as 4xA100-80GB, not {text!r}.")
    return int(found[1] or 1), found[2].strip()


def listed_routes(provider: str) -> list[Route]:
    """The routes of a provider that prices.toml lists, each once. Raises BadOption where there are none."""
    provider = "openai" if provider == "azure" else provider
    names = [re.sub(r"\[.*?\]|[*?]", "", entry.models[0]).rstrip("-") for entry in prices.table() if entry.provider == provider]
    if not [name for name in names if name]:
        known = ", ".join(dict.fromkeys(e.provider for e in prices.table() if e.provider != "sim"))
        raise BadOption(f"--provider {provider}: no prices are listed for it. Known: {known}; or name routes that have a [price].")
    return [Route(provider, name) for name in dict.fromkeys(names) if name]
