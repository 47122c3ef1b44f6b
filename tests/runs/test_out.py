"""`--out`: a file of a run's rows that is whole at every moment, belongs to its run, and is completed by the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from killed import ROOT, Counting
from servers.exact import Exact

import holynb
from holynb.errors import BadOption, InferError, UserError
from holynb.run import out_file, resume, session
from holynb.run.run import Run

DF = pd.DataFrame({"text": ["a", "b", "c"], "n": [1, 2, 3], "o": [{"x": 1}, None, [2]]})
KINDS = ("parquet", "jsonl", "csv")


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_json(path, lines=True)


def said(run: holynb.Run) -> str:
    return "\n".join(getattr(event, "text", "") for event in run.journal.events())


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_has_the_input_and_the_answers_and_the_same_cell_writes_it_again(kind: str, tmp_path: Path) -> None:
    out = tmp_path / f"rows.{kind}"
    for _ in range(2):
        run = holynb.infer("{{ text }}!", "sim/echo", df=DF, out=str(out)).wait()
    written = read(out)
    assert written["text"].tolist() == ["a", "b", "c"]
    assert written["result_text"].tolist() == ["a!", "b!", "c!"]
    assert [*written.columns] == [*DF.columns, "result_text", *run.frame().columns[1:]]
    assert "text as result_text" in said(run)
    assert [p.name for p in tmp_path.glob("*rows*")] == [out.name], "nothing is left beside it"
    with pytest.raises(BadOption, match=r"asked something else\. Delete it"):
        holynb.infer("{{ text }}?", "sim/echo", df=DF, out=str(out))


def test_parquet_has_the_types_of_the_frame(tmp_path: Path) -> None:
    out, schema = tmp_path / "rows.parquet", {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
    df = pd.DataFrame({"say": ['{"score": 3}', None]}, index=pd.Index([7, 9], name="id"))
    run = holynb.infer("{{ say }}", "sim/echo", df=df, schema=schema, into="said", out=str(out)).wait()
    written, result = read(out), run.result()
    assert written["id"].tolist() == [7, 9]
    assert [*written.columns[:3]] == ["id", "say", "said"]
    assert written["score"].tolist() == [3, pd.NA]
    assert {name: str(written[name].dtype) for name in result.columns[1:]} == {n: str(t) for n, t in result.dtypes[1:].items()}


def test_vectors_are_fixed_size_lists_in_parquet_and_lists_in_json(tmp_path: Path) -> None:
    import pyarrow.parquet

    for kind in KINDS[:2]:
        run = holynb.infer(["a", "", "b"], "sim/echo", embed=True, dimensions=4, out=str(tmp_path / f"v.{kind}")).wait()
    column = pyarrow.parquet.read_table(tmp_path / "v.parquet")["embedding"]
    assert column.type.list_size == 4
    assert column.to_pylist()[2] == run.vectors()[2].tolist()
    assert column.to_pylist()[1] is None
    lines = (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["embedding"] == pytest.approx(run.vectors()[0].tolist())
    assert len(pd.read_parquet(tmp_path / "v.parquet")) == 3
    with pytest.raises(BadOption, match="a CSV has no vectors"):
        holynb.infer(["a"], "sim/echo", embed=True, out="v.csv")


@pytest.mark.parametrize(
    ("out", "why"),
    [("rows.xlsx", "End its name with one of them"), ("no/rows.csv", "there is no folder"), ("folder.csv", "that is a folder")],
)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(out: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadOption, match=why):
        holynb.infer(["a"], "sim/echo", out=str(tmp_path / out))


def test_a_file_of_its_users_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(BadOption, match=r"no run wrote it\. Delete it, or give another name"):
        holynb.infer(["a"], "sim/echo", out=str(out))
    out.unlink()
    holynb.infer(["a", "b"], "sim/echo", out=str(out), name="mine").wait()
    with pytest.raises(BadOption, match="2 rows of run mine, and this run has 1"):
        holynb.infer(["a"], "sim/echo", out=str(out), name="mine")
    out.write_text("a note of mine", encoding="utf-8")
    with pytest.raises(BadOption, match="was changed since run mine wrote it"):
        holynb.infer(["a", "b"], "sim/echo", out=str(out), name="mine")
    assert out.read_text(encoding="utf-8") == "a note of mine"


def test_a_run_that_cannot_begin_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.csv"
    holynb.infer(["a"], "sim/echo", out=str(out)).wait()
    before = out.read_bytes()

    async def fails(*_: object) -> None:
        raise UserError("active elsewhere")

    monkeypatch.setattr("holynb.run.recorder.Recorder.begin", fails)
    with pytest.raises(UserError, match="active elsewhere"):
        holynb.infer(["a"], "sim/echo", out=str(out)).wait()
    assert out.read_bytes() == before


def test_a_disk_that_is_full_is_said_once_and_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_file, "FIRST_S", 0.01)
    tried: list[int] = []

    def full(_: object, window: object) -> None:
        tried.append(1)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("holynb.results.rows_file.RowsFile.write", full)
        run = holynb.infer(["a", "b"], "sim/stream", out=str(tmp_path / "rows.csv"), max_tokens=2)
        until = time.monotonic() + 20
        while not tried and time.monotonic() < until and not run.done:
            time.sleep(0.01)
        with pytest.warns(RuntimeWarning, match=r"No space left on device.*run the cell again"):
            run.wait()
    assert run.frame()["status"].tolist() == ["ok", "ok"]
    assert said(run).count("It is tried again") <= 1
    assert not list(tmp_path.glob("*rows*"))


def test_a_table_that_has_grown_sends_its_new_rows_alone(tmp_path: Path) -> None:
    out = str(tmp_path / "rows.jsonl")
    df = pd.DataFrame({"what": [f"row {i}" for i in range(5)]})
    holynb.infer("{{ what }}", "sim/echo", df=df[:3], name="grows", out=out).wait()
    run = holynb.infer("{{ what }}", "sim/echo", df=df, name="grows", out=out).wait()
    assert run.frame()["attempts"].tolist() == [0, 0, 0, 1, 1]
    assert "3 rows of 5 were answered before; 2 are new or were not." in said(run)
    assert read(Path(out))["what"].tolist() == df["what"].tolist()


def test_rows_are_written_in_windows_of_one_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.results.out_rows.WINDOW", 3)
    df = pd.DataFrame({"what": [f"row {i}" for i in range(10)], "late": [None] * 9 + ["x"], "nested": [[1]] * 5 + [None] * 4 + [[2, 3]]})
    for kind in KINDS:
        holynb.infer("{{ what }}", "sim/echo", df=df, out=str(tmp_path / f"rows.{kind}")).wait()
        written = read(tmp_path / f"rows.{kind}")
        assert written["text"].tolist() == df["what"].tolist()
        assert written["late"].iloc[-1] == "x"
    assert pd.read_parquet(tmp_path / "rows.parquet")["nested"].iloc[-1].tolist() == [2, 3]


def test_each_answer_of_a_comparison_stands_beside_its_own_input(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    holynb.infer("{{ text }}", "sim/echo", df=DF, samples=2, out=str(out)).wait()
    written = read(out)
    assert written["text"].tolist() == written["result_text"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert written["sample"].tolist() == [0, 1] * 3


def test_the_log_alone_completes_what_it_knows(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "rows.csv"
    source.write_text("what\r\none\r\ntwo\r\n", encoding="utf-8")
    holynb.infer("{{ what }}", "sim/echo", file=str(source), name="filed", out=str(out)).wait()
    session._session.clear()
    out.unlink()
    Run(resume.resumed("filed")).start().wait()
    assert read(out)["what"].tolist() == ["one", "two"]
    session._session.clear()
    source.write_text("what\r\nthree\r\nfour\r\n\r\n", encoding="utf-8")
    plan = resume.resumed("filed")
    assert plan.options.out is None
    assert "run the cell again, it sends nothing twice and completes the file" in plan.notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_this_session_is_resumed_with_its_file(kind: str, tmp_path: Path) -> None:
    out = tmp_path / f"rows.{kind}"
    slow = {"latency": 0.3}
    stopped = holynb.infer("{{ text }}", "sim/echo", df=DF, name="mine", into="said", out=str(out), concurrency=1, p=slow)
    until = time.monotonic() + 20
    while not stopped.summary().ok and time.monotonic() < until:
        time.sleep(0.01)
    stopped.cancel()
    with suppress(InferError):
        stopped.wait()
    assert "cancelled" in read(out)["status"].tolist()
    plan = resume.resumed("mine")
    run = Run(plan).start().wait()
    assert not plan.notes
    assert read(out)["said"].tolist() == run.frame()["text"].tolist() == ["a", "b", "c"]
    assert [*read(out).columns[:4]] == [*DF.columns, "said"]
    out.unlink()
    Run(resume.resumed("mine")).start().wait()
    assert read(out)["n"].tolist() == [1, 2, 3], "a file that was deleted is written again"


CHILD = """
import sys
import holynb
from holynb.run import out_file
out_file.FIRST_S, out_file.SHARE = 0.02, 1
runs = [holynb.infer([f"row {i} of {kind}" for i in range(60)], "openai/m", name=kind, concurrency=2, out=f"{sys.argv[1]}/rows.{kind}")
        for kind in sys.argv[2:]]
for run in runs:
    run.wait()
"""


def test_a_kill_leaves_whole_files_and_the_same_names_complete_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, outs = Counting(latency=0.04), {kind: tmp_path / f"rows.{kind}" for kind in KINDS}
    with Exact(server) as exact:
        for name, value in {"OPENAI_API_KEY": "sk-killed-out-0123456789", "OPENAI_BASE_URL": exact.base}.items():
            monkeypatch.setenv(name, value)
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), *KINDS], env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            server.wait(60)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(60)
        for kind, out in outs.items():
            killed = read(out)
            places = [int(text.split()[3]) for text in killed["text"]]
            assert places == sorted(places)
            assert 0 < len(places) < 60, kind
            assert (killed["status"] == "ok").all()
        for kind, out in outs.items():
            holynb.infer([f"row {i} of {kind}" for i in range(60)], "openai/m", name=kind, out=str(out)).wait()
            assert read(out)["text"].tolist() == [f"answer to row {i} of {kind}" for i in range(60)]
    assert max(server.seen.values()) <= 2
    assert {p.name for p in tmp_path.glob("*rows*")} == {p.name for p in outs.values()}, "what the kill left beside them is gone"
