"""What a page takes out of a run: files that read back as the frame, cells that no spreadsheet runs, names that nobody else has."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.results import frame
from holynb.schema import load
from holynb.types import Outcome, Usage
from holynb.ui.live import export as exports
from holynb.ui.live.export import Export, harmless

STARTS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x"]
PLAIN = ["", "a=b", " =1", "1-2", "'=1", "가=나", "5", "#N/A"]


def answers(texts: Sequence[str | None], **more: Any) -> pd.DataFrame:
    rows = [None if t is None else Outcome("ok", t, route="sim/echo", attempts=1, usage=Usage(3, 5), latency_s=0.5) for t in texts]
    return frame.build(rows, **more)


def export_of(df: pd.DataFrame, name: str = "mine") -> Export:
    return Export(name, [f"prompt {i}" for i in range(len(df))], lambda: df)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("text", STARTS)
def test_what_begins_as_a_formula_is_text_wherever_it_stands(text: str) -> None:
    df = pd.DataFrame(
        {text: pd.array([text], dtype="string"), "kind": pd.Categorical([text]), "n": [-5]}, index=pd.Index([text], name=text)
    )
    safe = harmless(df)
    assert [safe.columns[0], safe.iloc[0, 0], safe.iloc[0, 1], safe.index[0], safe.index.name] == [f"'{text}"] * 5
    assert safe["n"].tolist() == [-5], "a number runs nothing"
    assert df.columns[0] == df.iloc[0, 0] == text, "the frame itself is left as it is"
    levels = harmless(df.set_index(pd.MultiIndex.from_tuples([(text, 1)], names=[text, "k"])))
    assert levels.index.tolist() == [(f"'{text}", 1)]
    assert levels.index.names == [f"'{text}", "k"]


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_formula_stays(text: str) -> None:
    df = answers([text])
    assert harmless(df)["text"].tolist() == [text]


def test_safe_for_spreadsheets_is_a_choice_and_opens_with_its_letters_in_excel(folder: Path) -> None:
    df = answers(["=cmd|' /C calc'!A0", "한글"])
    export_of(df).answer("csv")
    assert b"=cmd" in (folder / "holynb-mine.csv").read_bytes()
    export_of(df).answer("csv", safe=True)
    assert (folder / "holynb-mine.csv").read_bytes().startswith(b"\xef\xbb\xbf"), "what Excel knows UTF-8 by"
    assert pd.read_csv("holynb-mine.csv", index_col=0)["text"].tolist() == ["'=cmd|' /C calc'!A0", "한글"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, max_size=4))
def test_a_csv_file_reads_back_as_the_frame(texts: list[str]) -> None:
    df = answers(texts)
    said = export_of(df).answer("csv")
    assert not said["failed"]
    back = pd.read_csv(said["said"].removeprefix("Written: "), index_col=0, dtype={"text": "string"}, keep_default_na=False)
    assert back["text"].tolist() == texts
    assert list(back.columns) == list(df.columns)


def test_missing_answers_and_nested_values_are_no_trouble(folder: Path) -> None:
    schema = load({"type": "object", "properties": {"things": {"type": "array", "items": {"type": "string"}}, "n": {"type": "integer"}}})
    df = answers(['{"things": ["a", "b, c"], "n": 1}', None, "c"], schema=schema, index=pd.Index(["r0", "r1", "r2"], name="who"))
    assert not export_of(df).answer("csv")["failed"]
    back = pd.read_csv("holynb-mine.csv", index_col="who")
    assert back["things"].iloc[0] == '["a", "b, c"]', "JSON, which other programs read"
    assert back["text"].isna().tolist() == [False, True, False]


def test_half_a_character_costs_no_file(folder: Path) -> None:
    df = pd.DataFrame({"x": pd.Series(["half \ud83d"], dtype=object)})
    assert not export_of(df).answer("csv")["failed"]
    assert b"half ?" in (folder / "holynb-mine.csv").read_bytes()


def test_a_parquet_file_holds_the_frame_and_where_it_is_from() -> None:
    df = answers(["a", "=b"], origin={"run": "r"})
    assert export_of(df).answer("parquet")["said"] == "Written: holynb-mine.parquet"
    back = pd.read_parquet("holynb-mine.parquet")
    pd.testing.assert_frame_equal(back, df)
    assert back.attrs == df.attrs


def test_somebody_elses_file_is_left_alone_and_our_own_is_written_again(folder: Path) -> None:
    (folder / "holynb-mine.csv").write_text("precious")
    mine, other = export_of(answers(["one"])), export_of(answers(["two"]), "mine ")
    assert mine.answer("csv")["said"] == "Written: holynb-mine-2.csv"
    assert export_of(answers(["more"])).answer("csv")["said"] == "Written: holynb-mine-2.csv"
    assert "more" in (folder / "holynb-mine-2.csv").read_text()
    assert other.answer("csv")["said"] == "Written: holynb-mine-3.csv", "of another run whose name is written alike"
    with (folder / "holynb-mine-2.csv").open("a") as file:
        file.write("a note")
    assert mine.answer("csv")["said"] == "Written: holynb-mine-4.csv", "somebody has changed it"
    assert (folder / "holynb-mine.csv").read_text() == "precious"
    assert sorted(p.name for p in folder.iterdir()) == [f"holynb-mine{n}.csv" for n in ("-2", "-3", "-4", "")], "nothing half is left"


@pytest.mark.parametrize(
    ("name", "file"),
    [("../../etc/x", "holynb-etc-x.csv"), ("a b:c", "holynb-a-b-c.csv"), ("...", "holynb-run.csv"), ("리뷰", "holynb-리뷰.csv")],
)
def test_a_name_leads_to_no_other_folder(folder: Path, name: str, file: str) -> None:
    assert export_of(answers(["a"]), name).answer("csv")["said"] == f"Written: {file}"
    assert [p.name for p in folder.iterdir()] == [file]


def test_a_folder_that_cannot_be_written_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pd.DataFrame, "to_csv", refuse)
    said = export_of(answers(["a"])).answer("csv")
    assert said["failed"]
    line = f"holynb-mine.csv could not be written in {folder}: Permission denied. %cd to a folder that you may write to, and press again."
    assert said["said"] == line
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "a folder that is gone" in export_of(answers(["a"])).answer("csv")["said"]
    monkeypatch.chdir(folder)


def test_rows_are_copied_in_the_order_of_the_table_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    export = export_of(answers(["a", 'b\t"c"\nd', None, "=e"]))
    copied = export.answer("copy", [3, 1])
    assert copied["said"] == "Copied: 2 rows."
    lines = list(csv.reader(io.StringIO(copied["text"], newline=""), delimiter="\t"))
    assert lines[0] == ["", "prompt", *exports.COPIED]
    assert [line[:3] for line in lines[1:]] == [["3", "prompt 3", "=e"], ["1", "prompt 1", 'b\t"c"\nd']]
    assert "\t'=e\t" in export.answer("copy", [3], safe=True)["text"]
    many = export_of(answers(["x" * 100] * 50))
    monkeypatch.setattr(exports, "MAX_COPIED_CHARS", 1_000)
    short = many.answer("copy", range(50))
    assert len(short["text"]) <= 1_000
    assert short["said"] == f"Copied: {short['text'].count('x' * 100)} rows of 50; CSV has all."
    assert 0 < short["text"].count("x" * 100) < 50


def test_the_reason_why_there_is_no_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert exports.missing_for_parquet() == "Parquet needs pyarrow: %pip install pyarrow"
