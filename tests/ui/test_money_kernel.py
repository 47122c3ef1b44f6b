"""Money in a real kernel with a front end that shows widgets: figures of plotly, one place for a bench's output, a question that is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ui.kernels import DEADLINE, Kernel, kernel

PLOTLY = "application/vnd.plotly.v1+json"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client and its sockets


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setenv("VSCODE_PID", "1")
    with kernel(home) as loaded_kernel:
        assert loaded_kernel("%load_ext holynb").content["status"] == "ok"
        yield loaded_kernel


def test_a_bench_leaves_a_table_and_a_figure_and_no_second_table(here: Kernel) -> None:
    reply = here("%infer bench sim/echo,sim/stream -n 3 --max-tokens 12")
    assert reply.content["status"] == "ok"
    table, figure = reply.shown
    assert "first token p50" in table["text/html"]
    assert "image/svg+xml" not in table["text/html"]
    assert [t["type"] for t in figure[PLOTLY]["data"]] == ["bar"] * 6
    assert "data:image/svg+xml" in figure["text/html"], "for pages that draw no plotly"
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
    sent = here.start("%%infer r << sim/echo --confirm 0.000001\nhello there")
    request = here.client.get_stdin_msg(timeout=DEADLINE)
    assert "1 row on sim/echo may cost $" in request["content"]["prompt"]
    here.client.input(answer)
    reply = here.finish(sent)
    assert reply.content["status"] == ("ok" if rows == "1" else "error")
    assert here.value("len(r) if 'r' in globals() else 0") == rows


@pytest.mark.parametrize(
    "cell", ["%%infer r << sim/echo --confirm 0.000001\nhello there", "%%time\n%%infer sim/echo --confirm 0.000001\nhello"]
)
def test_an_interrupt_ends_the_question_at_once(here: Kernel, cell: str) -> None:
    sent = here.start(cell)
    here.client.get_stdin_msg(timeout=DEADLINE)
    time.sleep(0.3)  # until the kernel waits for the answer
    interrupted = time.monotonic()
    here.manager.interrupt_kernel()
    reply = here.finish(sent, interrupted)
    assert reply.seconds < 2
    assert "Interrupted: nothing was sent. A higher --confirm says yes beforehand" in reply.content["evalue"]
    assert here("%infer runs").text.startswith("There is no run yet")
    assert here.value("1 + 1") == "2"


def test_a_question_that_nobody_answers_ends_and_names_the_flag(here: Kernel) -> None:
    here("import holynb.ui.cell.question as q; q.yes_or_no.__defaults__ = (0.5,)")
    sent = here.start("%%infer r << sim/echo --confirm 0.000001\nhello there")
    here.client.get_stdin_msg(timeout=DEADLINE)
    reply = here.finish(sent)
    assert "No answer came within 0.5 s: nothing was sent. A higher --confirm" in reply.content["evalue"]
    assert here.value("1 + 1") == "2"


def test_a_missing_key_is_never_asked_for_in_a_cell(here: Kernel) -> None:
    """A Run All of three cells goes on to its end, and says what asks for the key."""
    started = time.monotonic()
    sent = [here.start(code) for code in ("%%infer openai/gpt-6-luna\nhello", "2", "3")]
    first, *rest = [here.finish(cell) for cell in sent]
    assert time.monotonic() - started < 5
    assert "run %infer key openai" in first.content["evalue"]
    assert [r.content["status"] for r in rest] == ["ok", "ok"]
