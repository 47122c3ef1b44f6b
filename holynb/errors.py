"""The tree of errors. Knows nothing of any room.

    HolynbError
    ├── UserError          something typed, set or missing: shown as one line that says what to do next, no traceback
    │   ├── BadOption      an option, a value, a combination
    │   ├── BadPrompt      a template, a column, a file, an empty cell
    │   ├── BadRoute       a provider, a model, a pool that is not running
    │   ├── BadKey         a key that is missing, a placeholder, malformed
    │   └── BadSetting     config.toml, pyproject.toml, %config, a price
    ├── Fault              one attempt at one endpoint failed; raised by engines, read by the scheduler
    ├── InferError         a run in which nothing could be done; carries the run
    └── Interrupted        the person stopped the cell; carries the run

Mistakes of the user are UserErrors; faults of ours keep their traceback. A message never holds a key.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holynb.types import Limits, Usage

#: What can go wrong with an attempt, the values of the frame's `error_type`.
KINDS = (
    "rate_limit", "quota", "auth", "timeout", "connection", "context_length", "content_filter", "invalid_output",
    "truncated", "oom", "server", "bad_request", "not_found", "budget", "deadline", "internal",
)  # fmt: skip

#: The kinds that another attempt at the same endpoint can cure.
RETRYABLE = frozenset({"rate_limit", "timeout", "connection", "truncated", "oom", "server", "invalid_output"})


class HolynbError(Exception):
    """Root of everything holynb raises on purpose."""


class UserError(HolynbError):
    """One line for the person at the keyboard."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows one line instead of a traceback, where `holynb.infer` is called in a cell."""
        return [f"{type(self).__name__}: {self}"]


class BadOption(UserError):
    """An option, a value or a combination that cannot be."""


class BadPrompt(UserError):
    """A template, a column, a file or a cell that gives no prompt."""


class BadRoute(UserError):
    """A route that leads nowhere."""


class BadKey(UserError):
    """A key that is missing, a placeholder or malformed; found before the first request."""


class BadSetting(UserError):
    """A setting that does not parse or does not hold."""


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


class InferError(HolynbError):
    """Nothing could be done. `.run` holds the run, whose frame has every row and its error."""

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run

    def _render_traceback_(self) -> list[str]:
        """IPython shows one line instead of a traceback."""
        return [f"InferError: {self}"]


class Interrupted(HolynbError):
    """The person interrupted the cell. What was answered is kept; `.run` holds it."""

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run

    def _render_traceback_(self) -> list[str]:
        """IPython shows one line instead of a traceback."""
        return [str(self)]


def closest(word: str, words: Iterable[str]) -> str:
    """`" Did you mean X?"`, or `""` where nothing comes near. For the end of a UserError's line."""
    near = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""
