"""What an interrupted cell says: how to go on, so that its variable holds the result."""

from __future__ import annotations

import pytest

from holynb import infer
from holynb.ui.cell.pending import Work


@pytest.mark.parametrize(("name", "end"), [("done", "the rest and fills done, and so does the cell, run again."), (None, "the rest.")])
def test_what_sends_the_rest_fills_the_variable(name: str | None, end: str) -> None:
    run = infer(["a"], "sim/echo", name="one").wait(20)
    assert f". %infer resume one sends {end}" in Work(run, None, name).interrupted()  # type: ignore[arg-type]
