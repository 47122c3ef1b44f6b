"""Values in a prompt are written as a person would write them, and what cannot be is refused.

Looked at for the same kind of fault, and tested here or in `test_sandbox.py`: `{{ }}`, `tojson`, `pprint`, `join`, `~`, `%` and `format`;
loops, `tolist`, `to_dict`, `to_json`, `to_string`, `to_html` and rows of a frame; cells, keys of dicts, labels of an index, bounds of an
interval; the columns of `--df` (`results/frame.py`), which go through the same lists; `--where`; pandas' own display options.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import subprocess
import sys
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.config.options import Options
from holynb.errors import BadOption, BadPrompt
from holynb.prompts import render
from holynb.prompts.exact_floats import exact_array
from holynb.results import frame


def text(body: str, **variables: Any) -> str:
    (prompt,) = render.render(body, rows=None, variables=variables, options=Options())
    return prompt.text


def row(body: str, variables: dict[str, Any] | None = None, **cells: Any) -> str:
    (prompt,) = render.render(body, rows=[cells], variables=variables or {}, options=Options())
    return prompt.text


def refusal(body: str, **variables: Any) -> str:
    with pytest.raises(BadPrompt) as caught:
        text(body, **variables)
    return str(caught.value)


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Deep(enum.Enum):
    PAIR = (1, 2)


F4 = np.array([0.1, 1e-7], dtype="float32")
RECORD = np.array([(1, 0.1)], dtype=[("n", "i4"), ("x", "f4")])

#: Value → what `{{ x }}`, `{{ x|tojson }}` and `{{ [x] }}` write.
WRITTEN: list[tuple[Any, str, str, str]] = [
    (np.float16(0.1), "0.1", "0.1", "[0.1]"),
    (np.float32(0.1), "0.1", "0.1", "[0.1]"),
    (np.longdouble("0.1"), "0.1", "0.1", "[0.1]"),
    (np.uint64(2**64 - 1), "18446744073709551615", "18446744073709551615", "[18446744073709551615]"),
    (np.bool_(True), "True", "true", "[True]"),
    (np.str_("a"), "a", '"a"', "['a']"),
    (np.datetime64("2025-01-02"), "2025-01-02", '"2025-01-02"', "['2025-01-02']"),
    (np.datetime64("2025-01-02T03:04:05", "ns"), "2025-01-02 03:04:05", '"2025-01-02 03:04:05"', "['2025-01-02 03:04:05']"),
    (np.datetime64("2025-01-02T03", "h"), "2025-01-02 03:00:00", '"2025-01-02 03:00:00"', "['2025-01-02 03:00:00']"),
    (np.timedelta64(90, "s"), "0:01:30", '"0:01:30"', "['0:01:30']"),
    (np.timedelta64(3, "M"), "3 months", '"3 months"', "['3 months']"),
    (np.array(5), "5", "5", "[5]"),
    (np.array(None), "", "null", "[None]"),
    (F4, "[0.1, 1e-07]", "[0.1, 1e-07]", "[[0.1, 1e-07]]"),
    (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]", "[[1, 2], [3, 4]]", "[[[1, 2], [3, 4]]]"),
    (np.array(["2025-01-02T03:04", "NaT"], "M8[ns]"), "['2025-01-02 03:04:00', None]", '["2025-01-02 03:04:00", null]', "[['2025-01-02 03:04:00', None]]"),
    (np.array([90], "m8[s]"), "['0:01:30']", '["0:01:30"]', "[['0:01:30']]"),
    (np.ma.masked_array(F4, mask=[0, 1]), "[0.1, None]", "[0.1, null]", "[[0.1, None]]"),
    (RECORD, "[{'n': 1, 'x': 0.1}]", '[{"n": 1, "x": 0.1}]', "[[{'n': 1, 'x': 0.1}]]"),
    (RECORD[0], "{'n': 1, 'x': 0.1}", '{"n": 1, "x": 0.1}', "[{'n': 1, 'x': 0.1}]"),
    (float("nan"), "", "null", "[None]"),
    (pd.NA, "", "null", "[None]"),
    (pd.NaT, "", "null", "[None]"),
    (Decimal("NaN"), "", "null", "[None]"),
    (float("inf"), "inf", '"Infinity"', "[inf]"),
    (-np.float32("inf"), "-inf", '"-Infinity"', "[-inf]"),
    (Decimal("1.10"), "1.10", "1.1", "[1.10]"),
    (Decimal("1E+3"), "1000", "1000", "[1000]"),
    (Decimal("0E-8"), "0.00000000", "0", "[0.00000000]"),  # a sum of money of a database
    (Decimal("1.5E-7"), "0.00000015", "1.5e-07", "[0.00000015]"),
    (Decimal("1E-400"), "1E-400", '"1E-400"', "[1E-400]"),
    (Decimal("12345678901234567890.5"), "12345678901234567890.5", '"12345678901234567890.5"', "[12345678901234567890.5]"),
    (dt.date(2025, 1, 2), "2025-01-02", '"2025-01-02"', "['2025-01-02']"),
    (dt.datetime(2025, 1, 2, 3, 4, tzinfo=dt.UTC), "2025-01-02 03:04:00+00:00", '"2025-01-02 03:04:00+00:00"', "['2025-01-02 03:04:00+00:00']"),
    (dt.time(3, 4), "03:04:00", '"03:04:00"', "['03:04:00']"),
    (dt.timedelta(days=1), "1 day, 0:00:00", '"1 day, 0:00:00"', "['1 day, 0:00:00']"),
    (pd.Timestamp("2025-01-02 03:04"), "2025-01-02 03:04:00", '"2025-01-02 03:04:00"', "['2025-01-02 03:04:00']"),
    (pd.Timedelta("2h"), "0 days 02:00:00", '"0 days 02:00:00"', "['0 days 02:00:00']"),
    (pd.Period("2025-01"), "2025-01", '"2025-01"', "['2025-01']"),
    (pd.Interval(np.float32(0.1), np.float32(0.2)), "(0.1, 0.2]", '"(0.1, 0.2]"', "['(0.1, 0.2]']"),
    (pd.Interval(0, 1, closed="both"), "[0, 1]", '"[0, 1]"', "['[0, 1]']"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5)), f'"{uuid.UUID(int=5)}"', f"['{uuid.UUID(int=5)}']"),
    (Colour.RED, "red", '"red"', "['red']"),
    (Colour.TWO, "2", "2", "[2]"),
    (Deep.PAIR, "(1, 2)", "[1, 2]", "[(1, 2)]"),
    ("ä".encode(), "ä", '"ä"', "['ä']"),
    (Fraction(1, 3), "1/3", '"1/3"', "['1/3']"),
    ({"b", "a", "c"}, "{'a', 'b', 'c'}", '["a", "b", "c"]', "[{'a', 'b', 'c'}]"),
    (frozenset({2, 10}), "{2, 10}", "[2, 10]", "[{2, 10}]"),
    (set(), "{}", "[]", "[{}]"),
    (range(3), "[0, 1, 2]", "[0, 1, 2]", "[[0, 1, 2]]"),
    ({"a": 1}.items(), "[('a', 1)]", '[["a", 1]]', "[[('a', 1)]]"),
    ({dt.date(2025, 1, 2): 1, (np.int64(1), 2): 2, None: 3, np.float32(0.5): 4, True: 5}, "{'2025-01-02': 1, (1, 2): 2, None: 3, '0.5': 4, True: 5}", '{"2025-01-02": 1, "(1, 2)": 2, "null": 3, "0.5": 4, "true": 5}', "[{'2025-01-02': 1, (1, 2): 2, None: 3, '0.5': 4, True: 5}]"),
    (pd.array([0.1, None], dtype="Float32"), "[0.1, None]", "[0.1, null]", "[[0.1, None]]"),
    (pd.Categorical(F4), "[0.1, 1e-07]", "[0.1, 1e-07]", "[[0.1, 1e-07]]"),
    (pd.Index(F4), "[0.1, 1e-07]", "[0.1, 1e-07]", "[[0.1, 1e-07]]"),
    (pd.MultiIndex.from_arrays([F4, ["a", "b"]]), "[(0.1, 'a'), (1e-07, 'b')]", '[[0.1, "a"], [1e-07, "b"]]', "[[(0.1, 'a'), (1e-07, 'b')]]"),
    (pd.Series(F4), "0    0.1\n1  1e-07", "[0.1, 1e-07]", "[[0.1, 1e-07]]"),
    (pd.DataFrame({"x": F4, "o": [{"y": F4[0]}, None]}), "       x           o\n0    0.1  {'y': 0.1}\n1  1e-07         NaN", '[{"x": 0.1, "o": {"y": 0.1}}, {"x": 1e-07, "o": null}]', "[\"       x           o\\n0    0.1  {'y': 0.1}\\n1  1e-07         NaN\"]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "plain", "as_json", "listed"), WRITTEN, ids=[f"{i}-{type(w[0]).__name__}" for i, w in enumerate(WRITTEN)]
)
def test_a_value_is_written_as_a_person_would(value: Any, plain: str, as_json: str, listed: str) -> None:
    for write in (text, row):
        assert write("{{ x }}", x=value) == plain
        assert write("{{ x|tojson }}", x=value) == as_json
        assert write("{{ [x] }}", x=value) == listed
        assert write("{{ x|string }}", x=value) == plain
        assert write("{{ '' ~ x }}", x=value) == plain


def arrow_columns() -> list[tuple[Any, Any, str]]:
    kinds = [
        ([0.1, None], pa.float32(), "[0.1, null]"),
        ([0.1], pa.float16(), "[0.1]"),
        ([[0.1, None], None], pa.list_(pa.float32()), "[[0.1, null], null]"),
        ([[0.1, 0.2]], pa.list_(pa.float32(), 2), "[[0.1, 0.2]]"),
        ([{"a": 0.1, "b": [0.1]}], pa.struct([("a", pa.float32()), ("b", pa.list_(pa.float16()))]), '[{"a": 0.1, "b": [0.1]}]'),
        ([[("k", 0.1)]], pa.map_(pa.string(), pa.float32()), '[[["k", 0.1]]]'),
        ([0.1], pa.dictionary(pa.int32(), pa.float32()), "[0.1]"),
        ([Decimal("1.10")], pa.decimal128(5, 2), "[1.1]"),
        ([dt.datetime(2025, 1, 2)], pa.timestamp("us"), '["2025-01-02 00:00:00"]'),
    ]
    return [(pd.Series(pa.array(values, type=kind), dtype=pd.ArrowDtype(kind)), kind, expected) for values, kind, expected in kinds]


def test_numbers_of_arrow_are_the_decimals_that_they_are_written_as() -> None:
    for series, kind, expected in arrow_columns():
        assert text("{{ s|tojson }}", s=series) == expected, kind
        records = frame.records(pd.DataFrame({"x": series}))
        assert "[" + ", ".join(row("{{ x|tojson }}", **r) for r in records) + "]" == expected, kind


def test_a_narrow_float_is_its_decimal_on_every_way_out_of_a_frame() -> None:
    given = {"d": pd.DataFrame({"x": F4[:1], "y": [1.5]}), "a": F4[:1], "s": pd.Series(F4[:1]), "c": pd.Series(pd.Categorical(F4[:1]))}
    for body in (
        "{% for i, r in d.iterrows() %}{{ r.x }}{% endfor %}",
        "{% for r in d.itertuples() %}{{ r.x }}{% endfor %}",
        "{% for x in s %}{{ x }}{% endfor %}",
        "{{ s.iloc[0] }}",
        "{{ d.x.max() }}",
        "{{ a.tolist()[0] }}",
        "{{ c.tolist()|join }}",
        "{{ s.to_dict()[0] }}",
        "{{ a|first }}",
    ):
        assert text(body, **given) == "0.1", body
    assert text("{{ d.to_csv(index=false) }}|{{ d.to_json() }}", **given) == 'x,y\n0.1,1.5\n|{"x":{"0":0.1},"y":{"0":1.5}}'
    big = pd.Series(np.full(30_000, 0.1, dtype="float32"))
    assert text("{{ s.tolist()[29999] }} {{ s|last }} {{ s.tail(1).iloc[0] }}", s=big) == "0.1 0.1 0.1"


@pytest.mark.parametrize("value", [2.0**53, 2.0**53 + 2, 1e15, 1e16, 1.2345678901234567e19, -1e18, 1e22, 3.0])
def test_a_whole_float_of_a_column_is_the_same_number_again_and_its_digits_are_to_be_had(value: float) -> None:
    (cells,) = frame.records(pd.DataFrame({"x": [value]}))
    assert row("{{ x }}|{{ x|tojson }}", **cells) == f"{value!r}|{value!r}"
    assert float(row("{{ x }}", **cells)) == value
    assert row("{{ x|int }}", **cells) == str(int(value))
    assert row("{{ '{:,.0f}'.format(x) }}", **cells) == f"{int(value):,}"


def test_whole_numbers_above_those_of_a_float_stay_as_they_are_beside_a_missing_one() -> None:
    cells = frame.records(pd.DataFrame({"id": pd.array([2**53 + 1, None], dtype="Int64"), "x": [2.0**53, 1.5]}))
    assert [row("{{ id }} {{ row.id }}", **c) for c in cells] == ["9007199254740993 9007199254740993", " "]


@given(st.lists(st.floats(width=32), max_size=20), st.lists(st.floats(width=16), max_size=20))
def test_the_exact_value_is_the_shortest_decimal(singles: list[float], halves: list[float]) -> None:
    for values in (np.array(singles, dtype="float32"), np.array(halves, dtype="float16")):
        exact = exact_array(values)
        assert exact.dtype == "float64"
        assert np.array_equal(exact.astype(values.dtype), values, equal_nan=True)
        assert [str(v) for v in exact.tolist()] == [str(float(str(v))) for v in values]


# -- wild values ---------------------------------------------------------------------------------------------------------------
words = st.text("aä'\"{}<\n%5", max_size=6)
numbers: list[Any] = [
    st.integers(),
    st.floats(),
    st.booleans(),
    st.floats(width=32).map(np.float32),
    st.floats(width=16).map(np.float16),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 255).map(np.uint8),
    st.booleans().map(np.bool_),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).filter(lambda d: abs(d) < 10**15),
]
moments: list[Any] = [
    st.dates(),
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)).map(pd.Timestamp),
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)).map(lambda t: np.datetime64(t, "ns")),
    st.times(),
    st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000)),
    st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000)).map(pd.Timedelta),
]
others: list[Any] = [words, words.map(np.str_), words.map(str.encode), st.uuids(), st.sampled_from(Colour), st.fractions()]
gone = st.sampled_from([None, float("nan"), pd.NA, pd.NaT, np.float32("nan"), np.datetime64("NaT")])
leaves = st.one_of(*numbers, *moments, *others, gone)
arrays = st.one_of(
    st.lists(st.floats(width=32), max_size=4).map(lambda v: np.array(v, dtype="float32")),
    st.lists(st.integers(-9, 9), max_size=4).map(lambda v: pd.Series(v, dtype="Int64")),
    st.lists(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)), max_size=4).map(lambda v: np.array(v, dtype="M8[us]")),
)
values = st.recursive(
    leaves | arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(words, inner, max_size=4),
        st.sets(st.integers() | words, max_size=4),
    ),
    max_leaves=12,
)


def same(came: Any, value: Any) -> bool:
    """Whether JSON gives a value back: of a type that JSON lacks, as the text of which Python makes the value again."""
    if isinstance(value, np.ndarray | pd.Series):
        return len(came) == len(value) and all(map(same, came, list(value)))
    if isinstance(value, list | tuple):
        return len(came) == len(value) and all(map(same, came, value))
    if isinstance(value, set):
        return len(came) == len(value) and {str(v) for v in came} == {str(v) for v in value}
    if isinstance(value, dict):
        return list(came) == list(value) and all(map(same, came.values(), value.values()))
    if isinstance(value, enum.Enum):
        return bool(came == value.value)
    if pd.isna(value):
        return came is None
    if isinstance(value, float | np.floating):
        return bool(type(value)(came) == value) and (isinstance(came, str) or came == float(str(value)))
    if isinstance(value, Decimal):
        return Decimal(str(came)) == value
    if isinstance(value, dt.datetime | np.datetime64):
        return bool(pd.Timestamp(came) == value)
    if isinstance(value, dt.date | dt.time):
        return type(value).fromisoformat(came) == value
    if isinstance(value, dt.timedelta):
        return bool(pd.Timedelta(came) == value)
    kind = {uuid.UUID: uuid.UUID, Fraction: Fraction, bytes: str.encode}.get(type(value))
    return bool(kind(came) == value) if kind else type(came) is type(getattr(value, "item", lambda: value)()) and came == value


@given(values)
def test_json_gives_the_value_back(value: Any) -> None:
    written = text("{{ x|tojson }}", x=value) if not isinstance(value, str) else text("{{ x|tojson }}", x=str(value))
    came = json.loads(written, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert same(came, value), (written, value)
    assert row("{{ x|tojson }}", x=value) == written


@given(values)
def test_no_value_shows_how_it_is_kept(value: Any) -> None:
    for written in (text("<{{ x }}>", x=value), text("{{ {'a': [x]} }}", x=value), text("{{ [x]|pprint }}", x=value)):
        for word in (
            "object at 0x",
            "dtype",
            "np.",
            "Timestamp",
            "datetime",
            "Timedelta",
            "timedelta",
            "Decimal",
            "UUID",
            "Colour",
            "array",
            "NaT",
            "<NA>",
        ):
            assert word not in written, value
        assert "..." not in written
        assert "…" not in written


def test_keys_that_would_be_written_alike_are_refused() -> None:
    assert "two keys" in refusal("{{ x|tojson }}", x={1: "a", "1": "b"})
    assert "two keys" in refusal("{{ x }}", x={dt.date(2025, 1, 2): "a", "2025-01-02": "b"})
    assert "two columns" in refusal("{{ x|tojson }}", x=pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_set_is_written_in_one_order_in_every_kernel() -> None:
    """Texts are hashed anew in each process, and a prompt whose words change places is asked, and paid, again."""
    program = "from holynb.prompts.render import render\nfrom holynb.config.options import Options\n"
    program += "print(render('{{ x }}', rows=None, variables={'x': set('abcdefgh')}, options=Options())[0].text)"
    said = {subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": s, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True).stdout for s in "12"}  # fmt: skip
    assert said == {"{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}\n"}


def test_bytes_that_are_no_text_and_objects_of_other_libraries_are_refused() -> None:
    assert "not UTF-8" in refusal("{{ x }}", x=b"\xff")
    assert "not UTF-8" in refusal("{{ x|tojson }}", x=[b"\xff"])
    assert "x is an object (polars.DataFrame)" in refusal("{{ x }}", x=pl.DataFrame({"a": [1]}))
    assert "x = x.to_pandas()" in refusal("{{ x }}", x=pl.Series([1]))


# -- frames, columns and arrays by name alone --------------------------------------------------------------------------------------
SALES = pd.DataFrame({"day": range(200), "sum": range(200)})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{{ sales }}", ("{{ sales }} has 200 rows", "only up to 60 rows", "{{ sales.to_csv(index=False) }}", "{{ sales.head() }}")),
        ("{{ sales['sum'] }}", ("The column has 200 rows", ".to_csv(index=False) }}", ".head() }}")),
        ("{{ sales ~ '' }}", ("200 rows",)),
        ("{{ [sales] }}", ("200 rows",)),
        ("{{ '%s' % sales }}", ("200 rows",)),
        ("{{ sales|upper }}", ("200 rows",)),
        ("{{ sales.head(61) }}", ("61 rows",)),
        ("{{ many }}", ("{{ many }} has 2,000 rows", "{{ many.tolist() }}", "{{ many[:5] }}", ".to_csv(index=False)", ".head()")),
        ("{{ [many] }}", ("2,000 rows",)),
        ("{{ {'a': many} }}", ("2,000 rows",)),
        ("{{ sales.day.values }}", ("200 rows",)),
        ("{{ broad }}", ("{{ broad }} has 18,", "only up to 10,000 characters")),
        ("{{ grid }}", ("characters",)),
        ("{{ column }}", ("{{ column }} has 61 rows",)),
        ("{{ Mine }}", ("200 rows",)),
    ],
)
def test_what_is_long_does_not_go_in_by_its_name_alone(body: str, words: tuple[str, ...]) -> None:
    class Map(pd.DataFrame):
        pass

    given = {"sales": SALES, "many": np.arange(2000), "broad": pd.DataFrame({"a": ["x" * 6000, "y"]}), "grid": np.zeros((9, 900)), "column": pd.Series(range(61)), "Mine": Map(SALES)}  # fmt: skip
    said = refusal(body, **given)
    assert all(word in said for word in words), said


def test_what_is_asked_for_in_words_is_whole() -> None:
    given = {"sales": SALES, "many": np.arange(2000)}
    for body in ("{{ sales.to_csv(index=False) }}", "{{ sales.to_string() }}", "{{ many.tolist() }}", "{{ many|join(' ') }}", "{{ sales|tojson }}", "{{ sales.day|list }}", "{% for x in many %}{{ x }} {% endfor %}"):  # fmt: skip
        shown = text(body, **given)
        assert "150" in shown
        assert "..." not in shown
    assert text("{{ sales.head() }}", **given).count("\n") == 5
    assert text("{{ sales.head(60) }}", **given).count("\n") == 60


def test_an_array_in_a_rows_cell_is_a_list() -> None:
    """Parquet gives lists back as arrays: how long they are is the row's affair. An array of the notebook is still one by accident."""
    assert row("{{ x }}", x=np.arange(2000)).endswith("1998, 1999]")
    assert row("{{ x }} {{ a }}", {"a": 1}, x={"y": np.arange(70)}).endswith("69]} 1")
    assert row("{{ x }}", {"x": np.arange(70)}, x="cell") == "cell"
    with pytest.raises(BadPrompt, match="70 rows"):
        row("{{ a }} {{ x }}", {"a": np.arange(70)}, x=1)
    with pytest.raises(BadPrompt, match="200 rows"):
        row("{{ x }}", x=SALES)


