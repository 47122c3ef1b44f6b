"""A run's charts as points and marks: dollars, latency, tokens and memory over time. Pure; folds events and outcomes, draws nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from holynb.events import Ended, Failed, Gauge, Load, Noted
from holynb.spool import MANY
from holynb.ui.output.text import percentile
from holynb.ui.output.thinned import thinned

if TYPE_CHECKING:
    from holynb.events import Event
    from holynb.types import Outcome

__all__ = [
    "OUT_OF_MEMORY_TEXT",
    "RECOVERED_TEXT",
    "REPLICA_TEXTS",
    "Ends",
    "by_route",
    "combined_load",
    "cost",
    "ends",
    "latency",
    "load",
    "mark_name",
    "marks",
    "memory",
    "shared_with_others",
    "tokens",
]

Point = tuple[float, float]
#: Rows that were sent and ended, each with its x: seconds into the run, or its index where no times are known.
Ends = Sequence[tuple[float, "Outcome"]]

#: Percentiles are over the last rows that ended, at most so many of them: a chart has no room for more.
WINDOW_ROWS, MAX_PERCENTILES = 50, 90
#: What others hold of a device is a line of its own from this share of it on; below that it is the driver's.
MIN_OTHERS_SHARE = 0.02
#: The token rate's buckets.
MAX_RATE_BUCKETS, MIN_BUCKET_S = 160, 0.25
#: Parts of a pool's notes by which they are known again.
OUT_OF_MEMORY_TEXT, RECOVERED_TEXT = "ran out of memory", "has room for as many rows at once as before"
_FAILURE_MARKS = {"rate_limit": "429", "oom": "OOM"}
#: What became of a replica of a pool on Ray, as its server calls it, and as a note says it.
REPLICA_TEXTS = {
    "lost": "lost a replica",
    "started again": "has its replica again",
    "added": "has one replica more",
    "removed": "has one replica fewer",
}
_REPLICA_MARKS = {"lost": "lost", "started again": "back", "added": "+1", "removed": "−1"}
_NOTE_MARKS = {
    OUT_OF_MEMORY_TEXT: "OOM",
    RECOVERED_TEXT: "recovered",
    **{REPLICA_TEXTS[what]: mark for what, mark in _REPLICA_MARKS.items()},
}


def ends(events: Sequence[Event], rows: Sequence[Outcome | None], started: float) -> Ends:
    """Rows that a server answered or failed, in order of their end; by index where `events` holds no ends."""
    timed = [(e.at - started, e.outcome) for e in events if isinstance(e, Ended) and e.outcome.attempts]
    if timed or (events and len(rows) >= MANY):  # many rows without an end among the events were not sent
        return timed
    untimed = (Ended(i, o, float(i)) for i, o in enumerate(rows) if o is not None and o.attempts)
    return [(e.at, e.outcome) for e in (thinned(untimed, len(rows)) if len(rows) >= MANY else untimed) if isinstance(e, Ended)]


def by_route(
    events: Sequence[Event], rows: Sequence[Outcome | None], started: float, compared: Sequence[str] = ()
) -> dict[str, dict[str, list[Point]]]:
    """Lines of cost, latency and tokens. Of routes that rows ask in turn (`compared`) each has one, named after it; its latency is p50."""
    if not compared:
        ended = ends(events, rows, started)
        return {"cost": {"this run": cost(ended)}, "latency": latency(ended), "tokens": {"this run": tokens(events, started)}}
    out: dict[str, dict[str, list[Point]]] = {"cost": {}, "latency": {}, "tokens": {}}
    for route in dict.fromkeys(compared):
        own = [e for e in events if isinstance(e, Ended) and compared[e.row % len(compared)] == route]
        without_times = () if own else [o if compared[row % len(compared)] == route else None for row, o in enumerate(rows)]
        ended = ends(own, without_times, started)
        out["cost"][route], out["latency"][route] = cost(ended), latency(ended).get("p50", [])
        out["tokens"][route] = tokens(own, started)
    return out


def cost(ended: Ends) -> list[Point]:
    """Cumulative known dollars, from 0. Empty where no price is known, or nothing was spent."""
    out: list[Point] = []
    total = 0.0
    for x, outcome in ended:
        if outcome.cost is not None:
            total += float(outcome.cost)
            out.append((x, total))
    if not total:
        return []
    return [(0.0, 0.0), *out] if out[0][0] > 0 else out


def latency(ended: Ends) -> dict[str, list[Point]]:
    """Seconds: p50 and p95 of whole answers, p50 of TTFT, over the last 50 answered rows."""
    answered = [(x, o.latency_s, o.ttft_s) for x, o in ended if o.status == "ok" and o.latency_s is not None]
    out: dict[str, list[Point]] = {"p50": [], "p95": [], "TTFT": []}
    stride = max(1, len(answered) // MAX_PERCENTILES)
    for i in [*range(0, len(answered), stride), len(answered) - 1] if answered else []:
        x = answered[i][0]
        recent = answered[max(0, i - WINDOW_ROWS + 1) : i + 1]
        latencies = [w for _, w, _ in recent if w is not None]
        ttfts = [t for _, _, t in recent if t is not None]
        for name, values, q in (("p50", latencies, 0.5), ("p95", latencies, 0.95), ("TTFT", ttfts, 0.5)):
            if (value := percentile(values, q)) is not None and (not out[name] or out[name][-1][0] < x):
                out[name].append((x, value))
    return {name: points for name, points in out.items() if points}


def memory(events: Sequence[Event], started: float) -> dict[str, list[Point]]:
    """Bytes per device: what this run's workers hold, or all in use where that is unknown; also `… all` where others hold much of it."""
    out: dict[str, list[Point]] = {}
    total: dict[str, list[Point]] = {}
    shared: set[str] = set()
    for e in events:
        if isinstance(e, Gauge):
            out.setdefault(e.device, []).append((e.at - started, float(e.used if e.ours is None else e.ours)))
            total.setdefault(e.device, []).append((e.at - started, float(e.used)))
            shared |= {e.device} if shared_with_others(e) else set()
    return out | {f"{device} all": total[device] for device in out if device in shared}


