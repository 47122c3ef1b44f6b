"""Arrow's tables, and Parquet and Feather, as frames, each value as Arrow has it. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.files.content import Unreadable
from holynb.files.delimited import unique

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Known", "frame_of", "known_of", "merged", "opened", "together"]

#: How an Arrow stream begins, which the library datasets keeps its caches in; a file of Arrow's begins with its name.
_STREAM, _FILE = b"\xff\xff\xff\xff", b"ARROW1"
#: Of a column of a Parquet file that are read at once.
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of all rows of a table of which a frame is made in parts: the columns of whole numbers or booleans with gaps, those of
    times of day finer than Python's, and the values that the codes of a column stand for.
    """

    gaps: frozenset[str] = frozenset()
    fine: frozenset[str] = frozenset()
    dictionaries: Mapping[str, Any] = field(default_factory=dict)


def known_of(table: Any) -> Known | None:
    """What there is to know of these rows; None where no column of the table has anything of the kind."""
    import pyarrow as pa

    gaps, fine, dictionaries, any_of = set(), set(), {}, False
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        coded = pa.types.is_dictionary(kind)
        whole = _is_whole(kind.value_type if coded else kind)
        any_of = any_of or whole or coded or kind == pa.time64("ns")
        if whole and column.null_count:
            gaps.add(name)
        if kind == pa.time64("ns") and _is_fine(column):
            fine.add(name)
        if coded:
            values = [chunk.dictionary for chunk in column.chunks] or [pa.array([], kind.value_type)]
            dictionaries[name] = _distinct(values)
    return Known(frozenset(gaps), frozenset(fine), dictionaries) if any_of else None


def _is_whole(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def merged(known: Known, more: Known | None) -> Known:
    """What is known of the rows of both."""
    if more is None:
        return known
    both = {name: _distinct([known.dictionaries[name], v]) if name in known.dictionaries else v for name, v in more.dictionaries.items()}
    return Known(known.gaps | more.gaps, known.fine | more.fine, {**known.dictionaries, **both})


def _distinct(parts: list[Any]) -> Any:
    import pyarrow as pa

    first = parts[0]
    return first if all(part is first or part.equals(first) for part in parts) else pa.chunked_array(parts).unique()


def frame_of(table: Any, known: Known | None = None) -> pd.DataFrame:
    """The frame of an Arrow table, with the index that pandas wrote. Raises ValueError of pyarrow's.

    `known`: of all rows, where these are a part of them.
    """
    if len(set(table.column_names)) < len(table.column_names):
        table = table.rename_columns(unique(table.column_names))
    table = _with_times(table, known)
    rows: pd.DataFrame = table.to_pandas()
    named = [name for name in (table.schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)]
    columns = {name: column for name, column in zip(table.column_names, table.columns, strict=True) if name not in named}
    for place, (name, column) in enumerate(columns.items()):
        gaps = bool(column.null_count) if known is None else name in known.gaps
        if (exact := _exact(column, gaps=gaps)) is not None:
            exact.index = rows.index
            rows.isetitem(place, exact)
    return rows


@contextmanager
def opened(path: Path, rows: int) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema of a file's table and its parts, of at most so many `rows` where the file lets itself be read so. Raises Unreadable, and
    ValueError and OSError of pyarrow's.
    """
    try:
        import pyarrow as pa
        from pyarrow import ipc
        from pyarrow.feather import read_table as read_feather
        from pyarrow.parquet import ParquetFile, read_table
    except ImportError:
        raise Unreadable("needs pyarrow: pip install pyarrow") from None
    if path.suffix.lower() != ".parquet":
        with path.open("rb") as stream:
            head = stream.read(6)
            stream.seek(0)
            if head[:4] == _STREAM:
                with ipc.open_stream(stream) as reader:
                    yield reader.schema, (pa.Table.from_batches([batch]) for batch in reader)
                return
            if head == _FILE:
                with ipc.open_file(stream) as reader:
                    yield reader.schema, (pa.Table.from_batches([reader.get_batch(i)]) for i in range(reader.num_record_batches))
                return
        table = read_feather(path)
    elif path.is_dir():  # a data set in parts
        table = read_table(path)
    else:  # without the columns that `read_table` makes of a folder's name, such as year=2026
        with ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file.schema_arrow, (pa.Table.from_batches([batch]) for batch in file.iter_batches(batch_size=rows))
        return
    yield table.schema, iter([table])


def together(schema: Any, parts: Iterator[Any]) -> Any:
    """The table of all parts."""
    import pyarrow as pa

    return pa.concat_tables([schema.empty_table(), *parts])


def _with_times(table: Any, known: Known | None) -> Any:
    """Times of day with nanoseconds as text: Python's end at microseconds, and pandas refuses the whole file."""
    import pyarrow as pa

    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if column.type == pa.time64("ns") and (_is_fine(column) if known is None else name in known.fine):
            table = table.set_column(place, name, column.cast(pa.string()))
    return table


def _is_fine(column: Any) -> bool:
    """Whether a time of day has more than microseconds."""
    import pyarrow as pa

    try:
        column.cast(pa.time64("us"))
    except pa.ArrowInvalid:
        return True
    return False


def _exact(column: Any, *, gaps: bool) -> Any:
    """A column that `to_pandas` would change, as a Series that holds each value as it is; None where pandas has a dtype for it.

    gaps: whether a value is missing, here or in another part of the column.
    """
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        texts = pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
        return None if texts else _series(column.cast(kind.value_type), gaps=gaps)
    if gaps and _is_whole(kind):  # a gap makes them floats and objects
        return column.to_pandas(types_mapper=_nullable().get)
    if getattr(kind, "extension_name", "").startswith("pandas."):  # a period is no number, an interval no object
        return None
    if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):  # pandas makes arrays of them, and 3 a 3.0 beside a gap
        return pd.Series([_plain(value, kind) for value in column.to_pylist()], dtype=object)
    return None


def _series(column: Any, *, gaps: bool) -> Any:
    exact = _exact(column, gaps=gaps)
    return column.to_pandas() if exact is None else exact


def _nullable() -> dict[Any, Any]:
    import pandas as pd
    import pyarrow as pa

    names = [f"{sign}{bits}" for sign in ("Int", "UInt") for bits in (8, 16, 32, 64)]
    return {**{getattr(pa, name.lower())(): pd.api.types.pandas_dtype(name) for name in names}, pa.bool_(): pd.BooleanDtype()}


def _plain(value: Any, kind: Any) -> Any:
    """A nested value as dicts and lists; a small float as it is shown, 0.1 and not 0.10000000149011612."""
    import numpy as np
    import pyarrow as pa

    if value is None:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return float(str((np.float32 if pa.types.is_float32(kind) else np.float16)(value)))
    if pa.types.is_map(kind):
        pairs = [(_plain(k, kind.key_type), _plain(v, kind.item_type)) for k, v in value]
        return dict(pairs) if len({k for k, _ in pairs}) == len(pairs) else pairs
    if pa.types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if pa.types.is_nested(kind) and isinstance(value, list):
        return [_plain(item, kind.value_type) for item in value]
    return value
