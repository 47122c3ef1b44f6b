"""A name that is used again for other rows says what is paid again, and what becomes of the rows that it had."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import holynb
from holynb.events import Noted
from holynb.run import pending_rows
from holynb.ui.output import report

DEADLINE = 30.0


def said(what: Any, *rows: str, **options: Any) -> str:
    """What a run of the name says of the run that had it."""
    run = holynb.infer(what, "sim/echo", df=pd.DataFrame({"text": rows}), name="labels", **options).wait(DEADLINE)
    return "\n".join(e.text for e in run.journal.events() if isinstance(e, Noted) and "before" in e.text)


def test_another_frame_under_the_name_of_a_run_that_ended() -> None:
    assert said("{{ text }}", "a", "b", "c") == ""
    assert said("{{ text }}", "x", "b") == (
        "labels had 3 rows before, 2 with another prompt, model or setting, and is now about this cell's rows. Rows are matched by what "
        "they ask, wherever they stand: 1 row of 2 was answered before; 1 is new or was not. Its answers of before stay in the run log and "
        "asking for them again costs nothing."
    )
    run = holynb.infer("{{ text }}", "sim/echo", df=pd.DataFrame({"text": ["a", "b", "c"]}), name="labels").wait(DEADLINE)
    assert run.frame()["attempts"].tolist() == [0, 0, 0], "as it was said"


def test_the_output_that_stays_says_it() -> None:
    said("{{ text }}", "a", "b")
    run = holynb.infer("{{ text }}", "sim/echo", df=pd.DataFrame({"text": ["x"]}), name="labels").wait(DEADLINE)
    assert [note for note in report.of(run).notes if note.startswith("labels had 2 rows before, 2 with another prompt")]


def test_another_prompt_under_the_name_sends_every_row() -> None:
    said("{{ text }}", "a", "b")
    assert "2 with another prompt" in said("again: {{ text }}", "a", "b")
    assert "0 rows of 2 were answered before; 2 are new or were not." in said("once more: {{ text }}", "a", "b")


def test_rows_in_another_order_are_the_same_rows() -> None:
    said("{{ text }}", "a", "b", "c")
    assert said("{{ text }}", "c", "a", "b") == ""


def test_without_the_cache_a_row_is_matched_at_its_place() -> None:
    said("{{ text }}", "a", "b", cache=False)
    text = said("{{ text }}", "b", "a", cache=False)
    assert "Rows are matched by what they ask, at their place: 0 rows of 2" in text
    assert text.endswith("stay in the run log.")


def test_of_many_rows_the_same_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.run.recorder.MANY", 1)
    monkeypatch.setattr(pending_rows, "WINDOW", 2)
    said("{{ text }}", "a", "b", "c")
    assert said("{{ text }}", "c", "a", "b") == ""
    assert "3 with another prompt" in said("again: {{ text }}", "a", "b", "c")
