"""Money in a real kernel with a front end that shows widgets: figures of plotly, one place for a bench's output, a question that is answered."""

from __future__ import annotations

import time

import pytest
from ui.kernels import DEADLINE, Kernel

PLOTLY = "application/vnd.plotly.v1+json"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client and its sockets


@pytest.fixture
def here(watched: Kernel) -> Kernel:
    return watched


def test_a_bench_leaves_one_table_with_its_bars(here: Kernel) -> None:
    reply = here("%infer bench sim/echo,sim/stream -n 3 --max-tokens 12")
    assert reply.content["status"] == "ok"
    (table,) = reply.shown
    assert "first token p50" in table["text/html"]
    assert PLOTLY not in table
    assert "<script" not in table["text/html"]
    assert any("route 2 of 2" in c["data"]["text/plain"] for c in reply.of("display_data", "update_display_data"))
    assert here.value("type(_).__name__, _.shape[0]") == "('DataFrame', 2)"


def test_roi_leaves_a_table_and_a_figure(here: Kernel) -> None:
    reply = here("%infer roi --own 4xA100-80GB --per-hour 2.5")
    table, figure = reply.shown
    assert "$800 to $1,600" in table["text/html"]
    assert len(figure[PLOTLY]["data"]) == 5
    assert figure[PLOTLY]["layout"]["xaxis"]["type"] == "log"


@pytest.mark.parametrize(("answer", "rows"), [("y", "1"), ("n", "0")])
def test_confirm_asks_the_person_at_the_page(here: Kernel, answer: str, rows: str) -> None:
    assert here("globals().pop('r', None)").content["status"] == "ok"
    sent = here.start("%%infer r << sim/echo --no-cache --confirm 0.000001\nhello there")
    request = here.client.get_stdin_msg(timeout=DEADLINE)
    assert "1 row on sim/echo may cost $" in request["content"]["prompt"]
    here.client.input(answer)
    reply = here.finish(sent)
    assert reply.content["status"] == ("ok" if rows == "1" else "error")
    assert here.value("len(r) if 'r' in globals() else 0") == rows


@pytest.mark.parametrize(
    "cell",
    ["%%infer r << sim/echo --no-cache --confirm 0.000001\nhello there", "%%time\n%%infer sim/echo --no-cache --confirm 0.000001\nhello"],
)
def test_an_interrupt_ends_the_question_at_once(here: Kernel, cell: str) -> None:
    runs = here("%infer runs")
    sent = here.start(cell)
    here.client.get_stdin_msg(timeout=DEADLINE)
    time.sleep(0.3)  # until the kernel waits for the answer
    here.manager.interrupt_kernel()
    reply = here.finish(sent)
    assert reply.seconds < 20, "a question waits for minutes"
    assert "Interrupted: nothing was sent. A higher --confirm says yes beforehand" in reply.content["evalue"]
    assert (after := here("%infer runs")).content["status"] == "ok"
    assert (after.text, after.shown) == (runs.text, runs.shown)
    assert here.value("1 + 1") == "2"


def test_a_question_that_nobody_answers_ends_and_names_the_flag(here: Kernel) -> None:
    here("import holynb.ui.cell.question as q; waits = q.yes_or_no.__defaults__; q.yes_or_no.__defaults__ = (0.5,)")
    sent = here.start("%%infer r << sim/echo --no-cache --confirm 0.000001\nhello there")
    here.client.get_stdin_msg(timeout=DEADLINE)
    reply = here.finish(sent)
    here("q.yes_or_no.__defaults__ = waits")
    assert "No answer came within 0.5 s: nothing was sent. A higher --confirm" in reply.content["evalue"]
    assert here.value("1 + 1") == "2"


def test_a_missing_key_is_never_asked_for_in_a_cell(here: Kernel) -> None:
    """A Run All of three cells goes on to its end, and says what asks for the key."""
    sent = [here.start(code) for code in ("%%infer openai/gpt-6-luna\nhello", "2", "3")]
    first, *rest = [here.finish(cell) for cell in sent]
    assert "run %infer key openai" in first.content["evalue"]
    assert [r.content["status"] for r in rest] == ["ok", "ok"]
