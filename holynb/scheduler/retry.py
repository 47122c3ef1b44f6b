"""Whether and when the same endpoint is asked again: the one retry layer. Pure; no clock, no I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from holynb.errors import Fault
from holynb.scheduler.failover import WorkItem
from holynb.types import Timeouts

__all__ = ["LONGEST_WAIT_S", "Policy", "pause"]

#: A server that asks for more is not waited for: the row moves on or ends, saying until when (as the OpenAI SDK does).
LONGEST_WAIT_S = 120.0
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0

_rng = random.Random()  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run may do. `retries` counts attempts after the first that failed; waiting out a 429 is not one.

    `most` is how many requests may be in flight at once over all endpoints (None: each endpoint's own window says).
    `grace` is how long those in flight may go on after a stop; `backoff` scales the waits (tests set it to nearly nothing).
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 3
    deadline: float | None = None
    most: int | None = None
    grace: float = 3.0
    backoff: float = 1.0


def pause(job: WorkItem, fault: Fault, policy: Policy) -> float | None:
    """Seconds until the job may be sent to the same stop again; None where it may not. Counts the fault on the job.

    A 429 is the limiter's: waiting it out is not an attempt of the budget.
    """
    if not fault.retry or fault.stops or too_long(fault):
        return None
    job.faults += 1
    if job.faults > policy.retries:
        return None
    return fault.wait if fault.wait is not None else backoff(job.faults, policy)


def too_long(fault: Fault) -> bool:
    """Whether the server asks for a wait that nobody should sit through."""
    return (fault.wait or 0) > LONGEST_WAIT_S


def backoff(k: int, policy: Policy) -> float:
    """Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015)."""
    return policy.backoff * _rng.uniform(0, min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** min(k, 10)))
