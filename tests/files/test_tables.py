"""Tables of other libraries: each goes in as it is and comes back as its kind; a cell means what it means in a Parquet file."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import datasets
import duckdb
import narwhals
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from holynb import files, infer
from holynb.errors import BadOption
from holynb.files import tables
from holynb.results import frame
from holynb.run.run import Run

ROWS = pl.DataFrame(
    {"n": [1, None, 3], "text": ["하나", "b", None], "parts": [[1, 2], [], [3]], "price": [Decimal("1.10"), None, Decimal("3.00")]}
)
datasets.disable_progress_bars()


def kinds() -> dict[str, Any]:
    arrow = ROWS.to_arrow()
    return {
        "polars": ROWS,
        "polars lazy": ROWS.lazy(),
        "arrow": arrow,
        "record batch": arrow.to_batches()[0],
        "duckdb": duckdb.from_arrow(arrow),
        "datasets": datasets.Dataset(arrow),
    }


def as_arrow(value: Any) -> pa.Table:
    table = tables.given(value)
    assert table is not None
    return table.arrow


@pytest.mark.parametrize("kind", list(kinds()))
def test_a_table_is_read_as_it_is_and_its_columns_are_named_without_computing(kind: str) -> None:
    value = kinds()[kind]
    assert files.is_table(value)
    assert files.column_names(value) == ["n", "text", "parts", "price"]
    table = files.given(value)
    assert table is not None
    read = table.frame()
    assert read["n"].tolist() == [1, pd.NA, 3]  # whole numbers beside a gap stay whole
    assert read["text"].tolist()[:2] == ["하나", "b"]
    assert read["parts"].tolist() == [[1, 2], [], [3]]
    assert read["price"].tolist()[::2] == [Decimal("1.10"), Decimal("3.00")]


@pytest.mark.parametrize("kind", list(kinds()))
def test_a_cell_gives_the_kind_of_table_that_it_got(kind: str) -> None:
    value = kinds()[kind]
    run = infer("n={{ n }} {{ text }}", "sim/echo", df=value, cache=False).wait()
    answers = run.value()
    expected = pa.Table if kind == "record batch" else type(value)
    assert type(answers) is expected
    assert as_arrow(answers)["text"].to_pylist() == ["n=1 하나", "n= b", "n=3 "]
    assert isinstance(run.frame(), pd.DataFrame)
    assert run.table()["status"].to_pylist() == ["ok"] * 3


@pytest.mark.parametrize("kind", list(kinds()))
def test_into_adds_a_column_to_a_copy_and_nothing_else_changes(kind: str) -> None:
    value = kinds()[kind]
    before = as_arrow(value)
    run = infer("n={{ n }}", "sim/echo", df=value, into="answer", cache=False).wait()
    after = as_arrow(run.value())
    assert after.column_names == [*before.column_names, "answer"]
    assert after.select(before.column_names).to_pylist() == before.to_pylist()
    assert [f.type for f in after.schema][:4] == [f.type for f in before.schema]
    assert after["answer"].to_pylist() == ["n=1", "n=", "n=3"]
    assert files.column_names(value) == before.column_names


def test_chosen_rows_are_those_that_come_back() -> None:
    run = infer("{{ n }}", "sim/echo", df=ROWS, where="n >= 3", into="answer", cache=False).wait()
    assert run.value().to_dicts() == [{"n": 3, "text": None, "parts": [3], "price": Decimal("3.00"), "answer": "3"}]
    limited = infer("n={{ n }}", "sim/echo", df=ROWS, limit=2, into="answer", cache=False).wait().value()
    assert limited["answer"].to_list() == ["n=1", "n="]


def test_a_schema_s_columns_come_along_under_free_names() -> None:
    table, source = pa.table({"n": [1, 2]}), pd.DataFrame({"n": [1, 2]})
    texts = pd.DataFrame({"text": ["a", "b"], "n": [7, 8], "mood": ["good", "bad"]})
    columns = frame.added(source, "answer", texts, ["n", "mood"])
    given = files.given(table)
    assert given is not None
    assert given.with_columns(columns).to_pylist()[0] == {"n": 1, "answer": "a", "answer_n": 7, "mood": "good"}
    assert frame.with_column(source, "answer", texts, ["n", "mood"]).columns.tolist() == ["n", "answer", "answer_n", "mood"]


def test_a_table_of_pandas_keeps_its_index_as_columns() -> None:
    source = pd.DataFrame({"text": ["a", "b"]}, index=pd.Index(["x", "y"], name="text"))
    table = infer("{{ text }}", "sim/echo", df=source, cache=False).wait().table()
    assert table["text_"].to_pylist() == ["x", "y"]  # beside the answers' own `text`


def test_a_row_that_is_asked_twice_has_its_place_beside_it() -> None:
    crossed = infer("{{ n }}", "sim/echo", df=ROWS, where="n >= 3", samples=2, cache=False).wait().value()
    assert crossed.columns[:3] == ["level_0", "asked_route", "sample"]
    assert crossed["level_0"].to_list() == [2, 2]


def test_dtypes_of_a_result_have_their_kind_in_arrow() -> None:
    table = infer(["x"], "sim/echo", cache=False).wait().table()
    kind = {f.name: f.type for f in table.schema}
    assert pa.types.is_dictionary(kind["status"])
    assert kind["attempts"] == kind["tokens_in"] == pa.int64()
    assert kind["cost"] == pa.float64()
    assert kind["cached"] == pa.bool_()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"train": ROWS, "test": ROWS}, r"is a dict of several tables. Name one of them: part = t\['train'\], then --df part."),
        (datasets.DatasetDict({"train": datasets.Dataset(ROWS.to_arrow())}), r"is a datasets.DatasetDict of several tables"),
        (pl.Series("a", [1]), "is a polars.Series, which is one column"),
        ([1, 2], "is a list, not a DataFrame"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(value: Any, words: str) -> None:
    with pytest.raises(BadOption, match=words) as refused:
        frame.check_rows(value, "t")
    assert "\n" not in str(refused.value)


def test_a_table_that_cannot_be_read_is_refused_before_anything_is_sent() -> None:
    broken = ROWS.lazy().select(pl.col("nothing like this"))
    with pytest.raises(BadOption, match="This polars table cannot be read: ColumnNotFoundError"):
        infer("x", "sim/echo", df=broken)


def test_an_empty_table_and_a_subclass() -> None:
    class Mine(pl.DataFrame):
        pass

    with pytest.raises(Exception, match="has no rows"):
        infer("{{ n }}", "sim/echo", df=ROWS.clear())
    run: Run = infer("{{ n }}", "sim/echo", df=Mine({"n": [1]}), cache=False).wait()
    assert run.value()["text"].to_list() == ["1"]


def test_times_come_as_python_has_them() -> None:
    at = dt.datetime(2026, 1, 2, 3, 4, 5)
    table = pl.DataFrame({"at": [at], "kind": pl.Series(["a"], dtype=pl.Categorical)})
    run = infer("{{ at }} {{ kind }}", "sim/echo", df=table, cache=False).wait()
    assert run.value()["text"].to_list() == ["2026-01-02 03:04:05 a"]


@pytest.mark.parametrize(
    ("column", "kind", "code"),
    [
        (pl.Series("x", ["a"]), "polars.Series", "df.to_frame()"),
        (pl.Series(["a"]), "polars.Series", "df.to_frame('text')"),
        (pd.Series(["a"], name="x"), "pandas.Series", "df.to_frame()"),
        (pd.Series(["a"]), "pandas.Series", "df.to_frame('text')"),
        (pa.chunked_array([["a"]]), "pyarrow.ChunkedArray", 'pyarrow.table({"text": df})'),
        (pa.array(["a"]), "pyarrow.StringArray", 'pyarrow.table({"text": df})'),
    ],
)
def test_one_column_is_refused_with_the_code_that_makes_a_table_of_it(column: Any, kind: str, code: str) -> None:
    with pytest.raises(BadOption) as caught:
        infer("{{ x }}", "sim/echo", df=column, cache=False)
    assert str(caught.value) == f"--df df is a {kind}, which is one column. Make a table of it: df = {code}"
    assert tables.column_names(eval(code, {"df": column, "pyarrow": pa})) in (["x"], ["text"])


def test_what_a_library_has_no_type_for_comes_back_as_arrow_and_a_fault_of_ours_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals = pa.table({"a": pa.array([(1, 2, 3)], type=pa.month_day_nano_interval())})
    like = tables.Given(ROWS, ROWS.to_arrow()).like
    assert like(intervals) is intervals
    monkeypatch.setattr(narwhals, "from_arrow", lambda *_, **__: {}["ours"])
    with pytest.raises(KeyError):
        like(intervals)
