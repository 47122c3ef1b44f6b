"""What stays of a row that is stopped in the middle of its answer holds nothing of a key that its server tells back piece by piece."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from servers.exact import Exact, chunk, sse, stream_head
from servers.golden import openai_chunk

from holynb import loop, runlog
from holynb.config import Options
from holynb.errors import BadOption
from holynb.run import Run, infer, plan, resume, session
from holynb.ui.output import report, static

DEADLINE = 10
KEY = "sk-Zq7RwX2vK9mTb4YhNc8LpDs3GfJe6Ua1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    session._session.clear()
    yield tmp_path / "home"
    loop.close()
    runlog.close()


def told(text: str) -> list[str]:
    return [KEY[i : i + 5] for i in range(len(KEY) - 4) if KEY[i : i + 5] in text]


def tail(run: Run) -> str:
    return "".join(text for _, text in run.journal.text_starts(1000).values())


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_a_key_in_pieces_stays_nowhere(size: int, home: Path):
    words = f"Here: {KEY}{KEY[:20]}"
    # With a pause after each, so that none is read together with the next.
    pieces = [step for i in range(0, len(words), size) for step in (chunk(sse(openai_chunk(words[i : i + size]))), 0.005)]
    with Exact([stream_head(), *pieces, float(DEADLINE)]) as server:
        run = infer("tell", "openai/m", stream=True, api_base=f"{server.base}/v1")
        end = time.monotonic() + DEADLINE
        while not tail(run).startswith("Here: sk-***") and time.monotonic() < end:
            time.sleep(0.01)
        shown = tail(run)
        run.cancel()
        run.cancel()
        run.wait(DEADLINE)
    row = run.frame().iloc[0]
    assert row["status"] == "cancelled"
    assert row["text"].startswith("Here: sk-***")
    page = static.bundle(report.of(run))
    runlog.close()
    with closing(sqlite3.connect(home / "runs.sqlite")) as db:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        kept = repr([db.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables])
    assert "Here: sk-***" in kept
    for text in (shown, row["text"], repr(page), kept, repr(run.journal.events_since(0))):
        assert told(text) == []


def test_another_cell_of_its_name_does_not_take_the_place_of_what_a_stopped_run_lacks():
    asked = [f"row {i}" for i in range(40)]
    run = infer(asked, "sim/stream", name="stopme", concurrency=4, max_tokens=20)
    end = time.monotonic() + DEADLINE
    while run.journal.ended < 3 and time.monotonic() < end:
        time.sleep(0.01)
    run.cancel()
    run.wait(DEADLINE)
    answered = run.summary().ok
    assert 3 <= answered < 40
    unfinished = f"stopme is unfinished, with {answered} of 40 rows answered, and {40 - answered} of the others are not in this cell"
    with pytest.raises(BadOption, match=unfinished):
        infer(["something", "else"], "sim/echo", name="stopme")
    with pytest.raises(BadOption, match=unfinished):
        infer(["something", "else"], "sim/echo", resume="stopme")
    with pytest.raises(BadOption, match="or use another --name, or --refresh to give it up"):
        infer(asked[:2], "sim/stream", name="stopme", max_tokens=20)
    grown = resume.continued(plan.make([*asked[::-1], "one more"], "sim/stream", Options(name="stopme")))
    assert grown.earlier.run == run.id, "sorted otherwise, with another --max-tokens and a row more they are the same rows"
    assert infer(["something", "else"], "sim/echo", name="stopme", refresh=True).wait(DEADLINE).id == run.id
    assert infer(["third"], "sim/echo", name="stopme").wait(DEADLINE).summary().ok == 1, "what is done may be followed"
