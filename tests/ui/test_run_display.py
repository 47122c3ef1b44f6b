"""A run as the value of a cell, in the background, drawn, and found again from its frame: in a real kernel whose front end shows widgets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from ui.kernels import Kernel

import holynb

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client and its sockets


@pytest.fixture
def here(watched: Kernel) -> Kernel:
    return watched


def displayed(here: Kernel, sent: str, seconds: float = 20) -> list[dict[str, str]]:
    """What is displayed, and what it is replaced by after its cell has ended."""
    bundles: list[dict[str, str]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (bundles and "ok" in bundles[-1].get("text/plain", "")):
        message = here.client.get_iopub_msg(timeout=seconds)
        of_ours = message["parent_header"].get("msg_id") == sent  # a table of a cell before may still be put in its place
        if of_ours and message["msg_type"] in ("display_data", "update_display_data", "execute_result"):
            bundles.append(message["content"]["data"])
    return bundles


@pytest.mark.parametrize(
    "code",
    [
        "holynb.infer(['one', 'two'], 'sim/stream', max_tokens=3, cache=False)",
        "run = holynb.infer(['one', 'two'], 'sim/stream', max_tokens=3, cache=False)\nrun",
        "%%infer sim/stream --bg -l --max-tokens 3 --no-cache\none\ntwo",
        "%%infer kept << sim/stream --bg -l --max-tokens 3 --no-cache\none\ntwo",
    ],
)
def test_a_run_is_live_and_then_what_stays(here: Kernel, code: str) -> None:
    here("holynb.infer('warm', 'sim/echo').wait()")
    shown = displayed(here, here.start(code))
    assert WIDGET in shown[0]
    assert "2 rows" in shown[-1]["text/html"]
    assert WIDGET not in shown[-1]


def test_a_run_that_the_log_answers_opens_no_live_view(here: Kernel) -> None:
    again = "holynb.infer(['one', 'two'], 'sim/echo', system='again')"
    here(f"{again}.wait()")
    shown = displayed(here, here.start(again))
    assert len(shown) == 1, "nothing is put in its place"
    assert WIDGET not in shown[0]
    assert "2 cached" in shown[0]["text/html"]


def test_a_run_that_is_done_is_its_final_output_and_its_plot_draws(here: Kernel) -> None:
    reply = here("await holynb.infer(['one', 'two', 'three'], 'sim/echo', cache=False)")
    assert "3 rows" in reply.shown[0]["text/html"]
    (drawn,) = here("holynb.last.plot()").shown
    assert len(drawn[PLOTLY]["data"]) > 1
    assert "data:image/svg+xml" in drawn["text/html"]
    assert drawn["text/plain"].startswith("<charts of a holynb run: cost, latency")


def test_a_frame_finds_its_run(here: Kernel) -> None:
    here("%%infer first << sim/echo -l\nalpha\nbeta")
    here("%%infer second << sim/echo -l\ngamma\ndelta")
    ids = here("print(first.attrs['holynb']['run'], second.attrs['holynb']['run'])").text.split()
    assert ids[0] != ids[1]
    for name, run in zip(("first", "second"), ids, strict=True):
        assert f"Run {run}: 2 of 2 rows" in here(f"%infer show {name}").shown[0]["text/plain"]


def test_where_no_front_end_can_follow_one_line_says_what_can(capsys: pytest.CaptureFixture[str]) -> None:
    run = holynb.infer(["one", "two"], "sim/stream", max_tokens=5, name="behind")
    run._ipython_display_()
    assert capsys.readouterr().out.strip().endswith("of 2 rows. %infer show behind · %infer stop behind · %infer resume behind")
    run.wait(20)._ipython_display_()
    assert "2 rows" in capsys.readouterr().out


def test_where_a_frame_comes_from_goes_along(tmp_path: Path) -> None:
    run = holynb.infer(["one", "two"], "sim/echo", name="origin").wait(20)
    frame = run.frame()
    origin = frame.attrs["holynb"]
    assert json.loads(json.dumps(origin)) == origin
    assert (origin["run"], origin["name"], origin["route"]) == (run.id, "origin", "sim/echo")
    assert isinstance(origin["cost"], float)
    frame.to_parquet(tmp_path / "x.parquet")
    assert pd.read_parquet(tmp_path / "x.parquet").attrs["holynb"] == origin
    assert pd.concat([frame, frame]).attrs["holynb"] == origin
    assert len(frame.merge(frame, on="text")) == 2
    assert len(pd.concat([frame, holynb.infer(["three"], "sim/echo").wait(20).frame()])) == 3, "of two runs it is of neither"
    rows = pd.DataFrame({"x": ["one", "two"]})
    assert holynb.infer("{{ x }}", "sim/echo", df=rows, into="said").wait(20).frame().attrs["holynb"]["route"] == "sim/echo"
    assert rows.attrs == {}
