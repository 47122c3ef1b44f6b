"""What each text of a request has of its tokens and dollars: by length, since a server counts them for all together. Pure.

The parts add up exactly to the whole. What a server did not say stays unknown for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from decimal import ROUND_DOWN, Decimal
from itertools import accumulate
from typing import Any

from holynb.types import Usage

__all__ = ["Share", "shares"]

#: Of one text: its tokens, and its dollars.
Share = tuple[Usage, Decimal | None]

#: Where a share of dollars is cut off; the last text has the rest.
CENTS = Decimal("1e-12")


def shares(usage: Usage, cost: Decimal | None, weights: Sequence[int]) -> list[Share]:
    """The share of each text. `weights`: their lengths."""
    out = [Usage()] * len(weights)
    if len(weights) == 1:
        return [(usage, cost)]
    for name in (f.name for f in fields(Usage)):
        if (whole := getattr(usage, name)) is not None:
            parts = _seconds(whole, weights) if isinstance(whole, float) else _whole(whole, weights)
            out = [_with(u, name, part) for u, part in zip(out, parts, strict=True)]
    if cost is None:
        return [(u, None) for u in out]
    tokens = [u.tokens_in for u in out]
    known = [t for t in tokens if t is not None]
    by = known if len(known) == len(out) and any(known) else weights
    return list(zip(out, _dollars(cost, by), strict=True))


def _with(usage: Usage, name: str, part: Any) -> Usage:
    return replace(usage, **{name: part})


def _whole(number: int, weights: Sequence[int]) -> list[int]:
    ends = [number * part // sum(weights) for part in accumulate(weights)]
    return [b - a for a, b in zip([0, *ends], ends, strict=False)]


def _seconds(number: float, weights: Sequence[int]) -> list[float]:
    return [number * w / sum(weights) for w in weights]


def _dollars(amount: Decimal, weights: Sequence[int]) -> list[Decimal]:
    whole = sum(weights)
    parts = [(amount * w / whole).quantize(CENTS, ROUND_DOWN).normalize() for w in weights[:-1]]
    return [*parts, amount - sum(parts, Decimal(0))]
