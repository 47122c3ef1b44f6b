"""The exception tree. Imports no room.

    HolynbError
    ├── UserError          something typed, set or missing: shown as one line that says what to do next, no traceback
    │   ├── BadOption      an option, a value, a combination
    │   ├── BadPrompt      a template, a column, a file, an empty cell
    │   ├── BadRoute       a provider, a model
    │   │   └── NotRunning a pool that is not running
    │   ├── BadKey         a key that is missing, a placeholder, malformed
    │   └── BadSetting     config.toml, pyproject.toml, %config, a price
    ├── Fault              one attempt at one endpoint failed; raised by engines, read by the scheduler
    ├── InferError         a run in which no row could be answered; carries the run
    └── Interrupted        the user stopped the cell; carries the run

Mistakes of the user are UserErrors; bugs of ours keep their traceback. A message never holds a key.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

from holynb.faults import KINDS, RETRYABLE, Fault, HolynbError, Portable
from holynb.translation import say

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "KINDS",
    "RETRYABLE",
    "BadKey",
    "BadOption",
    "BadPrompt",
    "BadRoute",
    "BadSetting",
    "Fault",
    "HolynbError",
    "InferError",
    "Interrupted",
    "NotRunning",
    "Portable",
    "UserError",
    "closest",
]


class UserError(HolynbError):
    """A mistake of the user's, shown as one line."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows one line instead of a traceback, where `holynb.infer` is called in a cell."""
        return [f"{type(self).__name__}: {say(str(self))}"]


class BadOption(UserError):
    """An invalid option, value or combination of options."""


class BadPrompt(UserError):
    """A template, column, file or cell that yields no prompt."""


class BadRoute(UserError):
    """An unknown provider or model, or a pool that cannot be used."""


class NotRunning(BadRoute):
    """A pool that is not running now; it may be started, again or for the first time."""


class BadKey(UserError):
    """A key that is missing, a placeholder or malformed; raised before the first request."""


class BadSetting(UserError):
    """A setting that does not parse or has an invalid value."""


class _WithRun(HolynbError):
    """Carries a run, which stays in its process: an error that is sent to another one arrives with None there."""

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "run": None}

    def __copy__(self) -> Self:
        copied = type(self)(str(self), self.run)
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()


class InferError(_WithRun):
    """No row could be answered. `.run` holds the run, whose frame has every row and its error."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows one line instead of a traceback."""
        return [f"InferError: {say(str(self))}"]


class Interrupted(_WithRun):
    """The user interrupted the cell. `.run` holds the run with the answers so far."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows one line instead of a traceback."""
        return [say(str(self))]


def closest(word: str, words: Iterable[str]) -> str:
    """`" Did you mean X?"` for the end of a UserError's line, or `""` where no word is close."""
    matches = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""
