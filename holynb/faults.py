"""The error classification of one attempt at one endpoint, and the root of the exception tree (drawn in `errors`, which exports both)."""

from __future__ import annotations

from typing import Any

from holynb import words
from holynb.usage import Limits, Usage

__all__ = ["KINDS", "RETRYABLE", "UNBILLED_KINDS", "Fault", "HolynbError", "Portable"]

#: Error classes of an attempt; the values of the frame's `error_type`.
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

#: Kinds for which another attempt at the same endpoint may succeed.
RETRYABLE = frozenset({"rate_limit", "timeout", "connection", "truncated", "oom", "server", "invalid_output"})

#: Faults that a server answers before it does any work: they cost nothing. After any other, unknown usage counts as the whole reservation.
UNBILLED_KINDS = frozenset(
    {"rate_limit", "quota", "auth", "context_length", "bad_request", "not_found", "connection", "budget", "content_filter"}
)


class Portable(Exception):
    """An exception that pickle and copy bring back as it was, whatever its constructor takes: Python's own gives that `args` alone."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), *self.args), self._state()

    def _state(self) -> dict[str, Any]:
        """What goes with it into another process."""
        return self.__dict__


class HolynbError(Portable):
    """Root of everything holynb raises on purpose. Its message is one line, fit to be shown, whoever wrote the words that it quotes."""

    def __init__(self, message: str = "") -> None:
        super().__init__(words.message(str(message)))


class Fault(HolynbError):
    """One attempt failed.

    kind:    one of KINDS
    retry:   whether another attempt may go to the same endpoint (default: by kind)
    wait:    the server's Retry-After, seconds; None where it gave none
    stops:   no request can succeed at this endpoint (key refused, credit gone): the scheduler sends no more after the first
    unreachable: no server took the request (nothing listens, it ends, it still loads): where one has answered, it may come back
    status:  HTTP status, where there was one
    usage:   tokens that the server counted in spite of the failure
    model:   the model as the server named it, where it answered
    finish_reason: why its answer ended, where one came and is none
    reasoning: what was thought before it ended so
    limits:  quota from the reply's headers
    tier:    the service tier that the server says it used, where tokens were counted
    tier_refused: the service tier that was asked, where it has no room now (`rate_limit`) or does not serve the model (`bad_request`)
    raw:     the server's error text, masked and cut to 2,000 characters
    """

    def __init__(self, kind: str, message: str, *, retry: bool | None = None, stops: bool = False, **facts: Any) -> None:
        super().__init__(message)
        if kind not in KINDS:
            raise ValueError(f"unknown kind of fault: {kind}")
        self.kind = kind
        self.retry = kind in RETRYABLE if retry is None else retry
        self.stops = stops
        self.wait: float | None = facts.pop("wait", None)
        self.status: int | None = facts.pop("status", None)
        self.usage: Usage | None = facts.pop("usage", None)
        self.unreachable: bool = facts.pop("unreachable", False)
        self.model: str | None = facts.pop("model", None)
        self.finish_reason: str | None = facts.pop("finish_reason", None)
        self.reasoning: str | None = facts.pop("reasoning", None)
        self.limits: Limits | None = facts.pop("limits", None)
        self.tier: str | None = facts.pop("tier", None)
        self.tier_refused: str = facts.pop("tier_refused", "")
        self.raw: str | None = facts.pop("raw", None)
        if facts:
            raise TypeError(f"unknown facts: {sorted(facts)}")

    @property
    def spent(self) -> bool:
        """Whether an answer ended by length before a word of it came, so that the same request would only be paid for again."""
        return (self.kind, self.finish_reason) == ("truncated", "length")

    @property
    def message(self) -> str:
        """The message. Set anew, it is made fit to be shown again."""
        return str(self.args[0])

    @message.setter
    def message(self, text: str) -> None:
        self.args = (words.message(text),)


def _again(cls: type[Portable], *args: object) -> Portable:
    """An exception without a call of its constructor: what that would set comes with its state."""
    return cls.__new__(cls, *args)
