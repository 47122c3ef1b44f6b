"""The rows of a result with the input's columns beside them, a window at a time, for a file: no frame of all rows is built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from holynb import files
from holynb.results import frame

if TYPE_CHECKING:
    from holynb.schema import Schema
    from holynb.types import Embedding, Outcome

__all__ = ["OutRows"]

#: Rows of which a frame is made at once.
WINDOW = 4_096
#: What stands before a result's column where the input has one of its name, and no --into names the answers.
PREFIX = "result"


@dataclass(frozen=True, slots=True)
class OutRows:
    """source, index: the input, and the result's index. into: what the answers are called. attached: columns whose pictures stay out.

    schema, embedding, judged: as `frame.build` takes them.
    """

    source: Any = None
    index: Any = None
    into: str | None = None
    schema: Schema | None = None
    embedding: Embedding | None = None
    judged: bool = False
    attached: Sequence[str] = ()
    _memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def renamed(self) -> dict[str, str]:
        """Result's column → what it is called in the file, where that differs: no column of the input is overwritten."""
        self._layout()
        return {old: new for old, new in self._memo["names"].items() if old != new}

    def objects(self) -> dict[str, Callable[[], Iterator[Any]] | None]:
        """The file's columns of objects: all values of the input's, in parts, None for a result's."""
        self._layout()
        columns: dict[str, Callable[[], Iterator[Any]] | None] = {}
        dtypes = [] if self.source is None else files.window(self.source, 0, 0).dtypes
        for place, (name, dtype) in enumerate(zip(self._memo["input"], dtypes, strict=True)):
            if str(dtype) == "object":
                columns[name] = partial(self._pieces, place)
        for column in self.schema.columns if self.schema is not None else ():
            if column.kind == "json":
                columns[self._memo["names"][column.name]] = None
        return columns

    def _pieces(self, place: int) -> Iterator[Any]:
        return (self._without_pictures(place, piece) for piece in files.pieces(self.source, place))

    def windows(self, rows: Sequence[Outcome | None]) -> Iterator[Any]:
        """Frames of the rows that have ended, in order. The first may have no row."""
        self._layout()
        embedding = self.embedding
        if embedding is not None:  # vectors of one length in every window
            size = next((len(o.vector) // 4 for o in rows if o is not None and o.vector), embedding.dimensions)
            embedding = replace(embedding, dimensions=size)
        for first in range(0, max(1, len(rows)), WINDOW):
            outcomes = list(rows[first : first + WINDOW])
            places = [first + i for i, outcome in enumerate(outcomes) if outcome is not None]
            if places or first == 0:
                yield self._window([o for o in outcomes if o is not None], places, len(rows), embedding)

    def _window(self, outcomes: Sequence[Outcome], places: Sequence[int], n: int, embedding: Embedding | None) -> Any:
        window = frame.build(outcomes, None, self.schema, None, embedding, judged=self.judged)
        window = window.rename(columns=self._memo["names"])
        if self.source is not None:
            each = max(1, n // max(1, len(self.source)))  # rows of a prompt with --compare and --samples
            taken = files.taken(self.source, [place // each for place in places])
            for place, name in reversed(list(enumerate(self._memo["input"]))):
                window.insert(0, name, self._without_pictures(place, taken.iloc[:, place]).array)
        if self._memo["levels"]:
            index = self.index[list(places)]
            for level, name in reversed(list(enumerate(self._memo["levels"]))):
                window.insert(0, name, index.get_level_values(level))
        return window

    def _without_pictures(self, place: int, column: Any) -> Any:
        """An attached column with its paths and addresses alone: the bytes of a picture are in no row of a file of answers."""
        if self.source is None or str(self.source.columns[place]) not in self.attached:
            return column
        return column.map(lambda v: os.fspath(v) if isinstance(v, str | os.PathLike) else None).astype(object)

    def _layout(self) -> None:
        """Find the names of all columns, once."""
        if self._memo:
            return
        inputs = _distinct([] if self.source is None else [str(name) for name in self.source.columns])
        answers = frame.build([], None, self.schema, None, None, judged=self.judged).columns
        known = [*map(str, answers), *(["embedding"] if self.embedding is not None else [])]
        taken, names = {*inputs, self.into}, {}
        for name in known:
            wanted = self.into if name == ("text" if self.embedding is None else "embedding") else None
            named = wanted or name
            if wanted is None and name in taken:
                named = f"{self.into or PREFIX}_{name}"
                while named in taken or named in known:
                    named += "_"
            taken.add(named)
            names[name] = named
        self._memo.update(input=inputs, names=names, levels=self._levels(taken))

    def _levels(self, taken: set[str | None]) -> list[str]:
        """A name for each level of the index, where it says more than the row's place."""
        index = self.index
        if index is None or (type(index).__name__ == "RangeIndex" and index.name is None and (index.start, index.step) == (0, 1)):
            return []
        levels: list[str] = []
        for place, level in enumerate(index.names):
            named = str(level) if level is not None else "index" if index.nlevels == 1 else f"level_{place}"
            while named in taken or named in levels:
                named += "_"
            levels.append(named)
        return levels


def _distinct(names: Sequence[str]) -> list[str]:
    distinct: dict[str, None] = {}
    for name in names:
        named, n = name, 0
        while named in distinct:
            n += 1
            named = f"{name}.{n}"
        distinct[named] = None
    return list(distinct)
