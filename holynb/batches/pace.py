"""How often a batch is asked for: soon at first, then less and less. Knows no provider."""

from __future__ import annotations

__all__ = ["FIRST_S", "GROWTH", "MOST_S", "Pace"]

#: Seconds until the first question and at most between two; each pause is so many times the one before.
FIRST_S, MOST_S, GROWTH = 30.0, 600.0, 1.5


class Pace:
    """The pauses of one run."""

    def __init__(self) -> None:
        self._next = FIRST_S

    def pause(self) -> float:
        """How long to wait now."""
        now, self._next = self._next, min(self._next * GROWTH, MOST_S)
        return now

    def restart(self) -> None:
        """Something has moved: ask soon again."""
        self._next = FIRST_S
