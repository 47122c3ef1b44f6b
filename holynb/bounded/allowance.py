"""What one rendering of a template may still take and make: steps, time, characters. Knows no template."""

from __future__ import annotations

import time

from jinja2.exceptions import SecurityError

__all__ = ["ITEM_BYTES", "MAX_BYTES", "MAX_ITEMS", "MAX_STEPS", "Allowance", "TooMuch"]

#: Characters or items that one step may make, or add to what it was given.
MAX_ITEMS = 1_000_000
#: Steps of one rendering. An iteration of a loop and a filter are one each, a call counts as ten.
MAX_STEPS = 1_000_000
#: Longest rendered text.
MAX_BYTES = 64_000_000
#: All that the steps of one rendering make together, whether kept or not.
MAX_MADE = 8 * MAX_BYTES
#: What an item of a list counts beside a character of a text.
ITEM_BYTES = 16


class TooMuch(SecurityError):
    """The template would take or make more than one rendering may."""


class Allowance:
    """The limits of one rendering. Raises TooMuch, before what is too much is made."""

    __slots__ = ("_deadline", "_made", "_seconds", "_steps")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._steps = MAX_STEPS
        self._made = 0

    def spend(self, steps: int = 1) -> None:
        """Count steps, and look at the clock."""
        self._steps -= steps
        if self._steps < 0:
            raise TooMuch(f"it takes more than {MAX_STEPS:,} steps. Is there a loop that never ends?")
        if time.monotonic() > self._deadline:
            raise TooMuch(f"it takes longer than {self._seconds:g} seconds. Is there a loop that never ends?")

    def make(self, size: int, *given: int, item: int = 1) -> None:
        """Allow a step to make `size` characters or items out of parts of the sizes `given`. `item`: bytes of one."""
        longest = max(given, default=0)
        if size > MAX_BYTES or size > MAX_ITEMS + (longest if longest > MAX_ITEMS else 0):
            raise TooMuch(f"one step of it makes more than {MAX_ITEMS:,} characters or items")
        self.hold(size * item)

    def hold(self, size: int) -> None:
        """Count bytes that a step makes of what is as large itself."""
        self._made += size
        if self._made > MAX_MADE:
            raise TooMuch(f"its steps make more than {MAX_MADE:,} characters together")