def test_pandas_display_options_change_no_prompt() -> None:
    wide = pd.DataFrame(
        {f"c{i}": [i / 7, None] for i in range(30)} | {"text": ["x" * 300, "y"], "tags": [list(range(150)), []]}, index=["i" * 90, "j"]
    )
    options = ["display.precision", 2, "display.max_rows", 1, "display.max_columns", 2, "display.width", 20, "display.max_colwidth", 10, "display.float_format", "{:.1f}".format]  # fmt: skip
    bodies = ("{{ x }}", "{{ x.c3 }}", "{{ x.to_string() }}", "{{ x.to_html() }}", "{{ x.text }}")
    shown = [text(body, x=wide) for body in bodies]
    with pd.option_context(*options), np.printoptions(threshold=3, precision=2, linewidth=20):
        assert [text(body, x=wide) for body in bodies] == shown
        assert text("{{ x }}", x=np.arange(50) / 7) == str([i / 7 for i in range(50)])
    assert str(3 / 7) in shown[0]
    assert "x" * 300 in shown[0]
    assert "148, 149]" in shown[0]
    assert not any("..." in s for s in shown)
    numbered = pd.DataFrame({"n": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]))
    assert text("{{ x }}", x=numbered).count("a") == 2
    assert text("{{ x }}|{{ x.a }}", x=pd.DataFrame({"a": [], "b": []})) == "a  b|"


