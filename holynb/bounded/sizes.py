"""How large values are and would become, answered before anything is computed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

from holynb.bounded.allowance import ITEM_BYTES, MAX_ITEMS, Allowance, TooMuch

__all__ = ["CONTAINERS", "MAX_DIGITS", "Extent", "check_number", "check_operation", "measure", "whole"]

#: Types that hold other values.
CONTAINERS: tuple[Any, ...] = (list, tuple, dict, set, frozenset, type({}.keys()), type({}.values()), type({}.items()))
_LEAVES = frozenset({str, int, float, bool, type(None), bytes, complex})

#: Largest integer that arithmetic may make, in bits, and longest text that is read as a number.
MAX_BITS = 100_000
MAX_DIGITS = 4_300
#: Deepest nesting of lists and dicts.
MAX_DEPTH = 200


class Extent(NamedTuple):
    """Items of a value, nested ones included and each time they occur; characters of its texts; levels of nesting."""

    items: int
    chars: int
    depth: int
    longest: int


def measure(value: Any) -> Extent:
    """The size of a value. Raises TooMuch above MAX_ITEMS items or MAX_DEPTH levels, having looked at no more than these."""
    if not isinstance(value, CONTAINERS):
        length = len(value) if isinstance(value, str | bytes) else 0
        return Extent(1, length, 0, length)
    items = chars = deepest = longest = 0
    ahead: list[tuple[Any, int]] = [(value, 1)]
    while ahead:
        one, depth = ahead.pop()
        items += len(one)
        deepest = max(deepest, depth)
        if items > MAX_ITEMS or depth > MAX_DEPTH:
            raise TooMuch(f"a value in it has more than {MAX_ITEMS:,} items or {MAX_DEPTH} levels")
        values = list(chain(one, one.values())) if isinstance(one, dict) else list(one)
        kinds = set(map(type, values))
        if str in kinds or bytes in kinds:
            lengths = [len(v) for v in values if isinstance(v, str | bytes)]
            chars += sum(lengths)
            longest = max(longest, *lengths)
        if not kinds <= _LEAVES:
            ahead += [(v, depth + 1) for v in values if isinstance(v, CONTAINERS)]
    return Extent(items, chars, deepest, longest)


def whole(number: Any, name: str = "a size") -> int:
    """An argument that says how many. Raises TooMuch where it is out of all proportion."""
    if isinstance(number, float | Decimal):
        check_number(number)
    count = int(number)
    if abs(count) > MAX_ITEMS:
        raise TooMuch(f"{name} is more than {MAX_ITEMS:,}")
    return count


def check_number(value: Any) -> None:
    """Refuse a Decimal whose digits, written out, would fill the memory."""
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > MAX_DIGITS:
        raise TooMuch(f"a number has more than {MAX_DIGITS:,} digits")


def check_operation(operator: str, left: Any, right: Any, allowance: Allowance) -> None:
    """Refuse `left operator right` where the result would be too large."""
    if operator == "+":
        if isinstance(left, str | bytes | list | tuple) and isinstance(right, str | bytes | list | tuple):
            allowance.make(len(left) + len(right), len(left), len(right), item=_item(left))
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
                allowance.make(len(sequence) * max(times, 0), len(sequence), item=_item(sequence))
        _check_bits(_bits((left, right)))
    elif isinstance(left, Fraction) or isinstance(right, Fraction):
        _check_bits(_bits((left, right)))
    if operator == "**":
        exponent = abs(int(right)) if isinstance(right, int | Fraction) else 1
        _check_bits(_bits((left,)) * max(1, exponent) if left not in (0, 1, -1) else 0)


def _item(sequence: Any) -> int:
    return 1 if isinstance(sequence, str | bytes) else ITEM_BYTES


def _bits(values: Iterable[Any]) -> int:
    """Bits of integers and fractions together; other numbers do not grow."""
    return sum(max(v.numerator.bit_length(), v.denominator.bit_length()) for v in values if isinstance(v, int | Fraction))


def _check_bits(bits: Any) -> None:
    if bits > MAX_BITS:
        raise TooMuch("the number is too large")
