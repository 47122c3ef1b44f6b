"""Arrow's tables, and Parquet and Feather, as frames, each value as Arrow has it. Needs pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.files.content import Unreadable
from holynb.files.delimited import unique

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame", "frame_of"]

#: How an Arrow stream begins, which the library datasets keeps its caches in; a file of Arrow's begins with its name.
_STREAM = b"\xff\xff\xff\xff"


def frame(path: Path) -> pd.DataFrame:
    """The frame in a file, with the index that pandas wrote. Raises Unreadable; ValueError and OSError of pyarrow's."""
    return frame_of(_table(path))


def frame_of(table: Any) -> pd.DataFrame:
    """The frame of an Arrow table, with the index that pandas wrote. Raises ValueError of pyarrow's."""
    table = _with_times(table)
    if len(set(table.column_names)) < len(table.column_names):
        table = table.rename_columns(unique(table.column_names))
    rows: pd.DataFrame = table.to_pandas()
    named = [name for name in (table.schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)]
    columns = [column for name, column in zip(table.column_names, table.columns, strict=True) if name not in named]
    for place, column in enumerate(columns):
        if (exact := _exact(column)) is not None:
            exact.index = rows.index
            rows.isetitem(place, exact)
    return rows


def _table(path: Path) -> Any:
    try:
        if path.suffix.lower() != ".parquet":
            from pyarrow import ipc
            from pyarrow.feather import read_table

            with path.open("rb") as stream:
                if stream.read(4) == _STREAM:
                    stream.seek(0)
                    return ipc.open_stream(stream).read_all()
        elif path.is_dir():  # a data set in parts
            from pyarrow.parquet import read_table
        else:  # without the columns that `read_table` makes of a folder's name, such as year=2026
            from pyarrow.parquet import ParquetFile

            with ParquetFile(path) as file:
                return file.read()
    except ImportError:
        raise Unreadable("needs pyarrow: pip install pyarrow") from None
    return read_table(path)


def _with_times(table: Any) -> Any:
    """Times of day with nanoseconds as text: Python's end at microseconds, and pandas refuses the whole file."""
    import pyarrow as pa

    for place, column in enumerate(table.columns):
        if column.type == pa.time64("ns"):
            try:
                column.cast(pa.time64("us"))
            except pa.ArrowInvalid:
                table = table.set_column(place, table.column_names[place], column.cast(pa.string()))
    return table


def _exact(column: Any) -> Any:
    """A column that `to_pandas` would change, as a Series that holds each value as it is; None where pandas has a dtype for it."""
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        texts = pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
        return None if texts else _series(column.cast(kind.value_type))
    if column.null_count and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):  # a gap makes them floats and objects
        return column.to_pandas(types_mapper=_nullable().get)
    if getattr(kind, "extension_name", "").startswith("pandas."):  # a period is no number, an interval no object
        return None
    if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):  # pandas makes arrays of them, and 3 a 3.0 beside a gap
        return pd.Series([_plain(value, kind) for value in column.to_pylist()], dtype=object)
    return None


def _series(column: Any) -> Any:
    exact = _exact(column)
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
