"""What an interrupted cell says: how to go on, so that its variable holds the result."""

from __future__ import annotations

import time

import pytest

from holynb import infer
from holynb.run import session
from holynb.ui.cell.pending import Work
from holynb.ui.commands import active


@pytest.mark.parametrize(("name", "end"), [("done", "the rest and fills done, and so does the cell, run again."), (None, "the rest.")])
def test_what_sends_the_rest_fills_the_variable(name: str | None, end: str) -> None:
    run = infer(["a"], "sim/echo", name="one").wait(20)
    assert f". %infer resume one sends {end}" in Work(run, None, name).interrupted()  # type: ignore[arg-type]


def test_stop_says_how_to_go_on_as_an_interrupt_does_and_status_still_knows_it_the_next_day() -> None:
    run = infer(["a", "b"], "sim/stream", name="stopme")
    end = time.monotonic() + 20
    while not run.journal.events() and time.monotonic() < end:
        time.sleep(0.01)
    run.cancel()
    run.cancel()
    run.wait(20)
    work = Work(run, None, None)  # type: ignore[arg-type]
    assert work.stopped() == work.interrupted().replace("Interrupted: ", "Stopped: ")
    assert work.stopped().endswith(" rows are answered and kept in holynb.last. %infer resume stopme sends the rest.")
    session._session.clear()
    assert active.lines() == ["run stopme on sim/stream ended early, just now: 0 of 2 rows answered. %infer resume stopme sends the rest."]
    assert not Work(infer(["a"], "sim/echo", name="whole").wait(20), None).stopped()  # type: ignore[arg-type]
