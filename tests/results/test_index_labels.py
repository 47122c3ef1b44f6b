"""Labels of many rows, made as they are asked for, are those of the list."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from holynb.results import index_labels
from holynb.results.index_labels import IndexLabels, changed, labels

INDEXES = [
    pd.RangeIndex(7),
    pd.Index(list("abcdefg")),
    pd.Index([1, None, 2.5, "x", True, pd.NaT, pd.Timestamp("2026-01-02")], dtype=object),
    pd.date_range("2026-01-01", periods=7),
    pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]], names=["k", None]),
]


@pytest.mark.parametrize("index", INDEXES, ids=lambda i: type(i).__name__)
def test_labels_of_many_rows_are_those_of_the_list(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = labels(index)
    assert isinstance(plain, list)
    monkeypatch.setattr(index_labels, "MANY", 2)
    lazy = labels(index)
    assert isinstance(lazy, IndexLabels)
    assert list(lazy) == plain
    assert (len(lazy), lazy[-1], lazy[1:4], lazy[::2]) == (len(plain), plain[-1], plain[1:4], plain[::2])
    with pytest.raises(IndexError):
        lazy[len(plain)]
    numbered = changed(changed(lazy, lambda row, label: (row, label)), lambda row, pair: (row, *pair))
    assert isinstance(numbered, IndexLabels)
    assert list(numbered) == [(i, i, label) for i, label in enumerate(plain)]
