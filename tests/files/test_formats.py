"""Values in the prompt are values in the file: wild ones, written with the format's own library, read, rendered and compared.

`{{ a }}` of what was read is held against `{{ a }}` of what was written; so are the values and their types.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
import string
import zipfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from holynb import files
from holynb.config import Options
from holynb.errors import BadOption
from holynb.prompts import render
from holynb.results import frame

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

#: Texts that readers take for something else, and texts that lines and cells are cut at.
NUMERALS = ["00714", "+4930", "1.10", "1e5", "-0", "1,5", "\u0661", "9" * 20, "0x1F", "1_000", "2024-01-05", "inf"]
WORDS = ["NaN", "None", "null", "NA", "n/a", "true", "False", "#N/A", "{{ a }}", "=1", "sep=;"]
CUTS = ["a;b", "a\tb", '"', '""x"', "'", "\u2028", "\x85", "\x0c", "\x1c", "\ufeff", " x ", "\x00"]
NASTY = st.sampled_from([*NUMERALS, *WORDS, *CUTS])
TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | NASTY
WHOLE = st.integers(-(10**25), 10**25) | st.integers(-9, 9) | st.sampled_from([2**53 + 1, 2**63, 2**64, -(2**63)])
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99).map(lambda n: n / 4)
PLAIN = st.none() | st.booleans() | WHOLE | NUMBER | TEXT
NESTED = st.recursive(PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3), max_leaves=5)

SOME = settings(FEW, max_examples=20)  # files that take milliseconds each


def said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows' prompts say."""
    names = "".join(f'{{{{ row["{name}"] }}}}|' for name in rows[0])
    return [p.messages[-1].content for p in render.render(f"<{names}>", rows=rows, variables={}, options=Options())]


