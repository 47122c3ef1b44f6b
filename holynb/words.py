"""Numbers with their nouns, as every message says them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """`1 row`, `2,000 rows`. Nouns that take an s."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
