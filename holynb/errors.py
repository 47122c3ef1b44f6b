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

from holynb.faults import KINDS, RETRYABLE, Fault, HolynbError

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
    "UserError",
    "closest",
]


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
