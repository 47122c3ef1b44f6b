"""The labels of an index as the log and the page take them. Of many rows they are made as they are asked for. Pure; imports no pandas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from holynb.spool import MANY

__all__ = ["IndexLabels", "changed", "json_label", "labels"]


class IndexLabels(Sequence[Any]):
    """Like the list of labels of an index. `change`: what is made of a row and its label."""

    def __init__(self, index: Any, change: Callable[[int, Any], Any] = lambda row, label: label) -> None:
        self._index, self._change = index, change

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> list[Any]: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self._change(row, _label(label)) for row, label in zip(range(len(self))[i], self._index[i].tolist(), strict=True)]
        row = range(len(self))[i]
        return self[row : row + 1][0]

    def changed(self, change: Callable[[int, Any], Any]) -> IndexLabels:
        """The same with something made of each."""
        return IndexLabels(self._index, lambda row, label: change(row, self._change(row, label)))


def labels(index: Any) -> Sequence[Any]:
    """An index as JSON-able labels (a MultiIndex's as lists)."""
    return IndexLabels(index) if len(index) >= MANY else [_label(label) for label in index.tolist()]


def changed(names: Sequence[Any], change: Callable[[int, Any], Any]) -> Sequence[Any]:
    """Something made of each row and its label, kept as the labels are."""
    return names.changed(change) if isinstance(names, IndexLabels) else [change(row, name) for row, name in enumerate(names)]


def _label(label: Any) -> Any:
    return list(map(json_label, label)) if isinstance(label, tuple) else json_label(label)


def json_label(label: Any) -> Any:
    """A label, or a part of one, as JSON has it."""
    if isinstance(label, str | int | float | bool | None):
        return label
    return None if type(label).__name__ in ("NAType", "NaTType") else str(label)
