"""A stored table of Arrow's columns: in a spool, or read from a table of another library as they are asked for. Needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.files.arrow import Known, frame_of, known_of, merged
from holynb.files.cutting import WINDOW
from holynb.files.delimited import unique
from holynb.files.stored import StoredTable
from holynb.spool import Spool

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ArrowTable", "can_be_stored", "spooled"]


@dataclass(frozen=True, slots=True)
class _Place:
    """A window of a column in a spool."""

    first: int
    n: int
    record: int


class ArrowTable(StoredTable):
    """`read`: a column's cells, by its place, from a row to before another. `known`: what is known of all of its rows.

    is_indexed: whether the index that pandas wrote is the table's, and its columns none of the table's own.
    """

    def __init__(self, schema: Any, n: int, read: Callable[[int, int, int], Any], known: Known | None, *, is_indexed: bool = False) -> None:
        import pyarrow as pa

        self.n, self.schema, self._read = n, schema, read
        names = unique(schema.names) if len(set(schema.names)) < len(schema.names) else schema.names
        metadata = dict(schema.metadata or {})
        noted = json.loads(metadata[b"pandas"]) if b"pandas" in metadata else {}
        if noted:
            metadata[b"pandas"] = json.dumps({**noted, "index_columns": []}).encode()
        self._schema = pa.schema([f.with_name(name) for f, name in zip(schema, names, strict=True)], metadata)
        of_index = [name for name in noted.get("index_columns", ()) if isinstance(name, str) and name in names]
        self._shown = [place for place, name in enumerate(names) if name not in of_index]
        self._known = known or self._look()
        self.index = self._index(noted, of_index) if is_indexed else _range(n)

    def rows(self, first: int, stop: int, only: Sequence[int] | None = None) -> pd.DataFrame:
        places = self._shown if only is None else [self._shown[place] for place in only]
        return frame_of(self._table(places, first, stop), self._known).set_axis(self.index[first:stop], axis=0)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        columns = [frame_of(self._table([place], 0, self.n), self._known).iloc[:, 0] for place in self._shown]
        frame = pd.DataFrame(dict(enumerate(columns)), copy=False) if columns else self.rows(0, self.n)
        return frame.set_axis(self.columns, axis=1).set_axis(self.index, axis=0)

    def head(self, n: int) -> ArrowTable:
        copy = ArrowTable(self.schema, min(n, self.n), self._read, self._known)
        copy._shown, copy.index = self._shown, self.index[:n]
        return copy

    def arrow(self) -> Any:
        """All of it as Arrow's table, with the columns of the index and the names and types that it came with."""
        import pyarrow as pa

        return pa.table([self._column(place, 0, self.n) for place in range(len(self._schema))], schema=self.schema)

    def _column(self, place: int, first: int, stop: int) -> Any:
        """A column's cells, as the type that it came with."""
        cells, kind = self._read(place, first, stop), self._schema.field(place).type
        if cells.type == kind:
            return cells
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self._known.dictionaries.get(self._schema.names[place], pa.array([], kind.value_type))
        chunks = [pc.index_in(chunk, value_set=values).cast(kind.index_type) for chunk in cells.chunks]
        return pa.chunked_array([pa.DictionaryArray.from_arrays(c, values, ordered=kind.ordered) for c in chunks], type=kind)

    def _table(self, places: Sequence[int], first: int, stop: int) -> Any:
        import pyarrow as pa

        fields = pa.schema([self._schema.field(place) for place in places], self._schema.metadata)
        return pa.table([self._column(place, first, stop) for place in places], schema=fields)

    def _look(self) -> Known:
        """What is known of all rows, of a table that is there to be looked through."""
        known = Known()
        for place in range(len(self._schema)):
            if known_of(self._table([place], 0, 0)) is not None:
                for first in range(0, self.n, WINDOW):
                    known = merged(known, known_of(self._table([place], first, min(self.n, first + WINDOW))))
        return known

    def _index(self, noted: dict[str, Any], named: Sequence[str]) -> Any:
        """The index that pandas wrote."""
        import pandas as pd

        described = noted.get("index_columns", [])
        if named:
            places = [self._schema.names.index(name) for name in named]
            table = self._table(places, 0, self.n)
            metadata = {**(table.schema.metadata or {}), b"pandas": json.dumps(noted).encode()}
            return frame_of(table.replace_schema_metadata(metadata)).index
        if len(described) == 1 and isinstance(described[0], dict) and described[0].get("kind") == "range":
            index = pd.RangeIndex(described[0]["start"], described[0]["stop"], described[0]["step"], name=described[0]["name"])
            return index if len(index) == self.n else _range(self.n)
        return _range(self.n)


def can_be_stored(schema: Any) -> bool:
    """Whether each column's cells can be kept a window at a time: codes of values that stand elsewhere cannot where they are nested."""
    import pyarrow as pa

    def holds_codes(kind: Any) -> bool:
        inner = [kind.storage_type] if isinstance(kind, pa.BaseExtensionType) else [kind.field(i).type for i in range(kind.num_fields)]
        return pa.types.is_dictionary(kind) or any(map(holds_codes, inner))

    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types]
    return not any(map(holds_codes, kinds))


def spooled(schema: Any, tables: Iterable[Any], folder: Path | None, *, is_indexed: bool = False) -> ArrowTable:
    """The table of these parts, which all have this schema, each kept as it comes. `folder`: where it lies."""
    import pyarrow as pa

    spool, n, known = Spool(folder), 0, Known()
    fields = [pa.schema([f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f.remove_metadata()]) for f in schema]
    names = unique(schema.names) if len(set(schema.names)) < len(schema.names) else schema.names
    columns: list[list[_Place]] = [[] for _ in fields]
    for table in tables:
        known = merged(known, known_of(table.rename_columns(names)))
        for first in range(0, table.num_rows, WINDOW):
            part = table.slice(first, WINDOW)
            for place, one in enumerate(fields):
                cells = part.column(place)
                cells = (cells.cast(one.types[0]) if pa.types.is_dictionary(cells.type) else cells).combine_chunks()
                chunks = cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]
                at = n
                for chunk in chunks:
                    record = pa.RecordBatch.from_arrays([chunk], schema=one).serialize()
                    columns[place].append(_Place(at, len(chunk), spool.put(memoryview(record))))
                    at += len(chunk)
            n += part.num_rows

    def read(place: int, first: int, stop: int) -> Any:
        chunks = []
        for window in _from(columns[place], first):
            if window.first >= stop:
                break
            buffer = pa.py_buffer(spool.get(window.record))
            cells = pa.ipc.read_record_batch(buffer, fields[place]).column(0)
            begin = max(0, first - window.first)
            chunks.append(cells.slice(begin, min(window.n, stop - window.first) - begin))
        return pa.chunked_array(chunks, type=fields[place].types[0])

    return ArrowTable(schema, n, read, known, is_indexed=is_indexed)


def _from(windows: Sequence[_Place], row: int) -> Iterable[_Place]:
    """The windows from that on which holds a row."""
    low, high = 0, len(windows)
    while low < high:
        middle = (low + high) // 2
        if windows[middle].first + windows[middle].n <= row:
            low = middle + 1
        else:
            high = middle
    return (windows[i] for i in range(low, len(windows)))


def _range(n: int) -> Any:
    import pandas as pd

    return pd.RangeIndex(n)
