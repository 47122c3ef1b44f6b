"""What a plan of many rows still has to send: as `pending` tells it of few, read from the run log a window at a time.

A row costs a few bytes here: what the log answers lies in a spool, and equal rows are found in a table of their keys.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import overload

from holynb.outcome_rows import OutcomeRows
from holynb.run.pending import Pending, answered, own_answers, shared_answers
from holynb.run.plan import Plan
from holynb.runlog import RunLog
from holynb.spool import Spool
from holynb.types import Outcome

__all__ = ["Answers", "Groups", "Keys", "RowSet", "read"]

#: Rows that are looked up in the log at once.
WINDOW = 2_000


class Answers(Mapping[int, Outcome]):
    """Row → outcome, of rows of `n` that have one."""

    def __init__(self, n: int, spool: Spool) -> None:
        self._n, self._spool, self._count = n, spool, 0
        self._rows = OutcomeRows(0, spool)

    def __setitem__(self, row: int, outcome: Outcome) -> None:
        if not self._rows:  # most runs have none
            self._rows = OutcomeRows(self._n, self._spool)
        self._count += not self._rows.has(row)
        self._rows[row] = outcome

    def __getitem__(self, row: int) -> Outcome:
        outcome = self._rows[row] if 0 <= row < len(self._rows) else None
        if outcome is None:
            raise KeyError(row)
        return outcome

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self._rows) and self._rows.has(row)

    def __iter__(self) -> Iterator[int]:
        return (row for row in range(len(self._rows)) if self._rows.has(row))

    def __len__(self) -> int:
        return self._count


class RowSet(Collection[int]):
    """Some of `n` rows, a byte each."""

    def __init__(self, n: int) -> None:
        self._flags, self._count = bytearray(n), 0

    def add(self, row: int) -> None:
        self._count += not self._flags[row]
        self._flags[row] = 1

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self._flags) and self._flags[row] == 1

    def __iter__(self) -> Iterator[int]:
        at = self._flags.find(1)
        while at >= 0:
            yield at
            at = self._flags.find(1, at + 1)

    def __len__(self) -> int:
        return self._count


class Keys(Sequence["str | None"]):
    """The key under which each row's answer stands, or will: the plan's own, but for those that stand under another."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._other: dict[int, str | None] = {}

    def __len__(self) -> int:
        return len(self._plan.rows.requests)

    def __setitem__(self, row: int, key: str | None) -> None:
        if key != self._plan.keys.of(row):
            self._other[row] = key

    def of(self, row: int) -> str | None:
        """The key of one row."""
        return self._other[row] if row in self._other else self._plan.keys.of(row)

    @overload
    def __getitem__(self, row: int) -> str | None: ...
    @overload
    def __getitem__(self, row: slice) -> list[str | None]: ...
    def __getitem__(self, row: int | slice) -> str | list[str | None] | None:
        return [self.of(i) for i in range(*row.indices(len(self)))] if isinstance(row, slice) else self.of(row)


class Groups:
    """The rows to send, equal ones together, in the order of their first rows. `count`: how many groups; `firsts`: their first rows.

    A table of hashes with open addresses, of whole numbers: 4 bytes a place, and 4 a row where some are equal.
    """

    def __init__(self, n: int) -> None:
        self.firsts = RowSet(n)
        self._keys: list[bytes] = []
        self._mask = (1 << max(4, (2 * n - 1).bit_length())) - 1
        self._table = array("I", bytes(4 * (self._mask + 1)))
        self._next: array[int] | None = None
        self._n = n

    @property
    def count(self) -> int:
        return len(self.firsts)

    def add(self, row: int, key: bytes | None, key_of: Mapping[int, bytes]) -> None:
        """Add a row with its key; None: equal to no other. `key_of`: the keys of rows that are in."""
        if key is None:
            self.firsts.add(row)
            return
        place = int.from_bytes(key[:8], "little") & self._mask
        while at := self._table[place]:
            if key_of[at - 1] == key:
                self._follow(at - 1, row)
                return
            place = (place + 1) & self._mask
        self._table[place] = row + 1
        self.firsts.add(row)

    def _follow(self, first: int, row: int) -> None:
        if self._next is None:
            self._next = array("I", bytes(4 * self._n))
        self._next[row] = self._next[first]
        self._next[first] = row + 1

    def group(self, first: int) -> list[int]:
        """The rows that ask what `first` asks, it first and the others in order."""
        rows: list[int] = []
        at = self._next[first] if self._next is not None else 0
        while at:
            rows.append(at - 1)
            at = self._next[at - 1] if self._next is not None else 0
        return [first, *reversed(rows)]

    def closed(self) -> Groups:
        """The same, to be read only."""
        self._table = array("I")
        return self

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.group, self.firsts)


class _KeyOf(Mapping[int, bytes]):
    """Row → the key under which its answer will stand, as bytes."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __getitem__(self, row: int) -> bytes:
        return bytes.fromhex(self._keys.of(row) or "")

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._keys)))

    def __len__(self) -> int:
        return len(self._keys)


def read(plan: Plan, log: RunLog | None, run: str | None, spool: Spool) -> tuple[Pending, list[int]]:
    """What is left, and the rows whose answers in the log are to other requests than these. Raises sqlite3.Error.

    `log`: None where it cannot be read; `run`: the one that goes on.
    """
    n = len(plan.rows.requests)
    answers, own_rows, keys = Answers(n, spool), RowSet(n), Keys(plan)
    groups, key_of, kept = Groups(n), _KeyOf(keys), plan.earlier.kept
    displaced: list[int] = []
    saved: Decimal | None = None
    for first in range(0, n, WINDOW):
        rows = range(first, min(n, first + WINDOW))
        earlier = {} if log is None or run is None else log.answers(run, rows)
        own = own_answers(plan, earlier)
        shared = {} if log is None else shared_answers(plan, log, own, rows)
        for row, (key, outcome) in answered(plan, own, shared, rows).items():
            answers[row], keys[row] = outcome, key
            if outcome.cost is not None and row not in kept:
                saved = (saved or Decimal(0)) + outcome.cost
        for row in rows:
            if row in own or (row in kept and row in earlier):
                own_rows.add(row)
            key_of_row = keys.of(row)
            if key_of_row is not None and row not in answers and row not in kept:
                groups.add(row, bytes.fromhex(key_of_row) if plan.options.cache else None, key_of)
        displaced += [
            row
            for row, (key, outcome) in earlier.items()
            if row not in own_rows and outcome.status == "ok" and key not in (keys[row], plan.keys.chunked(row))
        ]
    if log is not None and run is not None:
        displaced += log.answers(run, range(n, 2**62))
    elsewhere = len(answers) - len(own_rows)  # at another place, or of another run
    return Pending(answers, own_rows, keys, groups.closed(), saved, max(0, len(displaced) - elsewhere)), displaced
