"""Vectors of a run of many rows, read without the rest of their outcomes."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holynb.outcome_rows import OutcomeRows
from holynb.results import vectors
from holynb.spool import Spool
from holynb.types import Embedding, Outcome

ENDS = st.lists(
    st.none()
    | st.builds(
        Outcome,
        st.sampled_from(["ok", "error", "cancelled"]),
        # A number of another kind is pickled instead.
        latency_s=st.sampled_from([None, 0.5, Decimal(2)]),
        vector=st.none() | st.sampled_from([b"\0\0\x80?" * 3, b"\0\0\0@" * 3]),
    ),
    max_size=12,
)


@given(ENDS)
def test_they_are_those_of_the_outcomes(ends: list[Outcome | None]) -> None:
    rows = OutcomeRows(len(ends), Spool())
    for i, outcome in enumerate(ends):
        if outcome is not None:
            rows[i] = outcome
    assert np.array_equal(vectors.matrix(rows, Embedding(3)), vectors.matrix(ends, Embedding(3)), equal_nan=True)
    assert vectors.column(rows, Embedding(3)).equals(vectors.column(ends, Embedding(3)))
    assert list(rows.vectors()) == [None if o is None or o.status != "ok" else o.vector for o in ends]
