"""The outcomes of many rows, by row, as bytes in a spool. The journal of a large run; a few numbers a row stay in memory."""

from __future__ import annotations

import marshal
import pickle
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import fields
from decimal import Decimal
from operator import attrgetter
from typing import Any, overload

from holynb.spool import Spool
from holynb.types import Outcome
from holynb.usage import NO_USAGE, Usage

__all__ = ["OutcomeRows"]

_NAMES = tuple(f.name for f in fields(Outcome))
_values = attrgetter(*_NAMES)
_USAGE, _COST = _NAMES.index("usage"), _NAMES.index("cost")
_STATUS, _VECTOR = _NAMES.index("status"), _NAMES.index("vector")
_usage = attrgetter(*(f.name for f in fields(Usage)))
#: Texts that many rows share are one object when they are read: the names of route and model, of faults and reasons.
_SHARED = tuple(_NAMES.index(name) for name in ("status", "route", "model", "error_type", "finish_reason", "tier"))
_PICKLED = b"P"


def packed(outcome: Outcome) -> bytes:
    """An outcome as bytes."""
    values = list(_values(outcome))
    usage = values[_USAGE]
    values[_USAGE] = None if usage == NO_USAGE else _usage(usage)
    cost = values[_COST]
    values[_COST] = None if cost is None else str(cost)
    try:
        return marshal.dumps(tuple(values))
    except ValueError:  # something else than texts and numbers
        return _PICKLED + pickle.dumps(outcome)


def unpacked(record: bytes) -> Outcome:
    """The outcome that `packed` made these bytes of."""
    if record[:1] == _PICKLED:
        outcome: Outcome = pickle.loads(record[1:])  # noqa: S301 - bytes of this process
        return outcome
    values: list[Any] = list(marshal.loads(record))  # noqa: S302 - as above
    usage, cost = values[_USAGE], values[_COST]
    values[_USAGE] = NO_USAGE if usage is None else Usage(*usage)
    values[_COST] = None if cost is None else Decimal(cost)
    for i in _SHARED:
        if values[i] is not None:
            values[i] = sys.intern(values[i])
    return Outcome(*values)


class OutcomeRows(Sequence["Outcome | None"]):
    """Like a list of `n` outcomes, None at first. Written by one thread; read by any."""

    def __init__(self, n: int, spool: Spool) -> None:
        self._spool = spool
        self._places = array("Q", bytes(8 * n))
        """Where each row's record lies, and 1 more; 0: nowhere yet."""

    def __len__(self) -> int:
        return len(self._places)

    def vectors(self) -> Iterator[bytes | None]:
        """The vector of each row that is ok, None for others: without the rest of its outcome, which takes longer to make."""
        for place in self._places:
            record = self._spool.get(place - 1) if place else b""
            if record[:1] in (b"", _PICKLED):
                outcome = unpacked(record) if record else None
                yield outcome.vector if outcome is not None and outcome.status == "ok" else None
            else:
                values = marshal.loads(record)  # noqa: S302 - bytes of this process
                yield values[_VECTOR] if values[_STATUS] == "ok" else None

    def __setitem__(self, row: int, outcome: Outcome) -> None:
        self._places[row] = self._spool.put(packed(outcome)) + 1

    def fill(self, outcome: Outcome) -> int:
        """Give every row that has none this outcome. Returns how many."""
        place, filled = self._spool.put(packed(outcome)) + 1, 0
        for row, before in enumerate(self._places):
            if not before:
                self._places[row] = place
                filled += 1
        return filled

    def has(self, row: int) -> bool:
        """Whether the row has an outcome; cheaper than to read it."""
        return self._places[row] != 0

    @overload
    def __getitem__(self, row: int) -> Outcome | None: ...
    @overload
    def __getitem__(self, row: slice) -> list[Outcome | None]: ...
    def __getitem__(self, row: int | slice) -> Outcome | list[Outcome | None] | None:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        place = self._places[row]
        return unpacked(self._spool.get(place - 1)) if place else None

    def __iter__(self) -> Iterator[Outcome | None]:
        return (self[row] for row in range(len(self)))

    def __contains__(self, value: object) -> bool:
        return 0 in self._places if value is None else any(value == outcome for outcome in self)
