"""Rows to DataFrames and back. Beside `files` and `columns` the only module that imports pandas, and only inside its functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from holynb.errors import BadOption, BadPrompt, closest
from holynb.files import StoredTable, is_table, one_column, whole, window
from holynb.prompts.exact_floats import exact_list
from holynb.results import columns as result_columns
from holynb.results.index_labels import json_label

if TYPE_CHECKING:
    import pandas as pd

    from holynb.schema import Schema
    from holynb.types import Embedding, Outcome

__all__ = [
    "build",
    "cross_index",
    "index_spec",
    "is_frame",
    "records",
    "restore_index",
    "select",
    "texts_of_row",
    "with_column",
]

#: The name in `.attrs` of a result.
ORIGIN = "holynb"
#: A text or a column's name in a query: an @ in it calls no variable.
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`""")


def build(
    rows: Sequence[Outcome | None],
    index: Any = None,
    schema: Schema | None = None,
    origin: Mapping[str, Any] | None = None,
    embedding: Embedding | None = None,
    *,
    judged: bool = False,
) -> pd.DataFrame:
    """The result: one line per row, in input order, on `index` (default 0…n-1), with the columns of `schema` last, before
    them a judge's where `judged`.

    embedding: its answers are vectors, in a column of their own.

    origin: JSON types that say where it comes from, kept as `.attrs["holynb"]`: pandas takes them along, and into a Parquet file.

    Dtypes never depend on the outcome: string, category, Int64, Float64, boolean. A row that has not ended has NA everywhere.
    """
    import pandas as pd

    data = result_columns.of(rows, schema, embedding, judged=judged)
    return _signed(pd.DataFrame(data, index=pd.RangeIndex(len(rows)) if index is None else index, copy=False), origin)


def cross_index(index: Any, n: int, routes: Sequence[str], samples: int) -> pd.MultiIndex:
    """The index of prompt × route × sample, in that order: the input's levels, then `asked_route` and `sample`."""
    import pandas as pd

    base = pd.RangeIndex(n) if index is None else index
    labels = base.tolist()
    is_multi = isinstance(base, pd.MultiIndex)
    rows = [(*(label if is_multi else (label,)), route, k) for label in labels for route in routes for k in range(samples)]
    return pd.MultiIndex.from_tuples(rows, names=[*base.names, "asked_route", "sample"])


