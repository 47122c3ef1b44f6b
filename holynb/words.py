"""Numbers with their nouns, as messages print them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """`1 row`, `2,000 rows`. For nouns whose plural ends in s."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
