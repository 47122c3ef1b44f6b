"""The result frame: input order, input index, dtypes that never depend on the outcome."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from holynb.errors import BadOption, BadPrompt
from holynb.results import frame, index_labels
from holynb.types import Outcome, Usage

OK = Outcome(
    "ok", "yes", route="a/b", model="m", attempts=1, usage=Usage(1, 2, 0), cost=Decimal("0.5"), latency_s=0.1, finish_reason="stop"
)
BAD = Outcome("error", error_type="timeout", error="late", attempts=4)
DTYPES = {
    "text": "string",
    "status": "category",
    "error_type": "string",
    "error": "string",
    "route": "string",
    "model": "string",
    "attempts": "Int64",
    "tokens_in": "Int64",
    "tokens_out": "Int64",
    "tokens_cached": "Int64",
    "tokens_reasoning": "Int64",
    "tokens_cache_write": "Int64",
    "cost": "Float64",
    "latency_s": "Float64",
    "ttft_s": "Float64",
    "finish_reason": "string",
    "cached": "boolean",
    "reasoning": "string",
}


@pytest.mark.parametrize("rows", [[], [OK], [BAD], [None], [OK, BAD, None, Outcome("skipped")]], ids=len)
def test_columns_and_dtypes_never_depend_on_the_outcome(rows: list[Outcome | None]):
    df = frame.build(rows)
    assert {k: str(v) for k, v in df.dtypes.items()} == DTYPES
    assert list(df["status"].cat.categories) == ["ok", "error", "cancelled", "skipped"]
    assert len(df) == len(rows)


def test_what_is_unknown_is_na_never_zero():
    df = frame.build([OK, BAD])
    assert df["text"].isna().tolist() == [False, True]
    assert df["cost"].isna().tolist() == [False, True]
    assert df["tokens_in"].isna().tolist() == [False, True]
    assert df["ttft_s"].isna().all()
    assert df["cost"].iloc[0] == 0.5


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "a", "b"]),
        pd.MultiIndex.from_tuples([(1, "x"), (1, "y"), (1, "x")], names=["n", "l"]),
        pd.date_range("2026-01-01", periods=3),
    ],
    ids=["duplicates", "multi", "dates"],
)
def test_the_inputs_index_is_the_results(index: pd.Index):
    df = frame.build([OK, BAD, OK], index)
    assert df.index.equals(index)
    assert df.index.names == index.names
    assert df["status"].tolist() == ["ok", "error", "ok"]


def test_records_are_plain_values_and_missing_ones_none():
    df = pd.DataFrame(
        {
            "s": ["a", None, "c"],
            "n": [1, 2, 3],
            "f": [1.5, np.nan, 2.0],
            "t": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
            "l": [[1], None, {"k": 1}],
            "i": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    rows = frame.records(df)
    assert rows[1] == {"s": None, "n": 2, "f": None, "t": None, "l": None, "i": None}
    assert (rows[0]["n"], rows[0]["l"], rows[2]["l"], rows[2]["i"]) == (1, [1], {"k": 1}, 3)
    assert type(rows[0]["n"]) is int


@pytest.mark.parametrize("dtype", ["float16", "float32", "Float32", "float64"])
def test_a_small_float_is_said_as_it_is_shown(dtype: str):
    df = pd.DataFrame({"x": pd.array([0.1, None, 2.5], dtype=dtype)})
    assert [row["x"] for row in frame.records(df)] == [0.1, None, 2.5]


def test_of_two_columns_with_one_name_the_first_counts():
    df = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert frame.records(df) == [{"a": 1}]
    assert frame.records(pd.DataFrame(index=[1, 2])) == [{}, {}]


def test_select_queries_and_cuts():
    df = pd.DataFrame({"n": range(10)})
    assert frame.select(df, "n > 4", 2)["n"].tolist() == [5, 6]
    with pytest.raises(BadOption, match=r"--where 'n >' cannot be evaluated on this frame: invalid syntax$"):
        frame.select(pd.DataFrame({"n": [1]}), "n >", None)
    with pytest.raises(BadOption, match="--where 'm > 4' cannot be evaluated"):
        frame.select(df, "m > 4", None)
    assert frame.select(df, "n > @cutoff", None, {"cutoff": 5})["n"].tolist() == df[df["n"] > 5]["n"].tolist()
    with pytest.raises(BadOption, match=r"there is no variable 'cutof'\. Did you mean cutoff\?"):
        frame.select(df, "n > @cutof", None, {"cutoff": 5})
    with pytest.raises(BadOption, match="Write its value into the expression"):
        frame.select(df, "n > @re", None)
    with pytest.raises(BadOption, match="math is not a value"):
        frame.select(df, "n > @math.pi", None, {"math": math})
    with pytest.raises(BadOption, match=r"name 'pric' is not defined\. Did you mean price\?$"):
        frame.select(pd.DataFrame({"price": [1], 3: [2]}), "pric > 4", None)


def test_into_copies_and_never_changes_the_input():
    df = pd.DataFrame({"a": [1, 2]}, index=["x", "x"])
    out = frame.with_column(df, "label", frame.build([OK, BAD], df.index))
    assert list(df.columns) == ["a"]
    assert out["label"].tolist()[0] == "yes"
    assert out["label"].isna().tolist() == [False, True]
    assert str(out["label"].dtype) == "string"
    with pytest.raises(BadOption, match="already has a column"):
        frame.check_into(df, "a")
    with pytest.raises(BadOption, match="needs rows with columns"):
        frame.check_into(None, "a")


def test_what_is_no_frame_or_has_no_rows_is_refused():
    with pytest.raises(BadOption, match="--df x is a list, not a DataFrame"):
        frame.check_rows([1], "x")
    with pytest.raises(BadPrompt, match="has no rows"):
        frame.check_rows(pd.DataFrame({"a": []}), "x")


def test_columns_of_several_levels_are_refused_with_the_line_that_makes_them_one():
    wide = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    with pytest.raises(BadOption, match="columns of 2 levels") as caught:
        frame.check_rows(wide, "wide")
    exec(str(caught.value).partition("Make them one: ")[2], {"wide": wide})
    frame.check_rows(wide, "wide")
    assert list(wide.columns) == ["a_x", "a_y"]


def test_a_frame_is_found_by_name_or_the_closest_is_offered():
    variables = {"reviews": pd.DataFrame({"a": [1]}), "other": 3}
    assert frame.find_frame(variables, "reviews") is variables["reviews"]
    with pytest.raises(BadOption, match=r"Did you mean reviews\? Known: reviews"):
        frame.find_frame(variables, "review")


@pytest.mark.parametrize(
    "index", [pd.Index(["a", "b"]), pd.MultiIndex.from_tuples([(1, "x"), (2, "y")]), pd.RangeIndex(2)], ids=["labels", "multi", "range"]
)
def test_labels_survive_the_log(index: pd.Index):
    back = frame.restore_index(index_labels.labels(index))
    assert (back is None and list(index) == [0, 1]) or back.equals(index)


@pytest.mark.parametrize(
    "index",
    [
        pd.DatetimeIndex(["2024-01-01", None], tz="Asia/Seoul", name="when"),
        pd.period_range("2024-01", periods=2, freq="M"),
        pd.to_timedelta([1, 2], unit="D"),
        pd.CategoricalIndex(["x", "y"], name="kind"),
        pd.Index([1, None], dtype="Int64"),
        pd.Index(["a", None], dtype="string"),
        pd.Index([1.5, float("nan")]),
        pd.RangeIndex(2, name="row"),
        pd.Index([True, False]),
        pd.Index([3, "x"], name=7),
        pd.MultiIndex.from_arrays([pd.to_datetime(["2024-01-01", "2024-01-02"]), ["a", "b"]], names=["day", None]),
    ],
    ids=lambda i: f"{type(i).__name__}-{i.dtype}",
)
def test_an_index_comes_back_from_the_log_as_it_was(index: pd.Index):
    kept = json.loads(json.dumps([index_labels.labels(index), frame.index_spec(index)]))
    back = frame.restore_index(*kept)
    pd.testing.assert_index_equal(back, index, exact="equiv")


def test_an_index_of_intervals_comes_back_as_its_words():
    index = pd.interval_range(0, 2, name="span")
    assert frame.restore_index(index_labels.labels(index), frame.index_spec(index)).equals(pd.Index(["(0, 1]", "(1, 2]"]))


def test_what_derives_from_a_frame_is_one():
    class Map(pd.DataFrame):
        @property
        def _constructor(self):
            return Map

    frame.check_rows(Map({"place": ["here"]}), "map")
    assert frame.records(Map({"place": ["here"]})) == [{"place": "here"}]
    assert not frame.is_frame(type("DataFrame", (), {})())


def test_a_query_of_numbers_that_are_text_is_answered_with_what_to_write():
    df = pd.DataFrame({"price": ["9.90", None, "12.00"], "unit price": ["1.10", "2", "3"], "word": ["a", "b", "c"], "n": [1, 2, 3]})
    with pytest.raises(
        BadOption, match=r"price holds text, '9\.90': compare it with text, or as numbers: price\.astype\('float'\)$"
    ) as caught:
        frame.select(df, "price > 5", None)
    instead = str(caught.value).rpartition(": ")[2]
    assert frame.select(df, f"{instead} > 10", None)["n"].tolist() == [3]
    instead = frame.text_hint(df, "`unit price` == 2").rpartition(": ")[2]
    assert frame.select(df, f"{instead} == 2", None)["n"].tolist() == [2]
    assert not frame.text_hint(df, "word == 2 and n > 3 and price.astype('float') > 5 and prices > 1")


def test_a_frame_made_in_windows_is_that_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb import schema
    from holynb.results import columns

    held_to = schema.load(
        {"type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}, "more": {"type": "array"}}}
    )
    rows = [
        None,
        Outcome(
            "ok", '{"n": 3, "ok": true, "more": [1]}', route="sim/echo", cost=Decimal("0.1"), score=4, attempts=1, usage=Usage(3, None)
        ),
        Outcome("error", error_type="timeout", error="slow", latency_s=1.5),
        Outcome("skipped"),
        Outcome("ok", '{"n": null, "ok": false, "more": []}', cached=True, ttft_s=0.25, finish_reason="stop", reasoning="because"),
    ]
    at_once = frame.build(rows, None, held_to, judged=True)
    monkeypatch.setattr(columns, "WINDOW", 2)
    pd.testing.assert_frame_equal(frame.build(rows, None, held_to, judged=True), at_once)
