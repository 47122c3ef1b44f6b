"""`--out` with what else a run can do: batches that another kernel collects, judges, chunks, attachments, vectors, stops."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pictures
import pytest
from servers.batches import Batches

import holynb
from holynb import loop, runlog
from holynb.batches import pace
from holynb.run import Run, out_file, resume, session
from holynb.ui.commands import active

pytestmark = pytest.mark.usefixtures("ended")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    monkeypatch.setattr(pace, "FIRST_S", 0.02)
    monkeypatch.setattr(pace, "MOST_S", 0.1)
    with Batches("openai") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base)
        yield server


def left(name: str, what: Any = ("a", "b"), **options: Any) -> Run:
    """A run whose kernel has let it go, once its batch is accepted."""
    run = holynb.infer(list(what) if isinstance(what, tuple) else what, "openai/gpt-6-luna", batch=True, name=name, **options)
    while not run.batch.accepted:
        assert not run.done
    run.release()
    run.wait(60)
    session._session.remove(run)
    return run


def test_a_batch_that_status_collects_completes_its_file(server: Batches, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    left("night", out=str(out))
    assert rows(out) == [], "no row has ended"
    server.work()
    assert active._elsewhere(set()) == ["run night on openai/gpt-6-luna: 2 of 2 rows. %infer show night"]
    assert [(r["text"], r["status"]) for r in rows(out)] == [("answer " + i, "ok") for j in server.jobs.values() for i in ids(j)]


def test_a_batch_that_is_looked_at_twice_keeps_its_input_beside_its_answers(server: Batches, tmp_path: Path) -> None:
    source, filed, table = tmp_path / "in.csv", tmp_path / "filed.jsonl", tmp_path / "table.jsonl"
    source.write_text("a,n\nx,1\ny,2\n", encoding="utf-8")
    left("filed", "{{ a }}", file=str(source), out=str(filed))
    left("table", "say {{ a }}", df=pd.DataFrame({"a": ["x", "y"], "n": [1, 2]}, index=[7, 9]), into="answer", out=str(table))
    for _ in range(2):
        assert [line.partition(".")[0][-12:] for line in active._elsewhere(set()) if line.startswith("run")] == [" 0 of 2 rows"] * 2
    server.work()
    assert [line.partition(".")[0][-12:] for line in active._elsewhere(set())] == [" 2 of 2 rows"] * 2, "and nothing is said of a file"
    assert [(r["a"], r["n"], r["status"]) for r in rows(filed)] == [("x", 1, "ok"), ("y", 2, "ok")]
    assert [(r["index"], r["a"], r["n"], r["answer"][:7]) for r in rows(table)] == [(7, "x", 1, "answer "), (9, "y", 2, "answer ")]
    assert not list((runlog.log().path.parent / "out").glob("*.parquet")), "what was kept of the table is gone with its end"


def ids(job: Any) -> list[str]:
    return [row["custom_id"] for row in job.rows]


def test_a_file_that_is_not_ours_keeps_no_batch_from_being_collected(server: Batches, tmp_path: Path) -> None:
    out, of_table = tmp_path / "rows.jsonl", tmp_path / "table.csv"
    left("night", out=str(out))
    df = pd.DataFrame({"a": ["x", "y"], "mixed": ["x", 1]})  # which no file of columns holds
    left("day", "{{ a }}", df=df, out=str(of_table))
    out.write_text("mine", encoding="utf-8")
    server.work()
    lines = active._elsewhere(set())
    (day, why_day), (night, why_night) = sorted([lines[:2], lines[2:]])  # two runs of one second come in any order
    assert day.startswith("run day on openai/gpt-6-luna: 2 of 2 rows.") and night.startswith("run night on openai/gpt-6-luna: 2 of 2 rows.")
    assert "this file was changed since run night wrote it" in why_night and out.read_text(encoding="utf-8") == "mine"
    assert why_day.endswith(
        "has the columns of an input that the run log does not: run the cell again, it sends nothing twice and completes the file."
    )
    holynb.infer("{{ a }}", "openai/gpt-6-luna", df=df, batch=True, name="day", out=str(of_table)).wait(60)
    assert pd.read_csv(of_table)["status"].tolist() == ["ok", "ok"]


def test_a_batch_that_is_stopped_elsewhere_leaves_a_file_of_what_was_answered(server: Batches, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    left("night", out=str(out))
    server.work(share=0.5, end="working")
    assert (active.stopped("night") or "").startswith("Stopped night at its provider.")
    assert [r["status"] for r in rows(out)] == ["ok", "cancelled"]


def test_scores_are_in_the_file(tmp_path: Path) -> None:
    judged = tmp_path / "judged.jsonl"
    holynb.infer(["a", "b"], "sim/echo", judge="sim/echo", samples=2, out=str(judged)).wait(60)
    assert [(r["text"], r["sample"], r["score"] is not None or r["score_reason"] is not None) for r in rows(judged)] == [
        (text, sample, True) for text in "ab" for sample in (0, 1)
    ]


def test_what_is_asked_in_parts_is_in_the_file(tmp_path: Path) -> None:
    chunked = tmp_path / "chunked.jsonl"
    run = holynb.infer(["word " * 900, "short"], "sim/echo", chunk="300", out=str(chunked)).wait(60)
    assert [r["text"] for r in rows(chunked)] == run.frame()["text"].tolist() and len(run.chunks()) > 2


def test_of_pictures_their_paths_are_in_the_file(server: Batches, tmp_path: Path) -> None:
    path, seen = tmp_path / "p.png", tmp_path / "seen.jsonl"
    path.write_bytes(pictures.noise())
    server.at_once = True
    df = pd.DataFrame({"photo": [str(path), path.read_bytes()]}, dtype=object)
    holynb.infer("what is it?", "openai/gpt-6-luna", df=df, attach=("photo",), batch=True, out=str(seen)).wait(60)
    assert [(r["photo"], r["status"]) for r in rows(seen)] == [(str(path), "ok"), (None, "ok")]


@pytest.mark.parametrize("route", ["sim/echo", "openai/gpt-6-luna"])
def test_stops_while_the_file_is_written_leave_it_and_the_log_whole(
    route: str, server: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.at_once = True
    out, writing, go_on = tmp_path / "rows.jsonl", asyncio.Event(), asyncio.Event()
    on_a_thread = out_file._on_a_thread

    async def slowly(work: Any) -> None:
        writing.set()
        await go_on.wait()
        await on_a_thread(work)

    monkeypatch.setattr(out_file, "_on_a_thread", slowly)
    run = holynb.infer(["a", "b"], route, name="cut", out=str(out), batch=route.startswith("openai"))
    loop.submit(writing.wait()).result(60)
    run.cancel()
    run.cancel()
    loop.call(go_on.set)
    run.wait(60)
    assert len(rows(out)) == 2
    record = runlog.log().find("cut")
    assert record is not None and record.ended is not None
    assert Run(resume.resumed("cut")).start().wait(60).summary().ok == 2, "its lease was given back"