def shared_with_others(gauge: Gauge) -> bool:
    """Whether others hold enough of a device to be drawn. Never of RAM, which is always shared."""
    return gauge.device != "RAM" and gauge.ours is not None and gauge.used - gauge.ours > MIN_OTHERS_SHARE * (gauge.total or gauge.used)


def tokens(events: Sequence[Event], started: float) -> list[Point]:
    """Tokens a second. An answer's are spread over the time from its first token; empty where there are fewer than two buckets."""
    until = max((e.at - started for e in events if isinstance(e, Ended)), default=0.0)
    width = max(MIN_BUCKET_S, until / MAX_RATE_BUCKETS)
    bins = [0.0] * (int(until / width) + 1)
    for event in events:
        if isinstance(event, Ended) and not event.outcome.cached and event.outcome.usage.tokens_out and event.outcome.latency_s:
            end = event.at - started
            _spread(bins, width, (end - event.outcome.latency_s + (event.outcome.ttft_s or 0.0), end), event.outcome.usage.tokens_out)
    return [((i + 0.5) * width, amount / width) for i, amount in enumerate(bins)] if any(bins) and len(bins) > 1 else []


def _spread(bins: list[float], width: float, span: Point, amount: float) -> None:
    """Add `amount`, evenly over `span`, to bins of `width` seconds."""
    low, high = max(0.0, span[0]), min(span[1], len(bins) * width)
    if high - low < width / 100:
        bins[min(len(bins) - 1, int(high / width))] += amount
        return
    for i in range(int(low / width), min(len(bins), int(high / width) + 1)):
        shared = min(high, (i + 1) * width) - max(low, i * width)
        bins[i] += amount * max(0.0, shared) / (high - low)


def mark_name(event: Event) -> str | None:
    """An event's mark in a chart: 429, OOM, recovered; None for all others."""
    if isinstance(event, Failed):
        return _FAILURE_MARKS.get(event.kind)
    return next((name for text, name in _NOTE_MARKS.items() if text in event.text), None) if isinstance(event, Noted) else None


def marks(events: Sequence[Event], started: float, kind: type[Failed | Noted]) -> dict[str, list[float]]:
    """Seconds at which events of `kind` are marked, by the mark's name."""
    out: dict[str, list[float]] = {}
    for e in events:
        if isinstance(e, kind) and (name := mark_name(e)) is not None:
            out.setdefault(name, []).append(e.at - started)
    return out


def load(events: Sequence[Event], started: float) -> dict[str, list[Point]]:
    """Load of the run's own servers: requests running and waiting, per cent of the KV cache."""
    out: dict[str, list[Point]] = {}
    last: dict[str, Load] = {}
    for e in events:
        if isinstance(e, Load):
            last[e.route] = e
            for name, value in combined_load(last.values()).items():
                out.setdefault(name, []).append((e.at - started, value))
    return out


def combined_load(loads: Iterable[Load]) -> dict[str, float]:
    """Several servers as one: the sum of their requests, the fullest KV cache in per cent. What none of them reports is left out."""
    servers = list(loads)
    running, waiting, kv = ([v for s in servers if (v := getattr(s, name)) is not None] for name in ("running", "waiting", "kv"))
    values: dict[str, float] = {}
    if running:
        values["running"] = float(sum(running))
    if waiting:
        values["waiting"] = float(sum(waiting))
    if kv:
        values["KV %"] = 100 * max(kv)
    return values
