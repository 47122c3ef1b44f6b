"""Tables of other libraries as the frame that a run works on, and back as their kind: polars, Arrow, DuckDB, datasets, what narwhals reads.

All of them go through Arrow, so that a cell means the same as in a Parquet file. Needs pyarrow.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.errors import BadOption
from holynb.files.arrow_table import ArrowTable, can_be_stored, spooled
from holynb.files.cutting import WINDOW
from holynb.spool import MANY

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Given", "column_names", "given", "is_table", "one_column", "to_arrow"]

#: Package → its kinds of table. Looked at where a notebook's variables are listed, without importing anything.
KINDS = {
    "polars": ("DataFrame", "LazyFrame"),
    "pyarrow": ("Table", "RecordBatch"),
    "duckdb": ("DuckDBPyRelation",),
    "_duckdb": ("DuckDBPyRelation",),
    "datasets": ("Dataset", "IterableDataset"),
    "modin": ("DataFrame",),
    "cudf": ("DataFrame",),
    "dask": ("DataFrame",),
    "ibis": ("Table",),
    "pyspark": ("DataFrame",),
    "sqlframe": ("DataFrame", "DuckDBDataFrame"),
}


def is_table(value: Any) -> bool:
    """Whether `value` is a table of a library that is known by name. Imports nothing."""
    return any(kind.__name__ in KINDS.get(kind.__module__.partition(".")[0], ()) for kind in type(value).__mro__)


def one_column(value: Any, name: str) -> str:
    """The code that makes a table of what is one column (a Series, an index, an Arrow array); empty where `value` is none."""
    if hasattr(value, "to_frame"):
        return f"{name}.to_frame({'' if getattr(value, 'name', None) else repr('text')})"
    arrays = type(value).__module__.partition(".")[0] == "pyarrow" and hasattr(value, "to_pylist") and not is_table(value)
    return f'pyarrow.table({{"text": {name}}})' if arrays else ""


def column_names(value: Any) -> list[str]:
    """The names of a table's columns, of pandas too; nothing of it is computed."""
    for path in ("collect_schema", "column_names", "schema.names", "columns"):  # the first of polars, which warns of a lazy frame's others
        with suppress(AttributeError):
            names = operator.attrgetter(path)(value)
            names = names().names() if path == "collect_schema" else names
            return list(map(str, names))
    return []


@dataclass(frozen=True, slots=True)
class Given:
    """A table as it was given: itself, its rows as Arrow, and the places of those that were chosen (None: all)."""

    native: Any
    table: Any
    rows: Sequence[int] | None = None

    @property
    def arrow(self) -> Any:
        """All of it as Arrow."""
        return self.table.arrow() if isinstance(self.table, ArrowTable) else self.table

    def source(self) -> pd.DataFrame | ArrowTable:
        """All of it as pandas, each value as Arrow has it, on the index 0…n-1; of many rows a stored table."""
        return self.table if isinstance(self.table, ArrowTable) else self.frame()

    def frame(self) -> pd.DataFrame:
        """All of it as pandas, of however many rows."""
        from holynb.files.arrow import frame_of

        return self.table.frame() if isinstance(self.table, ArrowTable) else frame_of(self.table).reset_index(drop=True)

    def chosen(self, rows: Sequence[int]) -> Given:
        """The same of which only these rows are asked, in this order."""
        places = rows if isinstance(rows, range) else list(rows)
        n = self.table.n if isinstance(self.table, ArrowTable) else self.table.num_rows
        return self if len(places) == n and all(map(operator.eq, places, range(n))) else replace(self, rows=places)

    def with_columns(self, columns: pd.DataFrame) -> Any:
        """The chosen rows with these columns beside their own, as a new table of the same kind; what was given stays as it is."""
        table = self.arrow if self.rows is None else self.arrow.take(list(self.rows))
        for name, column in zip(columns.columns, to_arrow(columns.reset_index(drop=True)).columns, strict=True):
            table = table.append_column(str(name), column)
        return self.like(table)

    def like(self, table: Any) -> Any:
        """An Arrow table as the kind of table that was given; Arrow where that cannot be made of one."""
        native = self.native
        package = _package(native)
        if package == "pyarrow":
            return table
        if package == "datasets":
            return import_module("datasets").Dataset(table).to_iterable_dataset() if _is_iterated(native) else type(native)(table)
        if package in ("duckdb", "_duckdb"):
            import duckdb

            return duckdb.from_arrow(table)
        return _by_narwhals(native, table)


