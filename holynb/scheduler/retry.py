"""Whether and when a request is retried at the same tier: the one retry layer. Pure; no clock, no I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from holynb.errors import Fault
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.limiter import MAX_WAIT_S
from holynb.types import Timeouts

__all__ = ["Policy", "exceeds_max_wait", "retry_delay"]

BASE_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0

_rng = random.Random()  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of a run. `retries` counts attempts after the first that failed; waiting out a 429 is not one.

    `max_in_flight` bounds the requests over all endpoints (None: each endpoint's own window). `deadline` and `grace` (for those in flight
    after a stop) are seconds; `backoff_scale` scales the waits (tests set it to nearly nothing). In seconds, too: `patience` with a server
    that has answered and is gone, `first_patience` where none ever answered, `refusal_limit` for 429s of a route that is not the last.
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 3
    deadline: float | None = None
    max_in_flight: int | None = None
    grace: float = 3.0
    backoff_scale: float = 1.0
    patience: float = 60.0
    first_patience: float = 4.0
    refusal_limit: float = 30.0


def retry_delay(item: WorkItem, fault: Fault, policy: Policy) -> float | None:
    """Seconds until the item may be sent to the same tier again; None where it may not. Counts the fault on the item.

    Not for a 429 within MAX_WAIT_S, whose pause is the limiter's and uses up no retry.
    """
    if not fault.retry or fault.stops or exceeds_max_wait(fault):
        return None
    item.faults += 1
    if item.faults > policy.retries:
        return None
    return fault.wait if fault.wait is not None else backoff(item.faults, policy)


def exceeds_max_wait(fault: Fault) -> bool:
    """Whether the server asks for a longer wait than MAX_WAIT_S."""
    return (fault.wait or 0) > MAX_WAIT_S


def backoff(attempt: int, policy: Policy) -> float:
    """Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015)."""
    return policy.backoff_scale * _rng.uniform(0, min(MAX_BACKOFF_S, BASE_BACKOFF_S * 2.0 ** min(attempt, 10)))
