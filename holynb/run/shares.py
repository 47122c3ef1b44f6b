"""What each text of a request has of its tokens and dollars: by length, since a server counts them for all together. Pure.

The parts add up exactly to the whole. What a server did not say stays unknown for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from decimal import ROUND_DOWN, Decimal
from itertools import accumulate
from typing import Any

from holynb.types import Usage
from holynb.usage import NO_USAGE

__all__ = ["Share", "shares"]

#: Of one text: its tokens, and its dollars.
Share = tuple[Usage, Decimal | None]

_FIELDS = tuple(f.name for f in fields(Usage))

#: Where a share of dollars is cut off; the last text has the rest.
CENTS = Decimal("1e-12")


def shares(usage: Usage, cost: Decimal | None, weights: Sequence[int]) -> list[Share]:
    """The share of each text. `weights`: their lengths."""
    n = len(weights)
    if n == 1:
        return [(usage, cost)]
    columns = [_parts(getattr(usage, name), weights) for name in _FIELDS]
    usages = [Usage(*values) for values in zip(*columns, strict=True)] if usage != NO_USAGE else [NO_USAGE] * n
    if cost is None:
        return [(one, None) for one in usages]
    tokens = columns[0] if usage.tokens_in else weights
    return list(zip(usages, _dollars(cost, tokens), strict=True))


def _parts(number: Any, weights: Sequence[int]) -> Sequence[Any]:
    if not number:
        return [number] * len(weights)
    return _seconds(number, weights) if isinstance(number, float) else _whole(number, weights)


def _whole(number: int, weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    ends = [number * part // whole for part in accumulate(weights)]
    return [b - a for a, b in zip([0, *ends], ends, strict=False)]


def _seconds(number: float, weights: Sequence[int]) -> list[float]:
    whole = sum(weights)
    return [number * w / whole for w in weights]


def _dollars(amount: Decimal, weights: Sequence[int]) -> list[Decimal]:
    each, known = amount / sum(weights), dict[int, Decimal]()  # texts are often as long as others
    for w in weights:
        if w not in known:
            known[w] = (each * w).quantize(CENTS, ROUND_DOWN).normalize()
    parts = [known[w] for w in weights[:-1]]
    return [*parts, amount - sum(parts, Decimal(0))]
