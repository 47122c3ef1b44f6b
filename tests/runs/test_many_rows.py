"""Runs of so many rows that what they hold lies in a spool: the same answers as those of few, for little memory a row."""

from __future__ import annotations

import time
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

import holynb
from holynb.events import Ended, Started
from holynb.journal import Journal
from holynb.outcome_rows import OutcomeRows
from holynb.run.pending_rows import Groups
from holynb.run.stored_requests import StoredRequests
from holynb.spool import BLOCK_BYTES, MANY, MEMORY_BYTES, Spool
from holynb.types import Outcome, Usage

N = MANY + 200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> holynb.Run:
    """A run of N rows, of which every tenth asks what the one before asks, and the last asks nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLYNB_HOME", str(tmp_path_factory.mktemp("home")))
        df = pd.DataFrame({"what": [f"row {i - (i % 10 == 9)}" for i in range(N - 1)] + [None]}, index=pd.RangeIndex(7, 7 + N))
        return holynb.infer("{{ what }}", "sim/echo", df=df, name="many").wait()


def test_many_rows_are_answered_as_few_are(many: holynb.Run) -> None:
    frame = many.frame()
    assert isinstance(many.requests, StoredRequests)
    assert isinstance(many.journal.rows, OutcomeRows)
    assert frame.index.equals(pd.RangeIndex(7, 7 + N))
    assert frame["text"][:-1].tolist() == [f"row {i - (i % 10 == 9)}" for i in range(N - 1)]
    assert frame["status"].iloc[-1] == "skipped"
    few = holynb.infer(["row 0"], "sim/echo", cache=False).wait().frame()
    assert frame.dtypes.equals(few.dtypes)
    for row in (0, 9, N - 1):
        request = many.requests[row]
        assert many.requests.key(row, "u") == (None if request is None else request.key("u"))
    followers = (N - 1) // 10
    assert frame["attempts"].sum() == N - 1 - followers, "what is asked twice is sent once"
    assert frame["cached"].sum() == followers
    summary = many.summary()
    assert (summary.n, summary.ok, summary.skipped, summary.running) == (N, N - 1, 1, 0)


def test_each_row_ends_once_in_the_journal(many: holynb.Run) -> None:
    events = many.journal.events()
    ends = [e.row for e in events if isinstance(e, Ended)]
    assert sorted(ends) == list(range(N))
    assert many.journal.events_since(0)[0] == list(events)
    assert [type(e) for e in many.journal.events_of(0)] == [Started, Ended]


def test_equal_rows_are_grouped_in_order() -> None:
    groups, keys = Groups(6), {i: bytes([i % 2]) * 32 for i in range(6)}
    for row in range(6):
        groups.add(row, keys[row] if row != 4 else None, keys)
    assert list(groups.closed()) == [[0, 2], [1, 3, 5], [4]]


def test_a_spool_gives_back_what_was_put_there_before_and_after_it_has_a_file(tmp_path: Path) -> None:
    (folder := tmp_path / "spool").mkdir()
    spool = Spool(folder)
    records = [b"", b"x" * (BLOCK_BYTES + 1), *(bytes([i % 256]) * (i % 5_000) for i in range(MEMORY_BYTES // 2_000 + 100))]
    places = [spool.put(record) for record in records]
    assert [spool.get(place) for place in places] == records
    assert spool.get(places[1]) == records[1]
    assert not list(folder.iterdir()), "a file with a name would stay after a kill"


def test_a_disk_that_takes_nothing_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    spool = Spool(tmp_path)
    places = [spool.put(bytes([i % 256]) * 1_000) for i in range(3 * MEMORY_BYTES // 1_000)]
    assert all(spool.get(place) == bytes([i % 256]) * 1_000 for i, place in enumerate(places))


def test_an_outcome_comes_back_as_it_was() -> None:
    rows = OutcomeRows(3, Spool())
    whole = Outcome(
        "ok", "a\ud800b", route="a/b", attempts=2, usage=Usage(1, 2, device_s=0.5), cost=Decimal("0.10"), latency_s=1.5, cached=True
    )
    rows[1] = whole
    assert list(rows) == [None, whole, None]
    assert rows.fill(Outcome("cancelled")) == 2
    assert rows[0] == rows[2] == Outcome("cancelled")


def test_the_journal_of_a_large_run_takes_little_memory_a_row() -> None:
    n, text = 10_000, "an answer of some words, as a model gives it " * 4
    tracemalloc.start()
    try:
        journal = Journal(n)
        for row in range(n):
            journal.append(Started(row, 1, "a/b", 1000.0 + row))
            journal.append(Ended(row, Outcome("ok", text + str(row), route="a/b", attempts=1), 1000.0 + row))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 5_000_000, f"{held / n:.0f} bytes a row; as objects they were more than a thousand"
    assert journal.rows[n - 1] == Outcome("ok", f"{text}{n - 1}", route="a/b", attempts=1)


def test_a_large_run_that_was_stopped_sends_the_rest_alone() -> None:
    prompts = [f"stop {i}" for i in range(MANY)]
    first = holynb.infer(prompts, "sim/echo", name="stopped")
    until = time.monotonic() + 60
    while first.journal.ended < MANY - 1_000 and time.monotonic() < until:
        time.sleep(0.01)
    first.cancel()
    stopped = first.wait().summary()
    assert stopped.ok + stopped.cancelled == MANY
    again = holynb.infer(prompts, "sim/echo", name="stopped").wait()
    assert again.frame()["text"].tolist() == prompts
    assert again.frame()["attempts"].sum() == MANY - stopped.ok