def same(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Values, types and prompts of a file are those of `rows`."""
    came = frame.records(files.read(str(path)))
    assert [{k: (type(v), v) for k, v in row.items()} for row in came] == [{k: (type(v), v) for k, v in row.items()} for row in rows]
    assert said(came) == said(rows)


def columns(values: Any) -> Any:
    """Rows of two columns: one of mixed values, one where all are of a kind."""
    kinds = [st.booleans(), WHOLE, st.integers(-(2**63), 2**63 - 1), NUMBER, TEXT.filter(bool)]
    uniform = st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind | st.none(), min_size=4, max_size=4))
    mixed = st.lists(values, min_size=4, max_size=4)
    return st.tuples(mixed, uniform).map(lambda pair: [{"a": a, "b": b} for a, b in zip(*pair, strict=True)])


@SOME
@given(columns(NESTED), st.booleans())
def test_json_and_json_lines(tmp_path: Path, rows: list[dict[str, Any]], escaped: bool):
    lines, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text("".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows), "utf-8")
    whole.write_text(json.dumps(rows, ensure_ascii=escaped, indent=1), "utf-8")
    same(lines, rows)
    same(whole, rows)


@FEW
@given(st.lists(st.dictionaries(st.sampled_from("abc"), PLAIN.filter(lambda v: v is not None), min_size=1), min_size=1, max_size=4))
def test_json_of_rows_with_other_keys(tmp_path: Path, rows: list[dict[str, Any]]):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    assert [{k: v for k, v in row.items() if v is not None} for row in frame.records(files.read(str(path)))] == rows


DIGITS = st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?(e[0-9]{1,2})?", fullmatch=True)
CELLS = st.sampled_from([TEXT, DIGITS, WHOLE.map(str), NUMBER.map(repr), WHOLE.map(str) | NUMBER.map(repr), st.booleans().map(str)])


@FEW
@given(
    CELLS.flatmap(lambda cell: st.lists(st.tuples(cell | st.just(""), TEXT), min_size=1, max_size=6)),
    st.sampled_from([("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_csv_and_tsv_say_each_cell_as_it_is_written(tmp_path: Path, cells: Any, name: tuple[str, str], end: str, encoding: str):
    path = tmp_path / name[0]
    # Python 3.11 does not quote a lone \r, which ends a line.
    quoting = csv.QUOTE_ALL if end == "\r" or any("\r" in cell for row in cells for cell in row) else csv.QUOTE_MINIMAL
    with path.open("w", encoding=encoding, newline="") as out:
        writer = csv.writer(out, delimiter=name[1], lineterminator=end, quoting=quoting)
        writer.writerows([["a", "b"], *cells])
    came = frame.records(files.read(str(path)))
    assert said(came) == [f"<{a}|{b}|>" for a, b in cells]
    assert [["" if v is None else str(v) for v in row.values()] for row in came] == [list(row) for row in cells]


@FEW
@given(columns(PLAIN))
def test_a_csv_of_pandas_is_written_back_the_same(tmp_path: Path, rows: list[dict[str, Any]]):
    assume(not any("\r" in value for row in rows for value in row.values() if isinstance(value, str)))
    path, back = tmp_path / "a.csv", tmp_path / "b.csv"
    pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in rows[0]}).to_csv(path, index=False)
    files.read(str(path)).to_csv(back, index=False)
    assert back.read_bytes() == path.read_bytes()


@FEW
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=9) | NASTY, min_size=1),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_of_text(tmp_path: Path, lines: list[str], end: str):
    assume(any(line.strip() for line in lines) and not lines[0].startswith("\ufeff") and lines.count("\0") < 2)
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(lines).encode())
    same(path, [{"text": line} for line in lines if line.strip()])


# -- Excel ---------------------------------------------------------------------------------------------------------------
#: What XML and Excel hold: 15 digits, no control characters, milliseconds.
SHEET_TEXT = (st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8) | NASTY).filter(
    lambda t: not t.startswith("=") and not re.search(r"[\x00-\x1f\ufffe\uffff]|_x[0-9A-Fa-f]{4}_", t) and t.strip()
)
MOMENT = st.datetimes(dt.datetime(1901, 1, 1), dt.datetime(2199, 1, 1)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
SHEET = (
    SHEET_TEXT
    | st.booleans()
    | st.integers(-(10**14), 10**14)
    | st.floats(-1e9, 1e9).map(lambda x: float(f"{x:.15g}")).filter(lambda x: not x.is_integer() and (abs(x) > 1e-9))
    | st.dates(dt.date(1901, 1, 1), dt.date(2199, 1, 1))
    | MOMENT.filter(lambda t: t.time() != dt.time())
    | st.none()
)


@SOME
@given(st.lists(st.tuples(st.text(string.ascii_letters, min_size=1), SHEET), min_size=1, max_size=8))
def test_workbooks(tmp_path: Path, rows: list[tuple[str, Any]]):
    book = openpyxl.Workbook()
    for row in [("a", "b"), *rows]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    same(tmp_path / "a.xlsx", [{"a": a, "b": b} for a, b in rows])


def test_cells_of_a_workbook_are_what_excel_shows(tmp_path: Path):
    book = openpyxl.Workbook()
    sheet = book.active
    for row in [[], ["zip", "n", "n", None, 7], [714, 3.0, 0.1, None, "00714"], [None] * 5, [501, 1e20, 2.5, "x_x000D_y", dt.time(3, 4)]]:
        sheet.append(row)
    sheet["A3"].number_format = sheet["A5"].number_format = "00000"
    book.create_sheet("more")["A1"] = "no row"
    book.save(tmp_path / "a.xlsx")
    first = {"zip": "00714", "n": 3, "n.1": 0.1, "Unnamed: 3": None, "7": "00714"}
    second = {"zip": "00501", "n": 1e20, "n.1": 2.5, "Unnamed: 3": "x\ry", "7": dt.time(3, 4)}
    same(tmp_path / "a.xlsx", [first, second])


def test_a_formula_is_its_value_or_said_to_have_none(tmp_path: Path):
    book = openpyxl.Workbook()
    for row in [["a", "b"], [1, "=A2+1"], [2, None]]:
        book.active.append(row)
    path = tmp_path / "a.xlsx"
    book.save(path)
    with pytest.raises(BadOption, match=r"a formula in B2 that was never computed\. Open it in Excel or LibreOffice and save it"):
        files.read(str(path))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/worksheets/sheet1.xml"] = re.sub(rb"<f>A2\+1</f><v ?/>", b"<f>A2+1</f><v>2</v>", parts["xl/worksheets/sheet1.xml"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    same(path, [{"a": 1, "b": 2}, {"a": 2, "b": None}])


@pytest.mark.parametrize("body", [b"", b"PK", b"a,b\n1,2\n"])
def test_what_is_no_workbook_is_one_line(tmp_path: Path, body: bytes):
    (tmp_path / "a.xlsx").write_bytes(body)
    with pytest.raises(BadOption, match="is not a workbook that openpyxl reads"):
        files.read(str(tmp_path / "a.xlsx"))


@pytest.mark.parametrize("part", ["xl/workbook.xml", "xl/worksheets/sheet1.xml"])
def test_a_workbook_with_a_broken_part_is_one_line(tmp_path: Path, part: str):
    pd.DataFrame({"a": [1]}).to_excel(tmp_path / "whole.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as broken:
        for name in whole.namelist():
            broken.writestr(name, whole.read(name)[: -9 if name == part else None])
    with pytest.raises(BadOption, match="is not a workbook that openpyxl reads"):
        files.read(str(tmp_path / "a.xlsx"))


# -- Parquet and Feather -------------------------------------------------------------------------------------------------
def arrow_types() -> dict[str, Any]:
    """Types of Arrow by name, each with a strategy of its values."""
    import pyarrow as pa

    day = dt.datetime(2024, 1, 1)
    text = st.text(st.characters(codec="utf-8"), max_size=5) | NASTY
    whole = {
        f"{s}int{n}": (getattr(pa, f"{s}int{n}")(), st.integers(0 if s else -(2 ** (n - 1)), 2 ** (n - bool(not s)) - 1))
        for n in (8, 32, 64)
        for s in ("", "u")
    }
    small = st.floats(width=32, allow_nan=False, allow_infinity=False)
    return {
        **whole,
        "bool": (pa.bool_(), st.booleans()),
        "double": (pa.float64(), NUMBER),
        "text": (pa.string(), text),
        "large text": (pa.large_string(), text),
        "decimal": (pa.decimal128(20, 4), st.decimals(-(10**9), 10**9, places=4)),
        "date": (pa.date32(), st.dates()),
        "time": (pa.time64("us"), st.times()),
        "moment": (pa.timestamp("us"), st.datetimes()),
        "zoned": (
            pa.timestamp("ms", "Asia/Seoul"),
            st.integers(0, 10**6).map(lambda s: (day + dt.timedelta(seconds=s)).replace(tzinfo=dt.UTC)),
        ),
        "duration": (pa.duration("us"), st.timedeltas(dt.timedelta(-999), dt.timedelta(999))),
        "category": (pa.dictionary(pa.int32(), pa.string()), text),
        "list": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3)),
        "struct": (
            pa.struct({"x": pa.int64(), "y": pa.list_(pa.string())}),
            st.tuples(st.none() | st.integers(-9, 2**60), st.none() | st.lists(text, max_size=2)).map(lambda v: {"x": v[0], "y": v[1]}),
        ),
        "map": (pa.map_(pa.string(), pa.int64()), st.dictionaries(text, st.none() | st.integers(-9, 2**60), max_size=2)),
        "small floats": (pa.list_(pa.float32()), st.lists(small, max_size=2)),
        "binary": (pa.binary(), st.binary(max_size=4)),
    }


@SOME
@given(st.data())
def test_parquet_and_feather(tmp_path: Path, data: st.DataObject):
    kinds = arrow_types()
    chosen = [data.draw(st.sampled_from(sorted(kinds))) for _ in range(3)]
    drawn = {f"c{i}": data.draw(st.lists(kinds[name][1] | st.none(), min_size=3, max_size=3)) for i, name in enumerate(chosen)}
    table = pa.table(
        {
            c: pa.array([list(v.items()) if name == "map" and v is not None else v for v in drawn[c]], kinds[name][0])
            for c, name in zip(drawn, chosen, strict=True)
        }
    )
    rows = [{c: expected(values[i]) for c, values in drawn.items()} for i in range(3)]
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.feather")
    for name in ("a.parquet", "a.feather"):
        came = frame.records(files.read(str(tmp_path / name)))
        assert came == rows
        assert [[isinstance(v, float) for v in row.values()] for row in came] == [
            [isinstance(v, float) for v in row.values()] for row in rows
        ]
        plain = [
            c for c, kind in zip(drawn, chosen, strict=True) if kind not in ("zoned", "moment", "duration", "binary")
        ]  # pandas' own words for them
        if plain:
            assert said([{c: row[c] for c in plain} for row in came]) == said([{c: row[c] for c in plain} for row in rows])


def expected(value: Any) -> Any:
    """A small float as it is shown: the shortest decimal that is it."""
    if isinstance(value, list) and value and all(isinstance(v, float) for v in value):
        import numpy as np

        return [float(str(np.float32(v))) for v in value]
    return value


def test_types_of_arrow_that_pandas_changes(tmp_path: Path):
    columns = {
        "i": pa.array([1, None, 9007199254740993]),
        "d": pa.array([1, None, 3]).dictionary_encode(),
        "t": pa.array([1, None, 10**9], pa.time64("ns")),
        "u": pa.array([{"f": 0.1}, None, {"f": 2.5}], pa.struct({"f": pa.float32()})),
        "n": pa.nulls(3),
        "m": pa.array([[("k", 1), ("k", 2)], None, []], pa.map_(pa.string(), pa.int64())),
        "v": pa.array([[0.5, 1.5], None, [2.5, 3.5]], pa.list_(pa.float32(), 2)),
        "x": pa.array([0.1, None, 2.5], pa.float32()),
        "e": pa.array([Decimal("1.10"), None, Decimal("2.00")]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    came = frame.records(files.read(str(tmp_path / "a.parquet")))
    assert came[1] == dict.fromkeys(columns)
    assert came[0] == {
        "i": 1,
        "d": 1,
        "t": "00:00:00.000000001",
        "u": {"f": 0.1},
        "n": None,
        "m": [("k", 1), ("k", 2)],
        "v": [0.5, 1.5],
        "x": 0.1,
        "e": Decimal("1.10"),
    }
    assert {k: type(v) for k, v in came[2].items() if k in ("i", "d")} == {"i": int, "d": int}


def test_what_pandas_wrote_with_types_of_its_own_is_read_with_them(tmp_path: Path):
    columns = {"month": pd.period_range("2026-01", periods=2, freq="M"), "span": pd.interval_range(0, 2)}
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    came = frame.records(files.read(str(tmp_path / "a.parquet")))
    assert [{k: str(v) for k, v in row.items()} for row in came] == [
        {"month": "2026-01", "span": "(0, 1]"},
        {"month": "2026-02", "span": "(1, 2]"},
    ]


def test_the_index_that_pandas_wrote_is_the_frames(tmp_path: Path):
    path = str(tmp_path / "a.parquet")
    for index in (
        pd.Index(["r1", "r2"], name="id"),
        pd.RangeIndex(5, 7),
        pd.MultiIndex.from_tuples([(1, "x"), (1, "y")]),
        pd.RangeIndex(2),
    ):
        made = pd.DataFrame(
            {"a": pd.array([1, None], dtype="Int64"), "l": [[1, None], None], "c": pd.Categorical(["x", None])}, index=index
        )
        made.to_parquet(path)
        came = files.read(path)
        assert came.index.equals(index)
        assert frame.records(came) == [{"a": 1, "l": [1, None], "c": "x"}, {"a": None, "l": None, "c": None}]
        assert str(came["c"].dtype) == "category"


def test_columns_are_those_of_the_file(tmp_path: Path):
    numbers = pa.table({"a": pa.array([1, None, 3]).dictionary_encode()})
    feather.write_feather(numbers, tmp_path / "a.feather")
    assert str(files.read(str(tmp_path / "a.feather"))["a"].dtype) == "Int64", "a category could not be compared by --where"
    with pa.ipc.new_stream(tmp_path / "stream.arrow", numbers.schema) as stream:  # as the library datasets writes its caches
        stream.write_table(numbers)
    assert frame.records(files.read(str(tmp_path / "stream.arrow"))) == [{"a": 1}, {"a": None}, {"a": 3}]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], ["a", "a"])
    (tmp_path / "year=2026").mkdir()
    parquet.write_table(twice, tmp_path / "year=2026" / "a.parquet")
    feather.write_feather(twice, tmp_path / "a.arrow")
    for name in ("year=2026/a.parquet", "a.arrow"):
        assert frame.records(files.read(str(tmp_path / name))) == [{"a": 1, "a.1": "x"}]
    parts = pa.table({"part": ["x", "y"], "n": [1, None]})
    parquet.write_to_dataset(parts, tmp_path / "parts.parquet", partition_cols=["part"])
    assert frame.records(files.read(str(tmp_path / "parts.parquet"))) == [{"n": 1, "part": "x"}, {"n": None, "part": "y"}]


def test_what_is_no_parquet_is_one_line(tmp_path: Path):
    for name in ("a.parquet", "a.feather"):
        (tmp_path / name).write_bytes(b"a,b\n1,2\n")
        with pytest.raises(BadOption, match="could not be read: ") as caught:
            files.read(str(tmp_path / name))
        assert "\n" not in str(caught.value)
