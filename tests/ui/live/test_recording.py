"""A recorded run plays as it went, and what is not a recording says so in one line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import holynb
from holynb.errors import BadOption
from holynb.events import Ended, Failed, Gauge, Noted
from holynb.ui.live import recording
from holynb.ui.live.feed import Feed
from holynb.ui.live.recording import RecordedStep, Recording
from holynb.ui.live.replay import Replay

pytestmark = pytest.mark.usefixtures("no_project", "ended")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def written(path: Path, *lines: Any, version: int = 1, n: int = 2) -> str:
    head = {"holynb": "recording", "version": version, "asked": [[["user", f"p{i}"]] for i in range(n)]}
    path.write_text("\n".join(json.dumps(line) for line in (head, *lines)), encoding="utf-8")
    return str(path)


def test_a_run_is_recorded_as_it_goes_and_read_back_as_it_was(home: Path) -> None:
    run = holynb.infer(["하나 <b>", "two", "three"], "sim/flaky", stream=True, cache=False, p={"fault": "500", "latency": 0.05})
    recording.record(run, home / "a.jsonl.gz", pause=0.01)
    back = recording.read(str(home / "a.jsonl.gz"))
    assert [m[0].content for m in back.messages] == ["하나 <b>", "two", "three"]
    ended = {s.event.row: s.event.outcome for s in back.steps if isinstance(s.event, Ended)}
    assert ended == dict(enumerate(run.rows()))
    failed = [s.event for s in back.steps if isinstance(s.event, Failed)]
    assert [f.kind for f in failed] == ["server"] * 3
    assert {f.message for f in failed} == {"simulated 500: internal error"}


def test_pieces_of_answers_are_kept(home: Path) -> None:
    run = holynb.infer("one", "sim/stream", stream=True, cache=False, max_tokens=8)
    recording.record(run, home / "a.jsonl", pause=0.02)
    text = "".join(piece for s in recording.read(str(home / "a.jsonl")).steps for _, piece in s.pieces)
    assert run.rows()[0].text.startswith(text)
    assert len(text.split()) >= 4


def test_thoughts_are_kept(home: Path) -> None:
    path = home / "run.jsonl"
    run = holynb.infer("tea", "sim/stream", stream=True, max_tokens=8, p={"thoughts": 6})
    recording.record(run, path, pause=0.05)
    back = recording.read(str(path))
    thoughts = [t for s in back.steps for t in s.thoughts]
    assert "".join(text for _, text, _ in thoughts) == run.result()["reasoning"][0][: sum(len(t[1]) for t in thoughts)] != ""
    assert [n for *_, n in thoughts] == sorted(n for *_, n in thoughts)
    playing = Replay(back)
    playing.finish()
    assert playing.report().rows[0].reasoning == run.result()["reasoning"][0]  # type: ignore[union-attr]


def test_the_shipped_recording_is_of_a_run_where_much_goes_wrong() -> None:
    back = recording.read("flaky")
    kinds = {s.event.kind for s in back.steps if isinstance(s.event, Failed)}
    assert {"rate_limit", "server", "truncated", "content_filter"} <= kinds
    assert 10 < back.seconds < 60
    assert any(isinstance(s.event, Gauge) for s in back.steps)
    assert sum(isinstance(s.event, Ended) for s in back.steps) == len(back.messages)


@pytest.mark.parametrize(
    ("name", "rows", "noted"), [("gpus-dp2", 480, ["ran out of memory", "has room for as many"]), ("gpus-tp2", 120, [])]
)
def test_the_shipped_recordings_of_two_gpus(name: str, rows: int, noted: list[str]) -> None:
    back = recording.read(name)
    ends = [s.event for s in back.steps if isinstance(s.event, Ended)]
    assert len(ends) == len(back.messages) == rows
    assert all(e.outcome.status == "ok" for e in ends), "running out of memory cost no row"
    assert {s.event.device for s in back.steps if isinstance(s.event, Gauge)} == {"GPU 0", "GPU 1"}
    notes = " ".join(s.event.text for s in back.steps if isinstance(s.event, Noted))
    assert all(word in notes for word in noted)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["not json"], "not a recording"),
        ([{"some": "json"}], "first line does not say so"),
        ([["a list"]], "not a recording"),
        ([], "not a recording"),
    ],
)
def test_what_is_no_recording_says_so(tmp_path: Path, lines: Sequence[Any], says: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    with pytest.raises(BadOption, match=says):
        recording.read(str(path))


def test_damage_is_found_before_anything_plays(tmp_path: Path) -> None:
    end = {"t": 1, "e": "ended", "row": 0, "outcome": {"status": "ok"}}
    with pytest.raises(BadOption, match="speaks of row 7"):
        recording.read(written(tmp_path / "a.jsonl", {**end, "row": 7}))
    with pytest.raises(BadOption, match="ends twice"):
        recording.read(written(tmp_path / "b.jsonl", end, end))
    cut = tmp_path / "c.jsonl.gz"
    cut.write_bytes(gzip.compress(b"x" * 10_000)[:40])
    with pytest.raises(BadOption, match="damaged"):
        recording.read(str(cut))


def test_a_newer_format_asks_for_a_newer_holynb(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="pip install -U holynb"):
        recording.read(written(tmp_path / "a.jsonl", version=2))


def test_an_older_one_with_less_in_it_still_plays(tmp_path: Path) -> None:
    old = written(
        tmp_path / "a.jsonl",
        {"t": 0.5, "e": "started", "row": 0, "attempt": 1, "route": "sim/echo"},
        {"t": 0.6, "e": "weather"},
        {"t": 1, "e": "ended", "row": 0, "outcome": {"status": "ok", "text": "hi", "mood": "good"}},
    )
    back = recording.read(old)
    assert [type(s.event).__name__ for s in back.steps] == ["Started", "Ended"]
    assert back.title == "a run"


def test_a_name_that_is_nowhere_offers_what_ships() -> None:
    with pytest.raises(BadOption, match=r"Did you mean flaky\? Shipped with holynb: flaky, gpus-dp2, gpus-tp2"):
        recording.read("flakey")


# -- playing -----------------------------------------------------------------------------------------------------------
def recorded() -> Recording:
    return recording.read("flaky")


def test_it_plays_in_its_own_time_and_faster() -> None:
    for speed in (1.0, 20.0):
        clock = Clock()
        playing = Replay(recorded(), speed, clock)
        clock.now += 5.0 / speed
        playing.advance()
        due = [s for s in playing.recording.steps if s.t <= 5.0]
        assert len(playing.journal.events_since(0)[0]) == sum(s.event is not None for s in due)
        assert (playing.state, playing.elapsed) == ("running", pytest.approx(5.0))
        clock.now += 3600
        playing.advance()
        assert (playing.state, playing.elapsed) == ("done", playing.recording.seconds)


def test_a_silent_beginning_is_not_waited_for_and_it_is_said() -> None:
    """Two replicas read their first prompts for nine seconds: a viewer would take it for broken."""
    clock = Clock()
    playing = Replay(recording.read("gpus-dp2"), 1.0, clock)
    assert 7.0 < playing.elapsed < 9.2, "the clock is the recording's"
    assert playing.label.endswith(f", from {playing.elapsed:.1f} s on")
    assert len(playing.journal.events_since(0)[0]) == sum(s.t <= playing.elapsed for s in playing.recording.steps), (
        "what happened before has happened"
    )
    clock.now += 1.5
    playing.advance()
    assert playing.journal.partial_texts(), "words come within two seconds"
    playing.finish()
    first, short, back = playing.report().notes
    assert first == f"Recorded {playing.recording.recorded_on}: nothing was sent."
    assert ("ran out of memory" in short, "has room for as many" in back) == (True, True), (
        "who reads that it ran out reads that it came back"
    )
    assert Replay(recorded(), 1.0, clock).elapsed == 0.0


def test_the_view_of_a_recording_is_the_view_of_the_run() -> None:
    """Played in many small steps or in one: the same rows and counts."""
    clock = Clock()
    slow, fast = Replay(recorded(), 1.0, clock), Replay(recorded())
    feed, cursor = Feed(slow.info), 0
    while not slow.over:
        clock.now += 0.5
        slow.advance()
        events, cursor = slow.journal.events_since(cursor)
        feed.fold(events, slow.journal.text_starts(100), slow.elapsed)
    fast.finish()
    whole = Feed(fast.info)
    whole.fold(fast.journal.events_since(0)[0], {}, fast.elapsed)
    assert [feed.row(r) for r in range(feed.n)] == [whole.row(r) for r in range(feed.n)]
    assert feed.totals.summary(1.0) == whole.totals.summary(1.0)


def test_vectors_are_described_and_not_written(home: Path) -> None:
    run = holynb.infer(["one", "two"], "sim/echo", embed=True, dimensions=8, cache=False)
    recording.record(run, home / "a.jsonl", pause=0.02)
    assert "vector" not in (home / "a.jsonl").read_text("utf-8")
    ends = [s.event for s in recording.read(str(home / "a.jsonl")).steps if isinstance(s.event, Ended)]
    assert [(e.outcome.vector, e.outcome.text) for e in ends] == [(None, "8 dimensions, norm 1")] * 2
    assert all(len(o.vector) == 32 for o in run.rows()), "the run has them"


def test_failed_rows_of_a_recording_are_not_to_be_asked_again(home: Path) -> None:
    run = holynb.infer(["one", "two"], "sim/flaky", cache=False, retries=0, p={"fault": "500"})
    recording.record(run, home / "a.jsonl", pause=0.02)
    playing = Replay(recording.read(str(home / "a.jsonl")))
    playing.finish()
    assert run.summary().failures() == "2 of 2 failed: 2 server. %infer run --only failed"
    assert playing.report().summary.failures() == "2 of 2 failed: 2 server."


def test_stopped_it_stays_where_it_is_and_is_marked_as_recorded() -> None:
    clock = Clock()
    playing = Replay(recorded(), 1.0, clock)
    clock.now += 3
    playing.advance()
    playing.cancel()
    clock.now += 60
    playing.advance()
    assert (playing.state, playing.elapsed, playing.over) == ("stopped", 3.0, True)
    report = playing.report()
    assert report.notes[0].startswith("Recorded 20")
    assert report.summary.line().startswith("stopped")
    assert 0 < report.summary.ok < 100


def test_a_recording_of_nothing_ends_at_once() -> None:
    playing = Replay(Recording("t", "d", [], None, [], 0.0))
    playing.advance()
    assert playing.state == "done"
    assert RecordedStep(0.0).event is None


def test_the_word_says_what_it_takes() -> None:
    from holynb.ui.panel import commands

    magic: Any = SimpleNamespace(shell=None)
    for words, says in (
        [["--replay", "flaky", "x"], "--speed X"],
        [["--replay", "flaky", "--speed", "fast"], "above 0"],
        [["--replay=nope"], "no recording"],
    ):
        with pytest.raises(BadOption, match=says):
            commands.replay(magic, words)


def test_without_widgets_it_shows_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    from holynb.ui.panel import commands

    magic: Any = SimpleNamespace(shell=None)
    commands.replay(magic, ["--replay", "flaky"])
    out = capsys.readouterr().out
    assert "8 of 100 failed: 8 content_filter" in out
    assert "nothing was sent" in out
