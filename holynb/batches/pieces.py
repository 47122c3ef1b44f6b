"""Rows cut into batches that their provider takes: by number and by bytes, in order. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from holynb.batches.limits import MOST_BYTES, ProviderLimits

__all__ = ["MARK_CHARS", "Cut", "Cutter", "custom_id", "row_of"]

T = TypeVar("T")
#: Of a request's key, in the id of its row: enough to tell that the row asks something else by now.
MARK_CHARS = 12
#: Digits of a row's number.
_MAX_DIGITS = 12


def custom_id(key: str, row: int, mark: str) -> str:
    """A row's id in the batch of this key. Within Anthropic's 64 letters, digits, - and _."""
    return f"{key}-{row}-{mark[:MARK_CHARS]}"


def row_of(key: str, id_: str) -> tuple[int, str] | None:
    """The row and the mark of an id; None where it is not of the batch of this key."""
    row, _, mark = id_.removeprefix(f"{key}-").partition("-")
    number = row.isascii() and row.isdecimal() and len(row) <= _MAX_DIGITS
    return (int(row), mark) if id_.startswith(f"{key}-") and number else None


@dataclass(slots=True)
class Cut(Generic[T]):
    """What goes into one batch."""

    items: list[T] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    bytes: int = 0


class Cutter(Generic[T]):
    """Takes rows one by one until a batch is full."""

    def __init__(self, limits: ProviderLimits) -> None:
        self.most_bytes = min(limits.bytes, MOST_BYTES)
        self._rows = limits.rows
        self._cut: Cut[T] = Cut()

    def fits(self, entry: bytes) -> bool:
        """Whether any batch could hold it."""
        return len(entry) < self.most_bytes

    def is_full(self, entry: bytes) -> bool:
        """Whether this one has to go into the next batch."""
        return bool(self._cut.items) and (len(self._cut.items) >= self._rows or self._cut.bytes + len(entry) + 1 > self.most_bytes)

    def add(self, item: T, entry: bytes) -> None:
        """Add a row that fits."""
        self._cut.items.append(item)
        self._cut.entries.append(entry)
        self._cut.bytes += len(entry) + 1  # a comma, or the end of its line

    def take(self) -> Cut[T]:
        """What was added since the last time."""
        cut, self._cut = self._cut, Cut()
        return cut
