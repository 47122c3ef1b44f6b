"""Files of rows: what a file says is what its frame says, and what cannot be read is one line that says what to do.

Looked at besides (issue "Files say what they say"), and what was found there:

- `--params-from`, `--router COLUMN`, `task_type`: take the frame's values as they are; a number of a CSV that is text goes through the option's own converter.
- `%infer bench --prompts FILE`: reads by the same function.
- `-l` of a cell and of `holynb.infer`: cut by the same `lines`; `.md` files too.
- `--schema FILE`, `config.toml`, `.env`, saved prompts: a BOM was passed over already, none of them holds rows.
- labels of an index (`to_json` and Parquet keep them): whole numbers and texts come back from the run log as they were.
- answers under `--schema`: a whole number that its column of floats cannot hold is said to be too large, as those beyond 64 bits were.
- recordings and the run log: JSON of our own with ints below 2**53, read by the standard library.
- `engines.codec` (orjson makes 2**64 a float): wires have no such field, and an answer's text is text.
- categories of whole numbers with a gap, and float32 in categories, in a frame of the notebook: `results.frame.records`, in its own tests.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import zstandard

from holynb import files
from holynb.errors import BadOption
from holynb.results import frame, index_labels


def rows(path: Path) -> list[dict[str, object]]:
    return frame.records(files.read(str(path)))


def column(path: Path, text: str | bytes, name: str = "a") -> list[object]:
    """The values of a column of a file with this text."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [row[name] for row in rows(path)]


# -- CSV -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "values", "dtype"),
    [
        (["3", "", "-4"], [3, None, -4], "Int64"),
        (["3", "0"], [3, 0], "int64"),
        (["1.5", "", "2.0"], [1.5, None, 2.0], "float64"),
        (["1.5", "2"], [1.5, 2], "object"),
        (["12345678901234567891", "7"], [12345678901234567891, 7], "object"),
        (["True", "", "False"], [True, None, False], "boolean"),
        (["true", "false"], ["true", "false"], "str"),
        (["01234", "00501"], ["01234", "00501"], "str"),
        (["+4930123", "5"], ["+4930123", "5"], "str"),
        (["1.10", "2.0"], ["1.10", "2.0"], "str"),
        (["1e5", "1E5", "1_000", " 3", "3 ", "-0", "--1", ".5", "5."], ["1e5", "1E5", "1_000", " 3", "3 ", "-0", "--1", ".5", "5."], "str"),
        (["nan", "NaN", "inf", "-inf", "Infinity"], ["nan", "NaN", "inf", "-inf", "Infinity"], "str"),
        (
            ["None", "NA", "n/a", "null", "NULL", "<NA>", "#N/A", "-", "?"],
            ["None", "NA", "n/a", "null", "NULL", "<NA>", "#N/A", "-", "?"],
            "str",
        ),
        (["3", "x"], ["3", "x"], "str"),
        (["١٢", "２"], ["١٢", "２"], "str"),
        (["2024-01-05", "05.01.2024"], ["2024-01-05", "05.01.2024"], "str"),
        (["9" * 5000], ["9" * 5000], "str"),
    ],
)
def test_a_column_is_numbers_only_where_all_of_it_is_written_as_numbers_are(
    tmp_path: Path, cells: list[str], values: list[object], dtype: str
):
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["a", "b"], *([cell, "x"] for cell in cells)])
    made = files.read(str(path))
    came = [row["a"] for row in frame.records(made)]
    assert [(type(v), v) for v in came] == [(type(v), v) for v in values]
    assert str(made["a"].dtype) == dtype or (dtype == "str" and made["a"].dtype == object)  # pandas 2
    assert made.to_csv(index=False) == path.read_text("utf-8").replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('a,b\n"x\ny","z, w"\n', {"a": "x\ny", "b": "z, w"}),
        ('a,b\r\n"x\r\ny",1\r\n', {"a": "x\r\ny", "b": 1}),
        ("a,b\rx,1\r", {"a": "x", "b": 1}),
        ('a,b\n5" screen,""\n', {"a": '5" screen', "b": None}),
        ('a,b\n"5"" screen",x\n', {"a": '5" screen', "b": "x"}),
        ("a,b\nx\u2028y\x0c\x85,\x00\n", {"a": "x\u2028y\x0c\x85", "b": "\x00"}),
        ("\n\na,b\n\nx,y\n\n", {"a": "x", "b": "y"}),
        ("a,b,a,\nx,y,z,w\n", {"a": "x", "b": "y", "a.1": "z", "Unnamed: 3": "w"}),
        ("a,a,a.1\nx,y,z\n", {"a": "x", "a.2": "y", "a.1": "z"}),
        (",Unnamed: 0\nx,y\n", {"Unnamed: 0.1": "x", "Unnamed: 0": "y"}),
        ("a,b\nx\n", {"a": "x", "b": None}),
        ("a,b\nx,y,,\n", {"a": "x", "b": "y"}),
        ("a;b\nx;1,50\n", {"a": "x", "b": "1,50"}),
        ("name;price, EUR;n\nx;1,50;2\n", {"name": "x", "price, EUR": "1,50", "n": 2}),
        ('"a;b",c\nx,y\n', {"a;b": "x", "c": "y"}),
        ("good; bad\nall of it\n", {"good; bad": "all of it"}),
        ("a\tb\nx, y\tz\n", {"a": "x, y", "b": "z"}),
        ("a|b\nx, y|z\n", {"a": "x, y", "b": "z"}),
        ("sep=|\r\na|b\r\nx;y|z\r\n", {"a": "x;y", "b": "z"}),
    ],
)
def test_a_csv_is_read_as_it_is_written(tmp_path: Path, text: str, want: dict[str, object]):
    path = tmp_path / "a.csv"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes(text.encode(encoding))
        assert rows(path) == [want]


