"""What the charts show, as points and marks: dollars, latency, tokens and memory over a run. Pure; folds events and outcomes, draws nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from holynb.types import Ended, Failed, Gauge, Load, Noted
from holynb.ui.output.text import percentile

if TYPE_CHECKING:
    from holynb.types import Event, Outcome

__all__ = ["BACK", "SHORT", "Ends", "cost", "ends", "latency", "load", "mark", "marks", "memory", "others", "together", "tokens"]

Point = tuple[float, float]
#: The rows that were sent and ended, each with its x: seconds into the run, or its place where no times are known.
Ends = Sequence[tuple[float, "Outcome"]]

#: Percentiles are over the last rows that ended, and computed at most this many times: a chart has no room for more.
WINDOW, STEPS = 50, 90
#: What others hold of a device is a line of its own from this share of it on; below that it is the driver's and nobody's news.
OTHERS = 0.02
#: Buckets of a chart of tokens, at most.
MOST_BUCKETS = 160
#: What the notes of a pool say whose memory ran out, and came back; and how failures and notes are marked in a chart.
SHORT, BACK = "ran out of memory", "has room for as many rows at once as before"
_FAILURES = {"rate_limit": "429", "oom": "OOM"}
_NOTES = {SHORT: "OOM", BACK: "recovered"}


def ends(events: Sequence[Event], rows: Sequence[Outcome | None], started: float) -> Ends:
    """Rows that a server answered or failed at, in order of their end; by place where `events` tells of none."""
    timed = [(e.at - started, e.outcome) for e in events if isinstance(e, Ended) and e.outcome.attempts]
    return timed or [(float(i), o) for i, o in enumerate(rows) if o is not None and o.attempts]


def cost(done: Ends) -> list[Point]:
    """Known dollars so far, from nothing at the start. Empty where no price is known, or nothing was spent."""
    out: list[Point] = []
    total = 0.0
    for x, outcome in done:
        if outcome.cost is not None:
            total += float(outcome.cost)
            out.append((x, total))
    if not total:
        return []
    return [(0.0, 0.0), *out] if out[0][0] > 0 else out


def latency(done: Ends) -> dict[str, list[Point]]:
    """Seconds: median and 95th percentile of whole answers, median of the first token; over the last 50 rows that were answered."""
    good = [(x, o.latency_s, o.ttft_s) for x, o in done if o.status == "ok" and o.latency_s is not None]
    out: dict[str, list[Point]] = {"p50": [], "p95": [], "TTFT": []}
    stride = max(1, len(good) // STEPS)
    for i in [*range(0, len(good), stride), len(good) - 1] if good else []:
        x = good[i][0]
        recent = good[max(0, i - WINDOW + 1) : i + 1]
        whole = [w for _, w, _ in recent if w is not None]
        first = [t for _, _, t in recent if t is not None]
        for name, values, q in (("p50", whole, 0.5), ("p95", whole, 0.95), ("TTFT", first, 0.5)):
            if (value := percentile(values, q)) is not None and (not out[name] or out[name][-1][0] < x):
                out[name].append((x, value))
    return {name: points for name, points in out.items() if points}


def memory(events: Sequence[Event], started: float) -> dict[str, list[Point]]:
    """Bytes per device: what this run's workers hold, or all that is used where that is not known; `… all` where others hold much beside ours."""
    out: dict[str, list[Point]] = {}
    whole: dict[str, list[Point]] = {}
    shared: set[str] = set()
    for e in events:
        if isinstance(e, Gauge):
            out.setdefault(e.device, []).append((e.at - started, float(e.used if e.ours is None else e.ours)))
            whole.setdefault(e.device, []).append((e.at - started, float(e.used)))
            shared |= {e.device} if others(e) else set()
    return out | {f"{device} all": whole[device] for device in out if device in shared}


def others(gauge: Gauge) -> bool:
    """Whether others hold so much of a device beside what is ours that it shows. A machine's RAM is always shared, and that is no news."""
    return gauge.device != "RAM" and gauge.ours is not None and gauge.used - gauge.ours > OTHERS * (gauge.total or gauge.used)


def tokens(events: Sequence[Event], started: float) -> list[Point]:
    """Tokens a second. An answer's are spread over the time it took to come; empty where there is no time to speak of."""
    until = max((e.at - started for e in events if isinstance(e, Ended)), default=0.0)
    width = max(0.25, until / MOST_BUCKETS)
    bins = [0.0] * (int(until / width) + 1)
    for event in events:
        if isinstance(event, Ended) and not event.outcome.cached and event.outcome.usage.tokens_out and event.outcome.latency_s:
            end = event.at - started
            _spread(bins, width, (end - event.outcome.latency_s + (event.outcome.ttft_s or 0.0), end), event.outcome.usage.tokens_out)
    return [((i + 0.5) * width, made / width) for i, made in enumerate(bins)] if any(bins) and len(bins) > 1 else []


def _spread(bins: list[float], width: float, span: Point, amount: float) -> None:
    """Add `amount`, evenly over `span`, to bins of `width` seconds."""
    low, high = max(0.0, span[0]), min(span[1], len(bins) * width)
    if high - low < width / 100:
        bins[min(len(bins) - 1, int(high / width))] += amount
        return
    for i in range(int(low / width), min(len(bins), int(high / width) + 1)):
        shared = min(high, (i + 1) * width) - max(low, i * width)
        bins[i] += amount * max(0.0, shared) / (high - low)


def mark(event: Event) -> str | None:
    """How an event is marked in a chart: 429, OOM, recovered; None for all others."""
    if isinstance(event, Failed):
        return _FAILURES.get(event.kind)
    return next((name for words, name in _NOTES.items() if words in event.text), None) if isinstance(event, Noted) else None


def marks(events: Sequence[Event], started: float, kind: type[Failed | Noted]) -> dict[str, list[float]]:
    """Seconds at which failures, or a pool's notes, are marked; by the mark's name."""
    out: dict[str, list[float]] = {}
    for e in events:
        if isinstance(e, kind) and (name := mark(e)) is not None:
            out.setdefault(name, []).append(e.at - started)
    return out


def load(events: Sequence[Event], started: float) -> dict[str, list[Point]]:
    """How busy one's own servers said they were: requests running and waiting, per cent of the KV cache."""
    out: dict[str, list[Point]] = {}
    last: dict[str, Load] = {}
    for e in events:
        if isinstance(e, Load):
            last[e.route] = e
            for name, value in together(last.values()).items():
                out.setdefault(name, []).append((e.at - started, value))
    return out


def together(said: Iterable[Load]) -> dict[str, float]:
    """Several servers as one: the sum of their requests, the fullest KV cache in per cent. What none of them says is left out."""
    servers = list(said)
    running, waiting, kv = ([v for s in servers if (v := getattr(s, name)) is not None] for name in ("running", "waiting", "kv"))
    known: dict[str, float] = {}
    if running:
        known["running"] = float(sum(running))
    if waiting:
        known["waiting"] = float(sum(waiting))
    if kv:
        known["KV %"] = 100 * max(kv)
    return known
