"""The pool's metrics, in Prometheus' text format. Counted on the server's loop; knows no sockets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holynb.pool.protocol import RankStats

__all__ = ["Histogram", "Metrics", "ReplicaStats", "device_memory", "render"]

_TTFT_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_INTER_TOKEN_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_REQUEST_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ReplicaStats(RankStats, total=False):
    """A replica's figures: its leader's, with the number of the replica, the figures of all ranks, and the busy share of each stage."""

    replica: int
    ranks: list[RankStats]
    stages: list[float]


class Histogram:
    """Counts of seconds by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.sum += seconds * times

    def lines(self, name: str) -> Iterable[str]:
        so_far = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{le="{bound}"}} {so_far}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {so_far}"


@dataclass(slots=True)
class Metrics:
    """Written by the server's loop alone."""

    ttft: Histogram = field(default_factory=lambda: Histogram(_TTFT_BOUNDS_S))
    inter_token: Histogram = field(default_factory=lambda: Histogram(_INTER_TOKEN_BOUNDS_S))
    request: Histogram = field(default_factory=lambda: Histogram(_REQUEST_BOUNDS_S))
    tokens_in: int = 0
    tokens_out: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    """Requests by finish reason: stop, length, cancelled, error."""

    def tokens(self, count: int, created_at: float, before: float, now: float) -> None:
        """`count` tokens of a request that came at `created_at`; its tokens before these at `before` (0: these are the first)."""
        self.tokens_out += count
        if before:
            self.inter_token.add((now - before) / count, count)
        else:
            self.ttft.add(now - created_at)

    def finish(self, reason: str, seconds: float) -> None:
        self.finished[reason] = self.finished.get(reason, 0) + 1
        if reason in {"stop", "length"}:
            self.request.add(seconds)


def render(metrics: Metrics, state: str, replicas: Iterable[ReplicaStats], clients: Iterable[Mapping[str, Any]] = ()) -> str:
    """The page of `/metrics`. What a replica does not know is left out, never 0. `clients`: name and used tokens of each named token.

    A replica's label is its own number: its position changes where one before it has died.
    """
    stats = list(replicas)
    numbered = [(s.get("replica", i), s) for i, s in enumerate(stats)]
    lines = _family("holynb_pool_ready", "gauge", "1 where the pool answers", [("", int(state == "ready"))])
    lines += _family("holynb_pool_replicas", "gauge", "replicas alive", [("", len(stats))])
    gauges = (
        ("running", "holynb_requests_running", "sequences in the batch"),
        ("waiting", "holynb_requests_waiting", "sequences in the queue"),
        ("kv_used", "holynb_kv_used_tokens", "tokens in the KV cache"),
        ("kv_total", "holynb_kv_total_tokens", "tokens the KV cache holds"),
        ("weights_bytes", "holynb_weights_bytes", "bytes of weights"),
        ("kv_bytes", "holynb_kv_bytes", "bytes of the KV cache"),
        ("oom", "holynb_oom_events", "times the batch shrank for lack of memory"),
        ("flights", "holynb_pipeline_batches", "batches in flight at a time"),
    )
    for key, name, help_text in gauges:
        values = [(f'{{replica="{i}"}}', value) for i, s in numbered if isinstance(value := s.get(key), int | float)]
        lines += _family(name, "gauge", help_text, values)
    busy = [(f'{{replica="{i}",stage="{n}"}}', round(share, 4)) for i, s in numbered for n, share in enumerate(s.get("stages", ()))]
    lines += _family("holynb_stage_busy_share", "gauge", "share of the time with work in which a pipeline's stage computes", busy)
    lines += _family("holynb_device_memory_bytes", "gauge", "memory by device and part", list(_memory(numbered)))
    lines += _family("holynb_prompt_tokens_total", "counter", "prompt tokens taken", [("", metrics.tokens_in)])
    lines += _family("holynb_generation_tokens_total", "counter", "tokens written", [("", metrics.tokens_out)])
    for name, what in (("guessed", "tokens guessed ahead by prompt lookup"), ("accepted", "guessed tokens that were right")):
        values = [(f'{{replica="{i}"}}', value) for i, s in numbered if isinstance(value := s.get(f"tokens_{name}"), int)]
        lines += _family(f"holynb_{name}_tokens_total", "counter", what, values)
    finished = [(f'{{how="{reason}"}}', count) for reason, count in sorted(metrics.finished.items())]
    lines += _family("holynb_requests_total", "counter", "requests by how they ended", finished)
    today = [(f'{{client="{c["name"]}"}}', c["used"]) for c in clients]
    lines += _family("holynb_client_tokens_today", "gauge", "tokens of today by named token, all pools of this machine together", today)
    for name, help_text, histogram in (
        ("holynb_ttft_seconds", "request to first token", metrics.ttft),
        ("holynb_inter_token_seconds", "between two tokens of a sequence", metrics.inter_token),
        ("holynb_request_seconds", "request to last token", metrics.request),
    ):
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} histogram", *histogram.lines(name)]
    return "\n".join(lines) + "\n"


def device_memory(stats: RankStats) -> dict[str, Any] | None:
    """A rank's device and its memory by part, in bytes; None before the rank has reported."""
    if "device" not in stats:
        return None
    ours, weights, kv = (stats.get(k) for k in ("memory_ours", "weights_bytes", "kv_bytes"))
    rest = None if None in (ours, weights, kv) else ours - weights - kv  # type: ignore[operator]
    if rest is not None and rest < 0:  # a KV cache on CPU is committed page by page as it is used: its part of `ours` is unknown
        kv = rest = None
    return {
        "device": stats["device"],
        "used": stats.get("memory_used"),
        "total": stats.get("memory_total"),
        "ours": ours,
        "weights": weights,
        "kv": kv,
        "rest": rest,
    }


def _family(name: str, kind: str, help_text: str, values: list[tuple[str, Any]]) -> list[str]:
    if not values:
        return []
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in values)]


def _memory(numbered: Iterable[tuple[int, ReplicaStats]]) -> Iterable[tuple[str, Any]]:
    for i, stats in numbered:
        ranks = stats.get("ranks") or [stats]
        for number, parts in enumerate(map(device_memory, ranks)):
            labels = f'replica="{i}"' + (f',rank="{number}"' if len(ranks) > 1 else "")
            for part in ("used", "total", "ours", "weights", "kv", "rest"):
                if parts is not None and parts[part] is not None:
                    yield f'{{device="{parts["device"]}",part="{part}",{labels}}}', parts[part]