# -- names before attributes and methods ------------------------------------------------------------------------------------------
def test_a_key_or_a_column_comes_before_an_attribute_or_a_method_of_that_name() -> None:
    song = {"title": "Air", "keys": "C minor", "items": 2, "get": 1, "copy": 3}
    assert row("{{ song.keys }} {{ song.items }} {{ song.get }} {{ song.copy }} {{ row.song.keys }}", song=song) == "C minor 2 1 3 C minor"
    df = pd.DataFrame({"name": ["ann"], "size": [3], "index": [4], "values": [5], "shape": [6], "count": [7], "T": [8]})
    body = "{% for i, r in df.iterrows() %}{{ r.name }} {{ r.size }} {{ r.index }} {{ r.values }} {{ r.shape }} {{ r.count }} {{ r['T'] }}{% endfor %}"
    assert text(body, df=df) == "ann 3 4 5 6 7 8"
    assert text("{{ df.size[0] }} {{ df.index[0] }} {{ df.T[0] }} {{ df.shape[0] }}", df=df) == "3 4 8 6"
    with pytest.raises(BadPrompt, match=r'constant to a template. The column is \{\{ row\["none"\] \}\}'):
        row("{{ none }}", none="x")


@pytest.mark.parametrize(
    "body", ["{{ n.upper }}", "{{ [n.upper] }}", "{{ n.upper ~ '' }}", "{{ n.upper|string }}", "{{ n.upper|tojson }}", "{{ '%s' % n.upper }}", "{{ d.items }}", "{{ d.x.upper }}", "{{ t.isoformat }}", "{{ df.head }}", "{{ f }}", "{{ {'f': f} }}", "{{ f|tojson }}", "{{ n.upper|default('x') }}"]
)  # fmt: skip
def test_a_method_or_a_function_is_an_error(body: str) -> None:
    said = refusal(body, n="ann", d={"x": "y"}, t=dt.date(2025, 1, 2), df=SALES, f=len)
    assert "0x" not in said
    assert "is a method" in said or "is a function" in said or "There is no 'items'" in said


