"""A table written into a new file a window of rows at a time: Parquet, JSON lines or CSV. Knows no run; renames nothing.

Every window has the same columns. The types of a Parquet file are those of the first window, but for columns of objects, whose type is
found beforehand over all their values.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from holynb.prompts.exact_floats import exact_list

__all__ = ["SUFFIXES", "RowsFile", "arrow_type", "missing_for"]

#: The names of files that can be written end so.
SUFFIXES = (".parquet", ".jsonl", ".csv")


def missing_for(suffix: str) -> str:
    """Why no such file can be written; empty where one can."""
    return "Parquet needs pyarrow: pip install 'holynb[files]'" if suffix == ".parquet" and not importlib.util.find_spec("pyarrow") else ""


class RowsFile:
    """A new file of this path, whose kind is `suffix`. Used in a `with`; what is written is on the disk at its end.

    kinds: the Arrow type of columns of objects, None for what stays nested in JSON and is JSON's text elsewhere.
    """

    def __init__(self, path: Path, suffix: str, kinds: Mapping[str, Any]) -> None:
        self._suffix, self._kinds = suffix, kinds
        self._file: IO[bytes] = path.open("wb")
        self._parquet: Any = None
        self._schema: Any = None
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self._parquet is not None:
                self._parquet.close()
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, frame: Any) -> None:
        """Add a window of rows, without its index. The first may be empty, and still says which columns there are."""
        if self._suffix == ".parquet":
            self._add_to_parquet(frame)
        elif self._suffix == ".jsonl":
            names = [str(name) for name in frame.columns]
            values = [_values(frame.iloc[:, place]) for place in range(frame.shape[1])]
            lines = "".join(_json_line(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True))
            self._file.write(lines.encode("utf-8", "replace"))
        else:
            text = _as_text(frame, self._kinds).to_csv(index=False, header=not self._begun, lineterminator="\r\n")
            self._file.write(text.encode("utf-8", "replace"))
        self._begun = True

    def _add_to_parquet(self, frame: Any) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        frame = _as_text(frame, self._kinds)
        if self._schema is None:
            inferred = _whole(pa.Table.from_pandas, frame, preserve_index=False).schema
            for name, kind in self._kinds.items():
                inferred = inferred.set(inferred.get_field_index(name), pa.field(name, kind or pa.string()))
            self._schema = inferred.with_metadata(_readable(inferred.metadata))
            self._parquet = ParquetWriter(self._file, self._schema)
        self._parquet.write_table(_whole(pa.Table.from_pandas, frame, schema=self._schema, preserve_index=False).cast(self._schema))


def arrow_type(pieces: Callable[[], Iterable[Any]]) -> Any:
    """The Arrow type that holds every value of a column of objects, which comes in parts as often as it is asked for; None where there is
    none.
    """
    import pyarrow as pa

    try:
        kinds = [pa.schema([("v", _whole(pa.array, piece, from_pandas=True).type)]) for piece in pieces()]
        kind = pa.unify_schemas(kinds, promote_options="permissive").field(0).type if kinds else pa.null()
        if len(set(kinds)) > 1:
            for piece in pieces():
                _whole(pa.array, piece, from_pandas=True, type=kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    return pa.string() if pa.types.is_null(kind) else kind


def _whole(make: Any, values: Any, **how: Any) -> Any:
    """`make(values)`; where a text holds half of a surrogate pair, which no UTF-8 can, a question mark stands for it."""
    try:
        return make(values, **how)
    except UnicodeEncodeError:
        return make(values.map(_writable), **how)


def _writable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _readable(metadata: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Arrow's note of pandas' types, without the name of a list's type, which pandas writes and cannot read."""
    noted = json.loads(metadata[b"pandas"])
    for column in noted["columns"]:
        if "list" in str(column["numpy_type"]):
            column["numpy_type"] = "object"
    return {**metadata, b"pandas": json.dumps(noted).encode()}


def _as_text(frame: Any, kinds: Mapping[str, Any]) -> Any:
    """Columns of objects that have no type of their own as texts, lists and objects as JSON."""
    copy = frame.copy(deep=False)
    for place, name in enumerate(frame.columns):
        if name in kinds and kinds[name] is None:
            values = ["" if v is None else v if isinstance(v, str) else _cell(v) for v in _values(frame.iloc[:, place])]
            missing = frame.iloc[:, place].isna().to_numpy()
            copy.isetitem(place, [None if gone else value for value, gone in zip(values, missing, strict=True)])
    return copy


def _cell(value: Any) -> str:
    return _json(value) if isinstance(value, list | tuple | dict) or hasattr(value, "tolist") else str(value)


def _values(series: Any) -> list[Any]:
    missing = series.isna().to_numpy()
    values = series.array.__arrow_array__().to_pylist() if "list" in str(series.dtype) else exact_list(series)
    return [None if gone else value for value, gone in zip(values, missing, strict=True)] if missing.any() else values


def _json_line(row: Mapping[str, Any]) -> str:
    return _json(row) + "\n"


def _json(value: Any) -> str:
    """JSON's text; what JSON has no way to write (a NaN, an infinity) is null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (ValueError, TypeError):
        return json.dumps(_finite(value), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """A value that JSON does not know: arrays as lists, times in ISO's form, anything else as it is shown."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return list(value)
    return _finite(value.tolist()) if hasattr(value, "tolist") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
