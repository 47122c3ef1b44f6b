"""Vectors of `--embed`: as a column of Arrow's fixed-size lists, as a matrix, and in words. Imports what is heavy in functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from holynb.outcome_rows import OutcomeRows

if TYPE_CHECKING:
    from holynb.types import Embedding, Outcome

__all__ = ["VectorFacts", "column", "matrix"]

#: Vectors that are all measured to say whether they are normalized (of further ones, one in so many), and how far a length may be from 1.
MEASURED, TOLERANCE = 256, 1e-3


def column(rows: Sequence[Outcome | None], embedding: Embedding) -> Any:
    """A pandas array of fixed-size lists of float32; NA for a row without a vector. Where none is known, their length is not either."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    size = _size(rows, embedding)
    if not size:
        return pd.array([None] * len(rows), dtype=pd.ArrowDtype(pa.list_(pa.float32())))
    given = [vector if vector is not None and len(vector) == 4 * size else None for vector in _each(rows)]
    missing = np.array([vector is None for vector in given], dtype=bool)
    blank = bytes(4 * size)
    flat = pa.py_buffer(b"".join(vector or blank for vector in given))
    values = pa.Array.from_buffers(pa.float32(), len(rows) * size, [None, flat])
    lists = pa.FixedSizeListArray.from_arrays(values, size, mask=pa.array(missing))
    return pd.arrays.ArrowExtensionArray(lists)


def matrix(rows: Sequence[Outcome | None], embedding: Embedding | None) -> Any:
    """float32 (rows, dimensions), a row of NaN where there is no vector."""
    import numpy as np

    size = _size(rows, embedding)
    out = np.empty((len(rows), size), dtype=np.float32)
    for i, vector in enumerate(_each(rows)):
        out[i] = np.nan if vector is None or len(vector) != 4 * size else np.frombuffer(vector, "<f4")
    return out


class VectorFacts:
    """How many numbers vectors have and how long they are, vector by vector: all of the first, then one in so many."""

    def __init__(self) -> None:
        self._n = self._size = 0
        self._low, self._high = float("inf"), 0.0

    def add(self, vector: bytes) -> None:
        """One more."""
        self._size = self._size or len(vector) // 4
        if self._n < MEASURED or self._n % MEASURED == 0:
            import numpy as np

            norm = float(np.linalg.norm(np.frombuffer(vector, "<f4")))
            self._low, self._high = min(self._low, norm), max(self._high, norm)
        self._n += 1

    def described(self) -> str:
        """`1,536 dimensions, normalized`, or how long the vectors are; empty where there are none."""
        if not self._n:
            return ""
        low, high, each = self._low, self._high, f"{self._size:,} dimensions"
        if low >= 1 - TOLERANCE and high <= 1 + TOLERANCE:
            return f"{each}, normalized"
        return (
            f"{each}, not normalized (norm {low:.3g})"
            if f"{low:.3g}" == f"{high:.3g}"
            else f"{each}, not normalized (norm {low:.3g} to {high:.3g})"
        )


def _size(rows: Sequence[Outcome | None], embedding: Embedding | None) -> int:
    known = next((len(o.vector) // 4 for o in rows if o is not None and o.vector), 0)
    return known or (embedding.dimensions if embedding is not None else None) or 0


def _each(rows: Sequence[Outcome | None]) -> Iterable[bytes | None]:
    """The vector of each row that is ok; None where there is none."""
    if isinstance(rows, OutcomeRows):
        return rows.vectors()
    return (None if o is None or o.status != "ok" else o.vector for o in rows)