# -- missing values ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, pd.NaT, np.float32("nan"), Decimal("NaN")])
@pytest.mark.parametrize(
    "body",
    ["{{ '%.2f' % price }}", "{{ '%s' % price }}", "{{ '%s %d' % ('a', price) }}", "{{ '%(price)s' % row }}", "{{ '%.1f'|format(price) }}", "{{ '{:.2f}'.format(price) }}", "{{ price|round(1) }}", "{{ price|int }}", "{{ price|float }}", "{{ price|abs }}", "{{ price|filesizeformat }}", "{{ price is odd }}", "{{ '%d' % (price * 2) }}", "{{ row['price']|round }}", "{{ row.price|int }}", "{{ cell.price|round }}"],
)  # fmt: skip
def test_a_number_that_is_missing_is_named(body: str, nothing: Any) -> None:
    with pytest.raises(BadPrompt, match=r"price is missing, and .* takes a value: write price\|default\(…\).*\(row 0\)"):
        row(body, price=nothing, cell={"price": nothing})


def test_a_missing_value_is_empty_elsewhere_and_a_default_helps() -> None:
    body = "[{{ p }}{{ p|upper }}{{ p * 2 }}{{ '{}'.format(p) }}{{ p.year }}]"
    assert row(body, p=None) == "[]"
    assert row("{{ '%.2f' % (p|default(0)) }} {{ p|int(7) }} {{ p|float(default=1.5) }} {{ p|tojson }}", p=None) == "0.00 7 1.5 null"


