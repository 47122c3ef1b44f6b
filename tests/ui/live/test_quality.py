"""The figures of --label and --judge while a run goes on: those of its end, without its intervals, from each row as it ends."""

from __future__ import annotations

import time

import pandas as pd

import holynb
from holynb.events import Ended
from holynb.types import Outcome
from holynb.ui.live.feed import Feed
from holynb.ui.live.measure import Measure
from holynb.ui.live.quality import QualitySoFar
from holynb.ui.live.runinfo import RunInfo
from holynb.ui.live.source import RunSource
from holynb.ui.output import quality, report


def test_what_is_folded_row_by_row_is_what_the_end_says() -> None:
    df = pd.DataFrame({"t": ["a", "b", "a", "c", "b", "a"], "y": ["a", "b", "b", "a", None, "A."]})
    run = holynb.infer("{{ t }}", "sim/echo", df=df, label="y", judge="sim/json").wait(30)
    feed = Feed(RunSource(run).info)
    assert feed.head(0.0)["quality"] == "", "before a row has ended, nothing is said"
    feed.fold(run.journal.events_since(0)[0], {}, 1.0)
    end = report.of(run).quality
    line = feed.head(1.0, "done")["quality"]
    assert line.split("\n")[0] == quality.labelled(end.labelled[0], intervals=False)
    assert line.startswith("accuracy 60.0 % (23.1 to 88.2) of 5 · 1 without a label\nscore ")
    (classes, matrix) = feed.snapshot(feed.head(1.0), {}, whole=True)["quality"] or ()  # type: ignore[typeddict-item]
    assert classes["rows"][0] == ["a", "0.67", "0.67", "0.67", "3", "3"]
    assert (matrix["head"], matrix["rows"]) == (["", "a", "b", "no label"], [["a", "2", "0", "1"], ["b", "1", "1", "0"]])
    assert feed.delta(feed.head(1.0))["quality"] is None, "nothing has changed since"


def test_each_route_has_its_own_and_failed_rows_are_apart() -> None:
    from holynb.run.labels import Labels

    labels = Labels("y", ["a", "b"], each=2)
    fold = QualitySoFar(Measure([("x/1", 0), ("x/2", 0)], labels))
    for row, outcome in enumerate([Outcome("ok", "A"), Outcome("error"), Outcome("ok", "<b>b"), Outcome("ok", "b")]):
        fold.fold(Ended(row, outcome, time.time()))
    assert fold.line() == (
        "x/1: accuracy 50.0 % (9.5 to 90.5) of 2\nx/2: accuracy 100 % (20.7 to 100.0) of 1 · 1 failed: 50.0 % with them as wrong"
    )
    assert [t["title"].partition(",")[0] for t in fold.tables() or ()] == ["x/1", "x/1", "x/2", "x/2"]


def test_a_run_that_nobody_measures_has_no_line() -> None:
    feed = Feed(RunInfo(["p"]))
    feed.fold([Ended(0, Outcome("ok", "x"), time.time())], {}, 1.0)
    assert feed.head(1.0)["quality"] == ""
    assert feed.snapshot(feed.head(1.0), {}, whole=True)["quality"] is None  # type: ignore[typeddict-item]