def test_a_tsv_is_divided_by_tabs_alone(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\nx, y; z\t007\n")
    assert rows(path) == [{"a": "x, y; z", "b": "007"}]


def test_a_cell_may_be_long_and_the_csv_modules_limit_stays(tmp_path: Path):
    before = csv.field_size_limit()
    long = "word " * 100_000
    assert column(tmp_path / "a.csv", f"a\n{long}\n") == [long]
    assert csv.field_size_limit() == before


# -- JSON ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["00714", "1.10", "2024-01-05"], "str"),
        ([9007199254740993, None], "Int64"),
        ([2**63 - 1, -(2**63)], "int64"),
        ([2**64, 2**63, None], "object"),
        ([True, None], "boolean"),
        ([True, False], "bool"),
        ([1, 2.5, None], "object"),
        ([3.0, None], "float64"),
        ([1, "1", None, True], "object"),
        ([{"k": [1, None]}, None, [], {}], "object"),
        ([None, None], "object"),
        (["a\ud800", None], "str"),  # objects where Arrow keeps texts
    ],
    ids=str,
)
def test_values_of_json_are_what_they_are(tmp_path: Path, values: list[object], dtype: str):
    lines, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text("\n\n".join(json.dumps({"a": v}) for v in values) + "\n")
    whole.write_text(json.dumps([{"a": v} for v in values]))
    for path in (lines, whole):
        made = files.read(str(path))
        came = [row["a"] for row in frame.records(made)]
        assert [(type(v), v) for v in came] == [(type(v), v) for v in values]
        if dtype != "str":
            assert str(made["a"].dtype) == dtype


def test_a_number_that_a_float_would_change_stays_what_is_written(tmp_path: Path):
    text = '{"a": 0.1234567890123456789}\n{"a": 0.1}\n{"a": 1e400}\n{"a": 123456789012345.25}\n{"a": 1.10}\n'
    want = [Decimal("0.1234567890123456789"), 0.1, Decimal("1E+400"), 123456789012345.25, 1.1]
    assert column(tmp_path / "a.jsonl", text) == want


