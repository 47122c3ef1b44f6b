"""Rows of a file, from the file to the frame that is kept: prompt, request key, `--where`, `--into`, `--params-from`, resume, and the CSV and page at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holynb import loop, runlog
from holynb.errors import BadPrompt
from holynb.run import Run, infer, resume, session
from holynb.ui.output import report, static

DEADLINE = 30
CSV = "id,zip,qty,note\n12345678901234567890,00714,3,None\n9007199254740993,08203,,n/a\n7,+4930,-4,1.10\n"
ROWS = [
    {"id": 12345678901234567890, "zip": "00714", "qty": 3, "note": "None"},
    {"id": 9007199254740993, "zip": "08203", "qty": None, "note": "n/a"},
    {"id": 7, "zip": "+4930", "qty": -4, "note": "1.10"},
]
TEMPLATE = "{{ id }} {{ zip }} {{ qty }} {{ note }} {{ row | tojson }}"
SAID = [
    f"12345678901234567890 00714 3 None {json.dumps(ROWS[0])}",
    f"9007199254740993 08203  n/a {json.dumps(ROWS[1])}",
    f"7 +4930 -4 1.10 {json.dumps(ROWS[2])}",
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "home"))
    session._session.clear()
    yield
    loop.close()
    runlog.close()


@pytest.fixture
def written(tmp_path: Path) -> dict[str, str]:
    """The same rows in each format of text."""
    texts = {"a.csv": CSV, "a.tsv": CSV.replace(",", "\t"), "b.csv": CSV.replace(",", ";"), "a.json": json.dumps(ROWS)}
    texts["a.jsonl"] = "\n".join(map(json.dumps, ROWS))
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    return {name: str(tmp_path / name) for name in texts}


def test_the_same_rows_ask_the_same_in_every_format(written: dict[str, str]):
    for name, path in written.items():
        run = infer(TEMPLATE, "sim/echo", file=path).wait(DEADLINE)
        frame = run.frame()
        assert frame["text"].tolist() == SAID
        assert frame["cached"].tolist() == [name != "a.csv"] * 3, "the request key of the first format's rows"


def test_what_is_kept_is_written_as_the_file_was(written: dict[str, str]):
    run = infer("{{ id }}", "sim/echo", file=written["a.csv"], into="said", name="kept").wait(DEADLINE)
    first, *lines = CSV.splitlines()
    assert run.frame().to_csv(index=False).splitlines() == [f"{first},said", *(f"{line},{line.partition(',')[0]}" for line in lines)]
    page = static.as_html(report.of(run))
    assert all(str(row["id"]) in page for row in ROWS)
    session._session.clear()
    again = Run(resume.resumed("kept")).start().wait(DEADLINE)
    assert again.frame()["text"].tolist() == [str(row["id"]) for row in ROWS]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("id > 9007199254740993", [12345678901234567890]),
        ("id == 9007199254740993", [9007199254740993]),
        ("zip == '00714'", [12345678901234567890]),
        ("qty > 0", [12345678901234567890]),
        ("qty.isna()", [9007199254740993]),
        ("note in ['None', 'n/a']", [12345678901234567890, 9007199254740993]),
        ("zip.str.startswith('0')", [12345678901234567890, 9007199254740993]),
    ],
)
def test_where_sees_the_values_themselves(written: dict[str, str], where: str, ids: list[int]):
    for path in written.values():
        run = infer("{{ id }}", "sim/echo", file=path, where=where).wait(DEADLINE)
        assert run.frame()["text"].tolist() == [str(i) for i in ids]


def test_sampling_of_a_row_is_a_number(tmp_path: Path):
    (tmp_path / "a.csv").write_text("t,temperature,seed,presence_penalty\nx,0.50,007,0.5\ny,,9007199254740993,\n")
    columns = ("temperature", "seed", "presence_penalty")
    run = infer("{{ t }}", "sim/echo", file=str(tmp_path / "a.csv"), params_from=columns).wait(DEADLINE)
    first, second = (r.sampling for r in run.plan.rows.requests if r is not None)
    assert (first.temperature, first.seed, first.extra) == (0.5, 7, {"presence_penalty": 0.5})
    assert (second.temperature, second.seed, second.extra) == (None, 9007199254740993, {})


@pytest.mark.parametrize(("name", "text"), [("a.csv", "a,b\n"), ("a.txt", "\n \n"), ("a.json", "{}")])
def test_a_file_without_rows_sends_nothing(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadPrompt, match=f"^--file .*{name} has no rows, so there is nothing to send"):
        infer("{{ a }}", "sim/echo", file=str(tmp_path / name))
