"""The live view stays cheap: bytes, kernel time, an hour in the memory of the page. `figures.py` measures times too, and plotly."""

from __future__ import annotations

from typing import Any

import pytest
from browser.figures import HOUR, JOB, hour, once

pytestmark = pytest.mark.browser


def test_opening_kernel_time_and_frames(notebook: Any) -> None:
    page = notebook(JOB, "await measured(nobody)", "await measured(ours)")
    nobody, ours = once(page, "nobody", 2), once(page, "ours", 3)
    print(f"\n{nobody}\n{ours}")
    assert ours["errors"] == []
    assert 40 < ours["opening_kB"] <= 90, "the view itself takes 60"
    assert ours["kernel_share"] - nobody["kernel_share"] <= 0.10, "twice of what it takes on a quiet machine"
    assert ours["frames"] > 30, "the page kept drawing"


@pytest.mark.parametrize("seconds", [2100, pytest.param(3600, marks=pytest.mark.slow)])
def test_an_hour_takes_no_more_memory_of_the_page_than_ten_minutes(notebook: Any, seconds: int) -> None:
    """A row and a tick a second: of what stays at each, half an hour has enough to be seen, and is asked for half as much."""
    page = notebook(JOB + HOUR, "await hour(600)", f"await hour({seconds})", fresh=True)
    figures = hour(page, seconds)
    print(f"\n{figures}")
    share = (seconds - 600) / 3000
    assert figures["page_later"] - figures["page_ten_minutes"] < 8 * share, (
        "3,000 more rows in the table are a few MiB; charts and messages leave nothing"
    )
    assert figures["kernel_later"] - figures["kernel_ten_minutes"] < 12 * share, "the outcomes of 3,000 rows, and nothing beside them"
    assert page.there(".hn .hn-row") < 40
