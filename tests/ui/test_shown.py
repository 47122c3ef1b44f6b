"""`%infer show` in a kernel whose front end shows widgets: the live table, what a saved notebook keeps of it, and the frame that it writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from ui.kernels import Kernel

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client and its sockets


@pytest.fixture(scope="module")
def here(watched: Kernel) -> Iterator[Kernel]:
    assert watched("first, holynb.ui.live.standin.FIRST_S = holynb.ui.live.standin.FIRST_S, 0.05").content["status"] == "ok"
    assert watched("%%infer kept << sim/echo -l --name mine --no-cache\n=one\ntwo\nthree").content["status"] == "ok"
    yield watched
    watched("holynb.ui.live.standin.FIRST_S = first")


def displayed(here: Kernel, sent: str, n: int, seconds: float = 20) -> list[dict[str, Any]]:
    """The next `n` bundles that are displayed or put in another's place, also after the cell has ended."""
    bundles: list[dict[str, Any]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(bundles) < n:
        message = here.client.get_iopub_msg(timeout=seconds)
        of_ours = message["parent_header"].get("msg_id") == sent  # a table of a cell before may still be put in its place
        if of_ours and message["msg_type"] in ("display_data", "update_display_data", "execute_result"):
            bundles.append(message["content"]["data"])
    return bundles


def test_a_run_comes_back_as_a_table_and_a_saved_notebook_keeps_what_stays(here: Kernel) -> None:
    view, empty, stays = displayed(here, here.start("%infer show mine"), 3)
    assert WIDGET in view
    assert "%infer show mine shows it." in view["text/plain"]
    assert empty["text/plain"] == ""
    assert "3 of 3 rows" in stays["text/plain"] or "3 rows" in stays["text/plain"]
    assert all(text in stays["text/html"] for text in ("=one", "two", "three", "holynb-standin-"))
    assert "<script" not in stays["text/html"]
    assert WIDGET not in stays


@pytest.mark.parametrize("line", ["%infer show mine --show charts", "%infer show single"])
def test_charts_alone_and_a_single_answer_are_what_stays(here: Kernel, line: str) -> None:
    here("%%infer one << sim/echo --name single --no-cache\none answer")
    shown = displayed(here, here.start(line), 1)
    assert WIDGET not in shown[0]


def test_a_run_of_the_log_gives_the_same_frame_and_its_messages(here: Kernel) -> None:
    here("%%infer other << sim/echo -l --name typed --no-cache --system 'be brief' --schema {'a':'string'}\n=one\ntwo")
    code = """
from holynb.run import session
from holynb.ui.live.detail import detail
from holynb.ui.live.replay import Logged
from holynb.ui.output import report
run = session.find('mine'); session._session.remove(run)
logged = Logged(report.load('mine'))
import pandas as pd
pd.testing.assert_frame_equal(logged.frame(), kept)
print(logged.state, logged.frame().attrs == kept.attrs, [m.content for m in logged.messages(0)], logged.info.label(1), detail(logged, 0)["attempts"])
session._session.append(run)
"""
    assert here(code).text.strip() == "done True ['=one'] 1 []"


def test_older_tables_are_closed(here: Kernel) -> None:
    code = "from holynb.ui.cell import shown\nshown.MAX_OPEN = 2"
    here(code)
    for _ in range(3):
        displayed(here, here.start("%infer show mine"), 3)
    assert here("print(len(shown._open), [v.widget.comm is not None for v in shown._open])").text.strip() == "2 [True, True]"


def test_a_file_is_written_beside_the_notebook(here: Kernel, tmp_path: Any) -> None:
    here(f"import os; os.chdir({str(tmp_path)!r})")
    displayed(here, here.start("%infer show mine"), 3)
    here("shown._open[-1]._on_message(None, {'cmd': 'export', 'what': 'csv', 'safe': True}, [])")
    assert pd.read_csv(tmp_path / "holynb-mine.csv", index_col=0)["text"].tolist() == ["'=one", "two", "three"]
