"""What an interrupted cell says: how to go on, so that its variable holds the result."""

from __future__ import annotations

import pytest

from holynb import infer
from holynb.ui.cell.pending import Work


@pytest.mark.parametrize(("name", "start"), [("done", "done = %infer resume one sends"), (None, "%infer resume one sends")])
def test_what_sends_the_rest_fills_the_variable(name: str | None, start: str) -> None:
    run = infer(["a"], "sim/echo", name="one").wait(20)
    assert f". {start} the rest" in Work(run, None, name).interrupted()  # type: ignore[arg-type]
