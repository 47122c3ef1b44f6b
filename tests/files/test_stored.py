"""Tables of many rows that are read a window at a time: what comes is what the whole table says, and little of it is held."""

from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from pyarrow import feather, parquet

from holynb import files, infer
from holynb.errors import BadOption
from holynb.files import arrow_table, cutting, reader, stored, tables
from holynb.files.arrow import frame_of
from holynb.results import frame

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
datasets.disable_progress_bars()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of two rows, of tables of which three are many."""
    for module in (cutting, stored, arrow_table, tables):
        monkeypatch.setattr(module, "WINDOW", 2)
    for module in (reader, tables):
        monkeypatch.setattr(module, "MANY", 3)


def alike(table: files.StoredTable, whole: pd.DataFrame) -> None:
    """The stored table is this frame, all of it and in any part."""
    assert_frame_equal(table.frame(), whole)
    assert table.columns.equals(whole.columns)
    assert table.index.equals(whole.index)
    said = frame.records(whole)
    for first in range(len(whole)):
        for stop in range(first, len(whole) + 1):
            part = table.rows(first, stop)
            assert frame.records(part) == said[first:stop]
            assert part.index.equals(whole.index[first:stop])
            assert [str(d) == "object" for d in part.dtypes] == [str(d) == "object" for d in whole.dtypes]
    some = [n for n in range(len(whole)) if n % 3]
    assert frame.records(files.taken(table, some)) == [said[n] for n in some]
    assert frame.records(table.head(2).frame()) == said[:2]
    assert table.head(2).frame().dtypes.equals(whole.dtypes)
    for place in range(whole.shape[1]):
        assert [v for piece in files.pieces(table, place) for v in frame.records(piece.to_frame("c"))] == frame.records(
            whole.iloc[:, place].to_frame("c")
        )


def in_windows_of(n: int, path: Path) -> files.StoredTable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "WINDOW", n)
        table = reader._read(path, None)
    assert isinstance(table, files.StoredTable)
    return table


# -- types of a column follow from all of it ---------------------------------------------------------------------------------
CELLS = st.sampled_from(["", "1", "-2", "1.5", "True", "False", "007", "x", "x,y", 'a"b', "a\nb", "9" * 20, "하나"])


@QUICK
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=7), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_csv_in_windows_is_the_csv(tmp_path: Path, rows: list[tuple[str, str]], end: str) -> None:
    quoted = [",".join('"{}"'.format(cell.replace('"', '""')) if cell else "" for cell in row) for row in rows]
    (tmp_path / "a.csv").write_bytes(end.join(["a,b", *quoted, ""]).encode())
    alike(in_windows_of(2, tmp_path / "a.csv"), in_windows_of(99, tmp_path / "a.csv").frame())


VALUES = st.sampled_from([None, 1, 2**70, 1.5, True, "x", "\ud800", [1, {"a": None}], {"b": 2}, float("inf")])


@QUICK
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), min_size=1, max_size=7), suffix=st.sampled_from(["json", "jsonl"]))
def test_json_in_windows_is_the_json(tmp_path: Path, rows: list[dict[str, Any]], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    alike(in_windows_of(2, path), in_windows_of(99, path).frame())
    named = [row for row in rows if row]
    assert len(in_windows_of(2, path)) == (len(rows) if named else 0), "a row without a key is a row"


def test_lines_of_text_in_windows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\n\r\ntwo\rthree\x0cand\n \nfour")
    alike(in_windows_of(2, tmp_path / "a.txt"), pd.DataFrame({"text": ["one", "two", "three\x0cand", "four"]}))


# -- Arrow ---------------------------------------------------------------------------------------------------------------------
def odd() -> pa.Table:
    """Five rows whose last says what their columns are."""
    late = dt.time(1, 2, 3, 4)
    kinds = pa.array(["b", "a", None, "b", "a"]).dictionary_encode()
    return pa.table(
        {
            "whole": [1, 2, 3, 4, None],
            "yes": [True, False, True, False, None],
            "part": [0.5, None, 1.0, 2.0, float("nan")],
            "kind": pa.DictionaryArray.from_arrays(kinds.indices.cast(pa.int8()), pa.array(["b", "a", "unused"]), ordered=True),
            "code": pa.array([3, 3, None, 5, 3]).dictionary_encode(),
            "fine": pa.array([0, 1000, None, 2000, 3], pa.time64("ns")),
            "coarse": pa.array([late] * 5, pa.time64("us")),
            "price": [Decimal("1.10"), None, Decimal("3.00"), Decimal(4), Decimal("12345.67")],
            "parts": pa.array([[0.1], [], None, [0.2, None], [3]], pa.list_(pa.float32())),
            "deep": [{"a": 1}, {"a": None}, None, {"a": 2}, {"a": 3}],
            "day": [dt.date(2026, 1, d) for d in range(1, 6)],
            "at": pa.array([1, 2, None, 3, 4], pa.timestamp("us", "Asia/Seoul")),
            "none": [None] * 5,
        }
    )


def test_a_parquet_file_in_windows_is_the_file(tmp_path: Path, small: None) -> None:
    for name, write in {"a.parquet": parquet.write_table, "a.feather": feather.write_feather, "b.feather": uncompressed}.items():
        write(odd(), tmp_path / name)
        table = files.stream(str(tmp_path / name), tmp_path)
        assert isinstance(table, files.StoredTable)
        alike(table, frame_of(odd()))


def uncompressed(table: pa.Table, path: Path) -> None:
    feather.write_feather(table, path, compression="uncompressed", version=2)


@pytest.mark.parametrize(
    "index",
    [pd.RangeIndex(3, 13, 2), pd.RangeIndex(5, name="n"), pd.Index(list("vwxyz"), name="k"), pd.MultiIndex.from_product([[1], range(5)])],
)
def test_an_index_that_pandas_wrote_comes_in_parts(tmp_path: Path, small: None, index: pd.Index) -> None:
    whole = pd.DataFrame({1: range(5), 2: pd.array([1, 2, 3, 4, None], dtype="Int16")}, index=index)
    whole.columns.name = "cols"
    whole.to_parquet(tmp_path / "a.parquet")
    table = files.stream(str(tmp_path / "a.parquet"), tmp_path)
    assert isinstance(table, files.StoredTable)
    alike(table, frame_of(parquet.read_table(tmp_path / "a.parquet")))


def given_kinds() -> dict[str, Any]:
    whole = odd()
    plain = whole.drop_columns(["kind", "code", "fine", "none"])
    return {
        "arrow": whole,
        "reader": pa.RecordBatchReader.from_batches(whole.schema, whole.to_batches(2)),
        "polars": pl.DataFrame(plain),
        "polars lazy": pl.DataFrame(plain).lazy(),
        "duckdb": duckdb.from_arrow(plain),
        "datasets": datasets.Dataset(plain),
        "datasets iterable": datasets.Dataset(plain).to_iterable_dataset(),
    }


@pytest.mark.parametrize("kind", list(given_kinds()))
def test_each_kind_in_windows_is_the_table_and_comes_back(kind: str, tmp_path: Path, small: None) -> None:
    value, again = given_kinds()[kind], given_kinds()[kind]
    table = files.given(value, tmp_path)
    assert table is not None
    source = table.source()
    assert isinstance(source, files.StoredTable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "MANY", 99)
        few = files.given(again)
    assert few is not None
    assert isinstance(few.source(), pd.DataFrame)
    alike(source, few.frame())
    assert str(table.arrow.to_pylist()) == str(few.arrow.to_pylist())  # a NaN is no other NaN
    assert table.arrow.schema == few.arrow.schema
    native = table.with_columns(pd.DataFrame({"said": list("abcde")}))
    assert type(native) is (pa.Table if kind == "reader" else type(value))
    assert files.column_names(native) == [*few.arrow.column_names, "said"]


def test_codes_inside_lists_are_read_at_once(tmp_path: Path, small: None) -> None:
    values = pa.table({"a": pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(["x", "y", "x"]).dictionary_encode())})
    parquet.write_table(values, tmp_path / "a.parquet")
    assert frame.records(files.read(str(tmp_path / "a.parquet"))) == [{"a": ["x"]}, {"a": ["y"]}, {"a": ["x"]}]
    table = files.given(pa.RecordBatchReader.from_batches(values.schema, values.to_batches()))
    assert table is not None
    assert frame.records(table.frame()) == [{"a": ["x"]}, {"a": ["y"]}, {"a": ["x"]}]


# -- what is held ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt"])
def test_a_long_file_is_not_held(suffix: str, tmp_path: Path) -> None:
    n, words = 24_000, "word " * 40
    lines = {"csv": ["a,b", *(f"{i},{words}" for i in range(n))], "jsonl": [json.dumps({"a": i, "b": words}) for i in range(n)]}
    path = tmp_path / f"a.{suffix}"
    path.write_text("\n".join(lines.get(suffix, [words] * n)))
    tracemalloc.start()
    table = files.stream(str(path), tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = path.stat().st_size
    assert len(table) == n
    assert size > 4_600_000
    assert held < 1_700_000, "a spool keeps its first MiB in memory"
    assert peak < 4_500_000
    path.unlink()
    assert len(files.whole(table)) == n, "what was read is there, whatever becomes of the file"


def test_a_byte_that_is_no_text_is_named_by_its_line_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n" + b"x\n" * 70_000 + b"\xe9\n" + b"x\n" * 9)
    with pytest.raises(BadOption, match=r"is not UTF-8 text \(byte 0xe9 in line 70002\)"):
        files.read(str(path))
    path.write_bytes("a\n".encode("utf-16") + "하\n".encode("utf-16-le") * 50_000 + b"\x00\xd8")
    with pytest.raises(BadOption, match=r"is not UTF-16 text \(byte 0x00 in line \d+\)"):
        files.read(str(path))


# -- runs ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_run_over_a_stored_file_is_that_over_its_frame(suffix: str, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / f"a.{suffix}")
    rows = pd.DataFrame({"id": range(5), "zip": ["007", "12", None, "4", "5"], "want": list("abcab"), "temperature": [0, 1, 0, 0, 1]})
    if suffix == "parquet":
        rows.to_parquet(path)
    elif suffix == "csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_json(path, orient="records", lines=True)
    whole = files.read(path)
    asked: dict[str, Any] = {"into": "said", "label": "want", "params_from": ("temperature",), "cache": False}
    over_frame = infer("{{ id }} {{ zip }}", "sim/echo", df=whole, **asked).wait()
    streamed = infer("{{ id }} {{ zip }}", "sim/echo", file=path, out=str(tmp_path / "out.parquet"), **asked).wait()
    assert isinstance(streamed.plan.rows.source, files.StoredTable)
    assert [r and r.sampling for r in streamed.requests] == [r and r.sampling for r in over_frame.requests]
    assert_frame_equal(streamed.frame(), over_frame.frame())
    assert streamed.plan.labels == over_frame.plan.labels
    written = pd.read_parquet(tmp_path / "out.parquet")
    assert written["said"].tolist() == over_frame.frame()["said"].tolist()
    assert written["zip"].fillna("").tolist() == whole["zip"].fillna("").tolist()
    limited = infer("{{ id }}", "sim/echo", file=path, limit=4, into="said", cache=False).wait().frame()
    assert limited["said"].tolist() == list("0123")
    chosen = infer("{{ id }}", "sim/echo", file=path, where="id > id.mean()", into="said", cache=False).wait().frame()
    assert chosen["said"].tolist() == ["3", "4"]