@pytest.mark.parametrize("name", ["max", "min", "sort", "sum"])
def test_a_missing_item_has_no_place_in_an_order(name: str) -> None:
    assert f"an item is missing, and {name} takes values" in refusal(f"{{{{ [3, none, 1]|{name} }}}}")
    assert "price of an item is missing" in refusal(f"{{{{ xs|{name}(attribute='price') }}}}", xs=[{"price": 1}, {"price": None}])
    assert text(f"{{{{ [3, none, 1]|reject('none')|list|{name} }}}}") in ("3", "1", "[1, 3]", "4")
    assert "is missing" in refusal(f"{{{{ xs|map(attribute='price')|{name} }}}}", xs=[{"price": 1}, {"price": None}])


# -- --where ------------------------------------------------------------------------------------------------------------------------
def test_where_reads_variables_and_leaves_texts_alone() -> None:
    df = pd.DataFrame({"x": [1, 5], "mail": ["a@b.com", "c"], "a@b": [1, 2]})
    for where, variables in (("x > @cutoff", {"cutoff": 3}), ("x in @some", {"some": [5]}), ("x == @f.iloc[0]", {"f": pd.Series([5])})):
        assert frame.select(df, where, None, variables).index.tolist() == [1]
    assert frame.select(df, "mail == 'a@b.com' and x < @n", None, {"n": 2}).index.tolist() == [0]
    assert frame.select(df, 'mail == "it\'s @home" or `a@b` == 2', None).index.tolist() == [1]
    with pytest.raises(BadOption, match="Did you mean cutoff"):
        frame.select(df, "x > @cutof", None, {"cutoff": 3})