def is_frame(value: Any) -> bool:
    """Whether `value` is a pandas DataFrame or derives from one, without importing pandas for what cannot be one."""
    return any(kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas" for kind in type(value).__mro__)


def select(df: pd.DataFrame, where: str | None, limit: int | None, variables: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The rows that match the pandas query `where`, the first `limit` of them; `@name` in it is one of `variables`.

    Raises BadOption for an invalid query.
    """
    if where is not None:
        named = {name: _named(where, name, variables or {}) for name in re.findall(r"@\s*(\w+)", _QUOTED.sub("", where))}
        try:
            df = df.query(where, local_dict=named, global_dict={})
        except Exception as exc:
            words = exc.msg if isinstance(exc, SyntaxError) else exc  # without a file and line that do not exist
            unknown = re.fullmatch(r"name '(\w+)' is not defined", str(words))
            near = f".{closest(unknown[1], [str(c) for c in df.columns])}" if unknown else text_hint(df, where)
            raise BadOption(f"--where {where!r} cannot be evaluated on this frame: {words}{near}") from exc
    return df if limit is None else df.head(limit)


def text_hint(df: pd.DataFrame, where: str) -> str:
    """What to write instead where a query names a column that holds numbers as text; empty where it names none."""
    for name in sorted(map(str, df.columns), key=len, reverse=True):  # `unit price` before price
        if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", where) or f"{name}.astype" in where or f"`{name}`.astype" in where:
            continue
        texts = [v for v in df[name].tolist() if isinstance(v, str)] if (df.columns == name).sum() == 1 else []
        if texts and _numeric(texts):
            column = name if name.isidentifier() else f"`{name}`"
            return f". {name} holds text, {texts[0]!r}: compare it with text, or as numbers: {column}.astype('float')"
    return ""


def _numeric(texts: Sequence[str]) -> bool:
    try:
        return all(float(text) is not None for text in texts)
    except ValueError:
        return False


def _named(where: str, name: str, variables: Mapping[str, Any]) -> Any:
    """The variable that a query calls `@name`. Raises BadOption where there is none, or where it is something to call."""
    if name not in variables:
        near = closest(name, [k for k in variables if not k.startswith("_")]) or " Write its value into the expression."
        raise BadOption(f"--where {where!r}: there is no variable {name!r}.{near}")
    if callable(variables[name]) or isinstance(variables[name], ModuleType):
        raise BadOption(f"--where {where!r}: {name} is not a value. Compute it in the cell above, e.g. x = …, and write @x.")
    return variables[name]


def records(df: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as a dict of plain Python values, missing ones None. Of two columns of one name the first is taken."""
    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(df.columns):
        if str(name) not in columns:
            columns[str(name)] = _values(df.iloc[:, place])
    if not columns:
        return [{} for _ in range(len(df))]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(series: pd.Series[Any]) -> list[Any]:
    missing = series.isna()
    values = exact_list(series)
    return [None if is_missing else v for v, is_missing in zip(values, missing, strict=True)] if missing.any() else values


def with_column(source: pd.DataFrame | StoredTable, column: str, texts: pd.DataFrame, extra: Sequence[str] = ()) -> pd.DataFrame:
    """A copy of `source` with `column` and the result's `extra` columns added by position. The source is never changed."""
    copy = whole(source) if isinstance(source, StoredTable) else source.copy()
    for name, values in added(source, column, texts, extra).items():
        copy[name] = values.array
    return _signed(copy, texts.attrs.get(ORIGIN))


def added(source: pd.DataFrame | StoredTable, column: str, texts: pd.DataFrame, extra: Sequence[str] = ()) -> pd.DataFrame:
    """The columns that `with_column` adds to `source`, under their names there: no column that is there is overwritten."""
    taken, columns = {*source.columns, column}, {column: texts["embedding" if "embedding" in texts else "text"]}
    for name in extra:
        named = f"{column}_{name}" if name in taken else name
        taken.add(named)
        columns[named] = texts[name]
    return type(texts)(columns)


def texts_of_row(source: pd.DataFrame | StoredTable, row: int) -> list[str]:
    """The cells of a row as text; empty where there is nothing."""
    import pandas as pd

    one = window(source, row, row + 1)
    cells = [one.iloc[0, i] for i in range(one.shape[1])]
    return ["" if pd.api.types.is_scalar(cell) and pd.isna(cell) else str(cell) for cell in cells]


def _signed(df: pd.DataFrame, origin: Mapping[str, Any] | None) -> pd.DataFrame:
    if origin is not None:
        df.attrs = {**df.attrs, ORIGIN: dict(origin)}
    return df


def origin_of(value: Any) -> str | None:
    """The id of the run that a frame is the result of; None for any other value."""
    origin = value.attrs.get(ORIGIN) if is_frame(value) else None
    run = origin.get("run") if isinstance(origin, dict) else None
    return run if isinstance(run, str) else None


def check_into(source: Any, column: str) -> None:
    """Raise BadOption, before any request, for an existing column or an input without columns."""
    if source is None:
        raise BadOption("--into needs rows with columns: add --df NAME or --file PATH.")
    if column in source.columns:
        raise BadOption(f"--into {column!r}: the input already has a column of this name. Choose another; the input is never changed.")


def check_rows(df: Any, name: str, option: str = "--df") -> None:
    """Raise BadOption or BadPrompt for what is not a frame, has no rows, or has columns that no prompt can name."""
    if not is_frame(df) and not isinstance(df, StoredTable):
        package = type(df).__module__.partition(".")[0]
        kind = type(df).__name__ if package == "builtins" else f"{package}.{type(df).__name__}"
        if isinstance(df, Mapping) and any(is_frame(v) or is_table(v) for v in df.values()):  # such as a DatasetDict
            part = next(repr(k) for k, v in df.items() if is_frame(v) or is_table(v))
            raise BadOption(f"{option} {name} is a {kind} of several tables. Name one of them: part = {name}[{part}], then {option} part.")
        if whole := one_column(df, name):
            raise BadOption(f"{option} {name} is a {kind}, which is one column. Make a table of it: {name} = {whole}")
        hint = f" Write {name} = {name}.to_pandas()." if hasattr(df, "to_pandas") else ""
        raise BadOption(f"{option} {name} is a {kind}, not a DataFrame or another table.{hint}")
    if not len(df):
        raise BadPrompt(f"{option} {name} has no rows, so there is nothing to send.")
    if df.columns.nlevels > 1:
        frame = name if option == "--df" else "df"
        raise BadOption(
            f"{option} {name} has columns of {df.columns.nlevels} levels, and a prompt names a column by one word. "
            f"{'' if option == '--df' else 'Read it yourself and use --df. '}Make them one: "
            f"{frame}.columns = ['_'.join(map(str, c)) for c in {frame}.columns]"
        )


def index_spec(index: Any) -> dict[str, list[Any]]:
    """Names and dtypes of an index's levels, which its labels as JSON lose."""
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    return {"names": [json_label(name) for name in index.names], "kinds": [str(level.dtype) for level in levels]}


def restore_index(stored: Sequence[Any], spec: Mapping[str, Sequence[Any]] | None = None) -> Any:
    """An index from stored labels and its `index_spec`; None where the labels are just 0…n-1."""
    import pandas as pd

    spec = spec or {}
    names, dtypes = spec.get("names", ()), spec.get("kinds", ())
    if isinstance(stored, range) and not any(name is not None for name in names):
        return None
    if list(stored) == list(range(len(stored))) and not any(name is not None for name in names):
        return None
    if not (stored and all(isinstance(label, list) for label in stored)):
        return _with_dtype(pd.Index(list(stored)), dtypes[0] if dtypes else None).rename(names[0] if names else None)
    index = pd.MultiIndex.from_tuples([tuple(label) for label in stored])
    if len(dtypes) != index.nlevels:
        return index
    levels = [_with_dtype(index.get_level_values(i), dtype) for i, dtype in enumerate(dtypes)]
    return pd.MultiIndex.from_arrays(levels, names=list(names))


def _with_dtype(index: Any, dtype: str | None) -> Any:
    """An index in its dtype; unchanged where text cannot be converted to it (intervals)."""
    try:
        return index if dtype is None else index.astype(dtype)
    except (TypeError, ValueError):
        return index


def find_frame(frames: Mapping[str, Any], name: str) -> Any:
    """The DataFrame called `name` among notebook variables. Raises BadOption with the closest name."""
    if name in frames:
        return frames[name]
    names = [k for k, v in frames.items() if not k.startswith("_") and (is_frame(v) or is_table(v))]
    raise BadOption(f"There is no DataFrame called {name!r}.{closest(name, names)}" + (f" Known: {', '.join(names[:8])}." if names else ""))


def from_columns(columns: Mapping[str, tuple[str, Sequence[Any]]], index: str) -> pd.DataFrame:
    """A frame from (dtype, values) by name, indexed by the column `index`. The dtypes do not depend on the values."""
    import pandas as pd

    return pd.DataFrame({name: pd.array(list(values), dtype=dtype) for name, (dtype, values) in columns.items()}).set_index(index)