def test_nan_is_missing_and_infinity_a_number(tmp_path: Path):
    assert column(tmp_path / "a.json", '[{"a": NaN}, {"a": Infinity}, {"a": -Infinity}]') == [None, float("inf"), float("-inf")]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('[{"a": 1}, {"b": 2, "a": 3}]', [{"a": 1, "b": None}, {"a": 3, "b": 2}]),
        ('{"a": [1, 2], "b": ["x", "y"]}', [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ('{"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": null}}', [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        ('{"a": 1, "b": [1, 2]}', [{"a": 1, "b": [1, 2]}]),
        ('{"a": {"x": 1}, "b": {"y": 2}}', [{"a": {"x": 1}, "b": {"y": 2}}]),
        ('["x", null, "y"]', [{"text": "x"}, {"text": None}, {"text": "y"}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),  # JSON Lines that are called .json
        ('\ufeff[{"a": "\u2028"}]', [{"a": "\u2028"}]),
    ],
)
def test_shapes_of_a_json_document(tmp_path: Path, text: str, want: list[dict[str, object]]):
    path = tmp_path / "a.json"
    path.write_text(text, "utf-8")
    assert rows(path) == want


def test_what_pandas_writes_as_json_is_read_with_its_labels(tmp_path: Path):
    path = tmp_path / "a.json"
    for labels, want in ((["r1", "r2"], ["r1", "r2"]), ([7, 12345678901234567], [7, 12345678901234567]), ([0, 1], [0, 1])):
        pd.DataFrame({"a": ["x", "007"]}, index=labels).to_json(path)
        made = files.read(str(path))
        assert (made["a"].tolist(), made.index.tolist()) == (["x", "007"], want)
        assert frame.restore_index(index_labels.labels(made.index), frame.index_spec(made.index)) is None or want != [0, 1]


# -- lines ---------------------------------------------------------------------------------------------------------------
def test_lines_end_at_newlines_and_nowhere_else(tmp_path: Path):
    text = "\ufeff one \x0btwo\u2028\n\n  \r\n\x1cthree\x85\x0c\rfour\u2029.\n"
    want = [" one \x0btwo\u2028", "\x1cthree\x85\x0c", "four\u2029."]
    for name in ("a.txt", "a.md"):
        assert column(tmp_path / name, text, "text") == want


def test_json_lines_end_there_too(tmp_path: Path):
    text = '{"a": "x\u2028y\x85"}\r\n\n\ufeff{"a": "z"}\r{"a": 1}'
    assert column(tmp_path / "a.ndjson", text) == ["x\u2028y\x85", "z", 1]


# -- packed --------------------------------------------------------------------------------------------------------------
def zipped(data: bytes, *names: str) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv", "a.json", "a.txt"])
def test_packed_files_are_unpacked(tmp_path: Path, name: str):
    texts = {"a.csv": "a\n007\n", "a.tsv": "a\n007\n", "a.txt": "007\n"}
    data = texts.get(name, '{"a": "007"}\n').encode()
    packed = {".gz": gzip.compress(data) + gzip.compress(b"\n"), ".bz2": bz2.compress(data), ".xz": lzma.compress(data)}
    packed |= {".ZIP": zipped(data, name, "__MACOSX/._a")}
    for suffix, body in packed.items():
        assert column(tmp_path / (name + suffix), body, "text" if name == "a.txt" else "a") == ["007"]
    assert column(tmp_path / "rows.zip", zipped(data, f"in/{name}"), "text" if name == "a.txt" else "a") == ["007"]


def test_zstandard_is_read_whole_or_not_at_all(tmp_path: Path):
    frames = [zstandard.compress(f'{{"a": "{n:03}"}}\n'.encode()) for n in range(3)]
    assert column(tmp_path / "a.jsonl.zst", b"".join(frames)) == ["000", "001", "002"]
    for broken in (b"".join(frames)[:-4], b"nothing of the kind"):
        with pytest.raises(BadOption, match=r"cannot be unpacked as \.zst"):
            column(tmp_path / "a.jsonl.zst", broken)


# -- one line --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.csv", "a,b\nGrüße,x\n".encode("latin-1"), r"is not UTF-8 text \(byte 0xfc in line 2\)\. Save it as UTF-8, or read it yourself"),
        ("a.txt", "Grüße".encode("latin-1"), r"is not UTF-8 text \(byte 0xfc in line 1\)"),
        ("a.json", "[\n\xff]".encode("latin-1"), "is not UTF-8 text"),
        ("a.csv", b"\xff\xfea", "is not UTF-16 text"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "every second byte is zero, as in UTF-16 without its byte order mark"),
        ("a.json", '[{"a": 1}]'.encode("utf-16-be"), "every second byte is zero"),
        ("a.csv", b"", "is empty: it has no line with the names"),
        ("a.csv", b"a,b\n1,2,3\n", r"has 3 cells in line 2, and 2 names in its first\. Put quotes"),
        ("a.csv", b"text\nHello, world\n", r"has 2 cells in line 2, and 1 name in its first"),
        ("a.csv", b'a,b\nx,y\n"x,y\nz,w\n', "has an unclosed quote in the row that begins in line 3"),
        ("a.csv", b'a,b\n"x" y,z\n', r"continues after a closing quote in line 2, where ',' should be\..*written twice"),
        ("a.json", b"", "is empty"),
        ("a.jsonl", b"\n", "has no rows"),
        ("a.json", b"[]", "has no rows"),
        ("a.json", b"{nope", "could not be read as JSON in line 1: Expecting property name"),
        ("a.jsonl", b'{\n"a": 1\n}', "in line 1: .*JSON Lines have a value in each line; one document is a .json file"),
        ("a.jsonl", b'{"a": 1}\n{"a": }\n', "could not be read as JSON in line 2: Expecting value"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}\n', "in line 2: an object has the key 'c' twice"),
        ("a.json", b"[" * 100_000, "it is nested too deeply"),
        ("a.json", b'[{"a": ' + b"9" * 5000 + b"}]", "Exceeds the limit"),
        ("a.json", b"[[1, 2]]", "has an array in place of row 0, and rows are objects"),
        ("a.jsonl", b'{"a": 1}\n"x"\n', "has a value in place of row 1"),
        ("a.json", b'{"a": [1], "b": [1, 2]}', r"object of arrays that differ in length \(a 1, b 2\)"),
        ("a.csv.gz", b"a\n1\n", r"cannot be unpacked as \.gz.*Unpack it yourself"),
        ("a.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:-4], r"cannot be unpacked as \.gz"),
        ("a.csv.bz2", bz2.compress(b"a\n1\n")[:-4], r"cannot be unpacked as \.bz2"),
        ("a.csv.xz", lzma.compress(b"a\n1\n")[:-4], r"cannot be unpacked as \.xz"),
        ("a.csv.zip", b"PK", r"cannot be unpacked as \.zip"),
        ("a.zip", b"PK", r"cannot be unpacked as \.zip"),
        ("a.zip", zipped(b"a\n1\n", "a.csv", "b.csv"), r"holds 2 files \(a\.csv, b\.csv\).*Unpack it, and name that one"),
        ("a.zip", zipped(b""), r"holds 0 files \(none\)"),
        ("a.zip", zipped(b"", "a.exe"), r"--file reads .*, not '\.zip'"),
        ("a.xyz", b"?", r"--file reads \.csv, .*, not '\.xyz'\. Read it yourself and use --df"),
        ("a.parquet.gz", b"?", r"--file reads .*, not '\.parquet\.gz'"),
        ("a.gz", gzip.compress(b"a\n1\n", mtime=0), r"--file reads .*, not '\.gz'"),
        ("rows", b"?", "--file reads .*, not 'rows'"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_what_to_do(tmp_path: Path, name: str, body: bytes, message: str):
    with pytest.raises(BadOption, match=message) as caught:
        column(tmp_path / name, body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_not_there_is_answered_with_the_one_that_is_meant(tmp_path: Path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(BadOption, match=r"There is no file .*Did you mean a\.csv\?"):
        files.read(str(tmp_path / "a.cvs"))
    with pytest.raises(BadOption, match="could not be read: Is a directory"):
        (tmp_path / "b.csv").mkdir()
        files.read(str(tmp_path / "b.csv"))


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("a.xlsx", "openpyxl", "pip install openpyxl"),
        ("a.parquet", "pyarrow.parquet", "pip install pyarrow"),
        ("a.feather", "pyarrow.feather", "pip install pyarrow"),
        ("a.csv.zst", "zstandard", "pip install zstandard"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, command: str
):
    (tmp_path / name).write_bytes(b"?")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(BadOption, match=f"{name}' needs .*: {command}$"):
        files.read(str(tmp_path / name))