def given(value: Any, folder: Path | None = None) -> Given | None:
    """The table that `value` is; None where it is none, or pandas' own. Raises BadOption: pyarrow is missing, or it cannot be read.

    What is computed of many rows, or can be read only once, lies in `folder` while it is used.
    """
    package = _package(value)
    if package == "pandas" or not (is_table(value) or hasattr(value, "__arrow_c_stream__")) or one_column(value, ""):
        return None
    try:
        import pyarrow  # noqa: F401, ICN001 - for the message
    except ImportError:
        raise BadOption(f"A {package} table needs pyarrow: pip install pyarrow. Or give it as pandas.") from None
    try:
        table = _stored(value, package, folder)
        if table is None or len(table) < MANY:
            table = _read(value, package) if table is None else table.arrow()
        return Given(value, table)
    except Exception as exc:
        raise BadOption(f"This {package} table cannot be read: {type(exc).__name__}: {exc}") from exc


def to_arrow(frame: pd.DataFrame) -> Any:
    """A result as an Arrow table: the levels of an index that says something come first, as columns."""
    import pandas as pd
    import pyarrow as pa

    plain = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None and frame.index.start == 0 and frame.index.step == 1
    named = frame if plain else frame.set_axis(_named_levels(frame), axis=0).reset_index()
    return pa.Table.from_pandas(named, preserve_index=False)


def _named_levels(frame: pd.DataFrame) -> Any:
    """The index with a name for each level that no column has."""
    taken = {str(name) for name in frame.columns}
    names = []
    for place, level in enumerate(frame.index.names):
        named = str(level) if level is not None else "index" if frame.index.nlevels == 1 else f"level_{place}"
        while named in taken:
            named += "_"
        taken.add(named)
        names.append(named)
    return frame.index.set_names(names)


def _package(value: Any) -> str:
    """The package that a table's class is known from: a subclass is of the package of the class that it extends."""
    for kind in type(value).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "pandas" or kind.__name__ in KINDS.get(package, ()):
            return package
    return type(value).__module__.partition(".")[0]


def _is_iterated(value: Any) -> bool:
    """Whether a data set has no rows at places, and can only be gone through."""
    return any(kind.__name__ == "IterableDataset" for kind in type(value).__mro__)


def _stored(value: Any, package: str, folder: Path | None) -> ArrowTable | None:
    """A table that is not whole in memory, or that would be there twice, as a stored one; None where it is better read at once."""
    if (parts := _parts(value, package)) is not None:
        first = next(parts, None)
        whole = None if first is None or not can_be_stored(first.schema) else spooled(first.schema, chain([first], parts), folder)
        if whole is None and first is not None:
            import pyarrow as pa

            return _in_place(pa.concat_tables([first, *parts]))
        return whole
    if package == "polars":
        return None if len(value) < MANY else _of_slices(len(value), lambda at, n: _without_views(value.slice(at, n).to_arrow()))
    if package == "datasets":
        rows = value.with_format("arrow")
        return None if len(value) < MANY else _of_slices(len(value), lambda at, n: _without_views(rows[at : at + n]))
    return _in_place(_without_views(value)) if package == "pyarrow" and hasattr(value, "num_rows") and hasattr(value, "columns") else None