# -- columns that become parameters ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (np.float32(0.7), 0.7), (np.int64(3), 3), (np.bool_(True), True), (np.array([1, 2]), [1, 2]), (Decimal("0.5"), 0.5),
        ({"a": np.float32(0.1), "b": [pd.NA, dt.date(2025, 1, 2)]}, {"a": 0.1, "b": [None, "2025-01-02"]}), ((np.int8(1),), [1]), ("x", "x"),
    ],
)  # fmt: skip
def test_a_parameter_from_a_column_is_what_json_holds(cell: Any, expected: Any) -> None:
    """A request is JSON: numpy's values inside a dict would have failed once it was sent."""
    options = Options(params_from=["top_k", "temperature"])
    (prompt,) = render.render("hi", rows=[{"top_k": cell, "temperature": np.float32(0.7)}], variables={}, options=options)
    assert prompt.sampling.extra == {"top_k": expected}
    assert type(prompt.sampling.extra["top_k"]) is type(expected)
    assert prompt.sampling.temperature == 0.7


@pytest.mark.parametrize("cell", [pd.Timestamp("2025-01-02"), {1}, object(), {"f": len}])
def test_a_parameter_that_json_cannot_hold_is_refused(cell: Any) -> None:
    with pytest.raises(BadPrompt, match=r"[Rr]ow 0: top_k"):
        render.render("hi", rows=[{"top_k": cell}], variables={}, options=Options(params_from=["top_k"]))


def test_frames_of_other_libraries_are_told_apart() -> None:
    class Frame:
        def to_pandas(self) -> Any: ...

    Frame.__module__, Frame.__qualname__ = "polars.dataframe.frame", "DataFrame"
    Frame.__name__ = "DataFrame"
    with pytest.raises(
        BadOption, match=r"--df sales is a polars.DataFrame, not a DataFrame or another table. Write sales = sales.to_pandas\(\)."
    ):
        frame.check_rows(Frame(), "sales")
