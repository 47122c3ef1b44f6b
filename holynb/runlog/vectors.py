"""The vectors of `--embed` as the run log keeps them: those of one request together, and of each answer where its own lies. SQL and facts.

A row of 6 KB each takes SQLite several pages and a search; one of 1.5 MB takes them once. In the table of answers a vector is the number of
its place, or, where it was kept alone or by an older holynb, its bytes.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from holynb.types import Outcome

__all__ = ["EMPTY_VIEW", "INSERT", "TABLE", "TogetherRow", "Vectors", "together"]

TABLE = """
CREATE TABLE IF NOT EXISTS vectors(id INTEGER PRIMARY KEY, size INTEGER NOT NULL, numbers BLOB NOT NULL);
"""
#: For a reader of a log that is older than the table, which may not write to it.
EMPTY_VIEW = "CREATE TEMP VIEW vectors AS SELECT NULL AS id, NULL AS size, NULL AS numbers WHERE 0"
#: A file that replaces the log's may hold a part of what is written again.
INSERT = "INSERT OR REPLACE INTO vectors(id, size, numbers) VALUES(?,?,?)"

#: Vectors of one row at most, and the bits of its number. Drawn at random: several processes write one log.
PLACES, BITS = 1024, 52
#: Rows that a reader keeps. Answers come in the order in which they were asked, and few lie in another's row.
KEPT = 4


def together(vectors: Sequence[bytes | None]) -> tuple[tuple[int, int, bytes] | None, list[bytes | int | None]]:
    """The row that holds these, as parameters of INSERT, and what stands for each in its answer. None where they stay alone."""
    apart: list[bytes] = []
    places: list[int | None] = []
    for vector in vectors:
        if vector is None:
            places.append(None)
            continue
        if not apart or apart[-1] != vector:  # rows that ask the same follow each other, and share it
            apart.append(vector)
        places.append(len(apart) - 1)
    if not 1 < len(apart) <= PLACES or len(set(map(len, apart))) > 1:
        return None, list(vectors)
    number = secrets.randbits(BITS)
    return (number, len(apart[0]), b"".join(apart)), [None if place is None else number * PLACES + place for place in places]


class TogetherRow(Collection[tuple[int, int, bytes]]):
    """That row, as a statement's rows. Once it is written it is made again where it is read: no copy waits for a log to be replaced.

    rows, again: gives the outcome of each; without it the row is kept.
    """

    def __init__(self, row: tuple[int, int, bytes], rows: Sequence[int], again: Callable[[int], Outcome | None] | None) -> None:
        self._number, self._size, self._whole = row
        self._rows, self._again = rows, again

    def forget(self, failure: Exception | None) -> None:  # noqa: ARG002 - as whoever waits for a statement is told
        """It is written."""
        if self._again is not None:
            self._whole = b""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        row = None
        if self._again is not None and not self._whole:
            row, _ = together([None if (outcome := self._again(i)) is None else outcome.vector for i in self._rows])
        yield self._number, self._size, self._whole if row is None else row[2]

    def __contains__(self, row: object) -> bool:
        return row in list(self)


class Vectors:
    """Reads them on one connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._rows: dict[int, tuple[int, bytes]] = {}

    def of(self, kept: Any) -> bytes | None:
        """The vector that an answer's column stands for; None where its row is not there."""
        if not isinstance(kept, int):
            vector: bytes | None = kept
            return vector
        number, place = divmod(kept, PLACES)
        if number not in self._rows:
            if len(self._rows) >= KEPT:
                del self._rows[next(iter(self._rows))]
            row = self._db.execute("SELECT size, numbers FROM vectors WHERE id = ?", (number,)).fetchone()
            self._rows[number] = row or (0, b"")
        size, numbers = self._rows[number]
        return numbers[place * size : (place + 1) * size] or None