def _parts(value: Any, package: str) -> Iterator[Any] | None:
    """The parts of what is computed as it is read, as Arrow's tables of one schema; None for what is there."""
    import pyarrow as pa

    if hasattr(value, "collect_batches"):  # polars, lazy
        return (_without_views(part.to_arrow()) for part in value.collect_batches(chunk_size=WINDOW, maintain_order=True))
    if package in ("duckdb", "_duckdb"):
        value = value.to_arrow_reader(WINDOW) if hasattr(value, "to_arrow_reader") else value.fetch_record_batch(WINDOW)
    if isinstance(value, pa.RecordBatchReader):
        return (_without_views(pa.Table.from_batches([batch], value.schema)) for batch in chain(value, [_no_rows(value.schema)]))
    if package == "datasets" and _is_iterated(value):
        return (_without_views(part) for part in value.with_format("arrow").iter(WINDOW))
    return None


def _no_rows(schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([], schema)


def _of_slices(n: int, part: Any) -> ArrowTable:
    """A table that is there, read a part at a time. part: so many rows from a row on, as Arrow's table."""
    last: dict[tuple[int, int], Any] = {}

    def read(place: int, first: int, stop: int) -> Any:
        if (first, stop) not in last:  # its columns are asked for one after the other
            last.clear()
            last[first, stop] = part(first, stop - first)
        return last[first, stop].column(place)

    return ArrowTable(part(0, 0).schema, n, read, None)


def _in_place(table: Any) -> ArrowTable:
    return ArrowTable(table.schema, table.num_rows, lambda place, first, stop: table.column(place).slice(first, stop - first), None)


def _read(value: Any, package: str) -> Any:
    """All of a table as Arrow, without views, for which Arrow has hardly a function."""
    import narwhals as nw
    import pyarrow as pa

    if package == "datasets":
        return _without_views(value.with_format("arrow")[:])
    if isinstance(value, pa.RecordBatch):
        return _without_views(pa.Table.from_batches([value]))
    table = nw.from_native(value, pass_through=True)
    if isinstance(table, nw.LazyFrame):
        table = table.collect("pyarrow")
    return _without_views(table.to_arrow() if isinstance(table, nw.DataFrame) else pa.table(value))


def _without_views(table: Any) -> Any:
    import pyarrow as pa

    for place, column in enumerate(table.columns):
        kind = _plain(column.type)
        if kind != column.type:
            coded = pa.types.is_dictionary(column.type)  # cannot be cast
            plain = pa.chunked_array([pa.array(column.to_pylist(), type=kind)]) if coded else column.cast(kind)
            table = table.set_column(place, table.column_names[place], plain)
    return table


def _plain(kind: Any) -> Any:
    """The Arrow type without views; itself where it has none."""
    import pyarrow as pa

    if kind in (pa.string_view(), pa.binary_view()):
        return pa.large_string() if kind == pa.string_view() else pa.large_binary()
    if pa.types.is_dictionary(kind):
        plain = _plain(kind.value_type)
        return kind if plain == kind.value_type else plain
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    return kind


def _by_narwhals(native: Any, table: Any) -> Any:
    """An Arrow table as the kind that `native` is; itself for a kind that narwhals only reads, or whose library would need another one."""
    import narwhals as nw
    import pyarrow as pa

    kind = nw.from_native(native, pass_through=True)
    if not isinstance(kind, nw.DataFrame | nw.LazyFrame):
        return table
    try:
        if isinstance(kind, nw.DataFrame):
            return nw.from_arrow(table, backend=kind.implementation).to_native()
        if kind.implementation is nw.Implementation.POLARS:
            return nw.from_arrow(table, backend="polars").lazy().to_native()
        return nw.from_arrow(table, backend="pyarrow").lazy(backend=kind.implementation).to_native()
    except (ImportError, TypeError, ValueError, pa.ArrowException, *_errors_of(_package(native))):
        return table


def _errors_of(package: str) -> tuple[type[Exception], ...]:
    """What a library raises for a type of Arrow's that it has none for, beside Python's own errors."""
    if package != "polars":
        return ()
    import polars as pl

    return (pl.exceptions.PolarsError,)
