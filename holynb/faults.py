"""What can go wrong with one attempt at one endpoint, and the root of the tree of errors (drawn in `errors`, which hands out both)."""

from __future__ import annotations

from typing import Any

from holynb.usage import Limits, Usage

__all__ = ["KINDS", "RETRYABLE", "Fault", "HolynbError"]

#: What can go wrong with an attempt, the values of the frame's `error_type`.
KINDS = (
    "rate_limit",
    "quota",
    "auth",
    "timeout",
    "connection",
    "context_length",
    "content_filter",
    "invalid_output",
    "truncated",
    "oom",
    "server",
    "bad_request",
    "not_found",
    "budget",
    "deadline",
    "internal",
)

#: The kinds that another attempt at the same endpoint can cure.
RETRYABLE = frozenset({"rate_limit", "timeout", "connection", "truncated", "oom", "server", "invalid_output"})


class HolynbError(Exception):
    """Root of everything holynb raises on purpose."""


class Fault(HolynbError):
    """One attempt failed.

    kind:    one of KINDS
    retry:   whether the same endpoint may be asked again (default: by kind)
    wait:    seconds the server asked us to wait; None where it said nothing
    stops:   nothing will succeed at this endpoint (key refused, credit gone): the scheduler trips it after the first
    status:  HTTP status, where there was one
    usage:   what the server said it counted all the same
    model:   the model as the server named it, where it answered
    limits:  what the reply's headers said of the quota
    raw:     the server's own words, masked and cut to 2,000 characters
    """

    def __init__(self, kind: str, message: str, *, retry: bool | None = None, stops: bool = False, **facts: Any) -> None:
        super().__init__(message)
        if kind not in KINDS:
            raise ValueError(f"unknown kind of fault: {kind}")
        self.kind = kind
        self.message = message
        self.retry = kind in RETRYABLE if retry is None else retry
        self.stops = stops
        self.wait: float | None = facts.pop("wait", None)
        self.status: int | None = facts.pop("status", None)
        self.usage: Usage | None = facts.pop("usage", None)
        self.model: str | None = facts.pop("model", None)
        self.limits: Limits | None = facts.pop("limits", None)
        self.raw: str | None = facts.pop("raw", None)
        if facts:
            raise TypeError(f"unknown facts: {sorted(facts)}")
