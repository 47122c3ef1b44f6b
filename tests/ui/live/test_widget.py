"""The kernel's half of the live view: what is sent when, what a page may send, and the final output. The page's half: tests/browser."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from holynb.errors import BadRoute
from holynb.events import Ended, Failed, Started
from holynb.journal import Journal
from holynb.types import Message, Outcome, Usage
from holynb.ui.live import widget as lives
from holynb.ui.live.again import AGAIN
from holynb.ui.live.assets import DRAWING
from holynb.ui.live.detail import detail
from holynb.ui.live.runinfo import RunInfo
from holynb.ui.live.source import RunSource
from holynb.ui.live.widget import Live, LiveView

OK = Outcome(
    "ok", "fine", route="sim/echo", model="sim-echo", attempts=2, usage=Usage(3, 5), latency_s=0.5, ttft_s=0.1, finish_reason="stop"
)


class WrittenSource:
    """A source that a test writes."""

    label = ""
    name = "a-run"

    def __init__(self, n: int = 3) -> None:
        self.info = RunInfo([f"prompt {i}" for i in range(n)], title="a run")
        self.journal = Journal(n)
        self.elapsed = 1.0
        self.state = "running"
        self.cancelled = 0

    def messages(self, row: int) -> list[Message]:
        return [Message("system", "be brief"), Message("user", f"prompt {row}")]

    def cancel(self) -> None:
        self.cancelled += 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def view_of(source: Any, **more: Any) -> tuple[LiveView, list[Any]]:
    view, sent = LiveView(source, **more), []
    view.widget.send = sent.append
    return view, sent


def receive(view: LiveView, **content: Any) -> None:
    view._on_message(view.widget, content, [])


def test_the_first_picture_comes_with_the_widget() -> None:
    source = WrittenSource()
    source.journal.append(Ended(1, OK, 0.5))
    view, _ = view_of(source)
    assert view.widget.first["head"]["ended"] == 1
    assert view.widget.first["rows"] == [[1, "ok", False, "fine", "3", "5", "?", "0.50 s", 2, ""]]


def test_one_message_a_tick_and_only_what_changed() -> None:
    source = WrittenSource()
    view, sent = view_of(source)
    receive(view, cmd="ready", page="a", seq=1)
    source.journal.append(Started(0, 1, "sim/echo", 0.5))
    view.tick()
    view.tick()
    assert [m["kind"] for m in sent] == ["delta", "delta"]
    assert [len(m["rows"]) for m in sent] == [1, 0]
    assert [m["seq"] for m in sent] == [2, 3]
    assert json.dumps(sent)


def test_until_a_page_answers_it_is_told_everything() -> None:
    clock = Clock()
    view, sent = view_of(WrittenSource(), clock=clock)
    view.tick()
    clock.now = lives.OPENING_S + 1  # a kernel in which no click arrives: go on without an answer
    view.tick()
    assert [m["kind"] for m in sent] == ["snapshot", "delta"]


def test_a_page_that_missed_something_gets_a_snapshot_at_the_next_tick() -> None:
    view, sent = view_of(WrittenSource())
    receive(view, cmd="ready", page="a", seq=1)
    view.tick()
    receive(view, cmd="ready", page="b", seq=1)  # reloaded: it knows the first picture alone
    view.tick()
    assert [m["kind"] for m in sent] == ["delta", "snapshot"]
    assert view.pages == {"a", "b"}


def test_a_page_says_how_wide_it_is() -> None:
    view, _ = view_of(WrittenSource())
    assert view.width is None
    receive(view, cmd="ready", page="a", seq=1, width=560)
    receive(view, cmd="ready", page="a", seq=1, width="wide")
    receive(view, cmd="ready", page="a", seq=1, width=0)
    assert view.width == 560, "nonsense, and a view that is not shown, change nothing"


def test_stop_reaches_the_run_and_is_offered_only_where_a_click_arrives() -> None:
    source = WrittenSource()
    view, _ = view_of(source)
    receive(view, cmd="stop")
    assert source.cancelled == 1
    assert view.widget.first["view"]["can_stop"] is True
    assert view_of(source, clicks=False)[0].widget.first["view"]["can_stop"] is False
    source.state = "done"
    assert view_of(source)[0].widget.first["view"]["can_stop"] is False


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"cmd": "detail", "row": 99},
        {"cmd": "detail", "row": "1"},
        {"cmd": "ready"},
        {"cmd": "visible", "first": None},
        {"cmd": "format"},
    ],
)
def test_nonsense_from_a_page_does_nothing(content: dict[str, Any]) -> None:
    view, sent = view_of(WrittenSource())
    receive(view, **content)
    view._on_message(view.widget, "text", [])
    assert sent == []


def test_a_row_in_full_has_its_attempts_and_the_servers_words() -> None:
    source = WrittenSource()
    source.journal.append(Started(1, 1, "sim/echo", 0.5))
    source.journal.append(Failed(1, 1, "sim/echo", "server", "500: oh", 0.7, 0.3, raw="<html>\x1b[31m"))
    view, sent = view_of(source)
    receive(view, cmd="detail", row=1)
    (message,) = sent
    assert [tuple(part.values()) for part in message["parts"]] == [
        ("System", "be brief", ""),
        ("Prompt", "prompt 1", ""),
        ("The server's words, attempt 1", "<html>", "raw"),
    ]
    assert message["attempts"] == [
        {"at": "0.50 s", "text": "attempt 1 sent to sim/echo"},
        {"at": "0.70 s", "text": "attempt 1 failed: server: 500: oh; again in 0.30 s"},
    ]
    source.journal.append(Ended(1, OK, 1.0))
    full = detail(source, 1)
    assert full["facts"] == "ok · sim/echo · sim-echo · stop · 3 + 5 tokens · cost ? · 0.50 s · first token 0.10 s"
    assert {"title": "Answer", "text": "fine", "kind": ""} in full["parts"]


def test_an_answer_with_a_note_is_no_error() -> None:
    source = WrittenSource(2)
    source.journal.append(Ended(0, replace(OK, error="moved: azure was busy"), 1.0))
    source.journal.append(Ended(1, Outcome("error", error_type="timeout", error="too slow", attempts=1), 1.0))
    assert detail(source, 0)["parts"][-1] == {"title": "Note", "text": "moved: azure was busy", "kind": ""}
    assert detail(source, 1)["parts"][-1] == {"title": "Error", "text": "timeout: too slow", "kind": "failed"}


def test_what_a_row_thinks_stands_apart_and_how_much_is_said() -> None:
    source = WrittenSource(2)
    source.journal.append(Started(0, 1, "sim/echo", 0.1))
    source.journal.append_thoughts(0, "hm\x1b[31m", 412)
    source.journal.append_text(0, "Te")
    assert detail(source, 0)["parts"][-2:] == [
        {"title": "thinking … 412 tokens", "text": "hm", "kind": "thought"},
        {"title": "Answer so far", "text": "Te", "kind": ""},
    ]
    source.journal.append(Ended(0, replace(OK, usage=Usage(3, 700, tokens_reasoning=650), reasoning="hm so"), 1.0))
    full = detail(source, 0)
    assert full["parts"][-2] == {"title": "thought · 650 tokens", "text": "hm so", "kind": "thought"}
    assert "3 + 700 tokens · 650 of them thought" in full["facts"]


def test_an_answer_in_full_is_rendered_by_the_kernel_as_it_is_asked_for() -> None:
    source = WrittenSource(2)
    source.journal.append(Ended(0, replace(OK, text="# a\n<script>"), 1.0))
    view, sent = view_of(source)
    for more in ({}, {"format": "markdown"}, {"format": "code"}):
        receive(view, cmd="detail", row=0, **more)
    assert [m["format"] for m in sent] == ["text", "markdown", "code"]
    assert [("html" in p, p["title"]) for p in sent[0]["parts"]] == [(False, "System"), (False, "Prompt"), (False, "Answer")]
    assert "<h3" in sent[1]["parts"][-1]["html"]
    assert "<code># a\n&lt;script&gt;</code>" in sent[2]["parts"][-1]["html"]
    assert ["html" in p for p in sent[1]["parts"]] == [False, False, True], "what a person typed stays as it was typed"


def test_an_answer_that_grows_is_text() -> None:
    source = WrittenSource(1)
    source.info = replace(source.info, format="markdown")
    source.journal.append_text(0, "# a")
    assert detail(source, 0)["parts"][-1] == {"title": "Answer so far", "text": "# a", "kind": ""}
    source.journal.append(Ended(0, replace(OK, text="# a"), 1.0))
    assert "<h3" in detail(source, 0)["parts"][-1]["html"]


def test_a_megabyte_of_answer_is_cut_and_says_so() -> None:
    source = WrittenSource(1)
    source.journal.append(Ended(0, Outcome("ok", "x" * 1_000_000, attempts=1), 1.0))
    text = detail(source, 0)["parts"][-1]["text"]
    assert len(text) < 110_000
    assert text.endswith("900,000 more characters; the value holds them all.")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_runs_of_no_row_and_of_one(n: int) -> None:
    view, sent = view_of(WrittenSource(n))
    view.tick()
    view.finish()
    assert sent[-1]["head"]["n"] == n


# -- the page of a waiting cell ----------------------------------------------------------------------------------------
class Shown:
    """What reached the notebook's output, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundles: list[Any] = []
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, bundle: Any, **more: Any) -> Any:
        assert more in ({"raw": True, "display_id": True}, {"raw": True})
        self.bundles.append(bundle)
        return SimpleNamespace(update=lambda b, raw: self.bundles.append(b))


def a_run(show: str = "all") -> Any:
    options = SimpleNamespace(show=show, price_as=None, format="text", fallback=(), attach=())
    plan = SimpleNamespace(
        rows=SimpleNamespace(index=None), targets=SimpleNamespace(endpoints=[]), options=options, labels=None, judge=None
    )
    prompts = [SimpleNamespace(text="hi", messages=(Message("user", "hi"),))] * 2
    return SimpleNamespace(
        n=2,
        id="r",
        name=None,
        route="sim/echo",
        options=options,
        plan=plan,
        prompts=prompts,
        journal=Journal(2),
        started=0.0,
        elapsed=2.0,
        done=False,
        stopped=False,
    )


def test_the_view_is_replaced_by_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page, run = Shown(monkeypatch), Live(clicks=True), a_run()
    page.paint(run)
    page.paint(run)
    view = page._view
    page.end({"text/html": "<b>static</b>"})
    assert ["application/vnd.jupyter.widget-view+json" in b for b in shown.bundles] == [True, False, False, False]
    assert shown.bundles[2] == {"text/html": "<b>static</b>"}
    assert shown.bundles[3] == {"text/html": "", "text/plain": ""}, "nothing of the sentence stays"
    assert view is not None
    assert view.widget.comm is None, "the widget is closed: nothing of it is saved"


def test_after_a_reload_the_view_stays_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page, run = Shown(monkeypatch), Live(clicks=True), a_run()
    page.paint(run)
    view = page._view
    assert view is not None
    receive(view, cmd="ready", page="a", seq=1)
    receive(view, cmd="ready", page="b", seq=1)
    for row in (0, 1):
        run.journal.append(Ended(row, OK, 1.0))
    run.done = True
    page.end({"text/html": "static"})
    assert [b.get("text/html") for b in shown.bundles].count("static") == 0
    assert "2 of 2 rows done" in shown.bundles[-1]["text/plain"]
    assert view.widget.comm is not None


def test_charts_take_the_place_of_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page = Shown(monkeypatch), Live(clicks=True)
    page.paint(a_run())
    page.end({"text/html": "static"}, {"text/html": "charts"})
    assert shown.bundles[-2:] == [{"text/html": "static"}, {"text/html": "charts"}]
    page = Live(clicks=True)
    page.end({"text/html": "static"}, {"text/html": "charts"})
    assert shown.bundles[-2:] == [{"text/html": "static"}, {"text/html": "charts"}], "where no view was opened too"


def test_a_view_that_fails_leaves_the_final_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page = Shown(monkeypatch), Live(clicks=True)
    page.paint(a_run())
    view = page._view
    assert view is not None
    view.pages = {"a", "b"}
    view.feed.snapshot = lambda *_, **__: 1 / 0
    page.end({"text/html": "static"})
    assert {"text/html": "static"} in shown.bundles


def test_a_run_that_never_painted_shows_only_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, page = Shown(monkeypatch), Live(clicks=True)
    page.end({"text/plain": "done"})
    assert shown.bundles == [{"text/plain": "done"}]
    Live(clicks=True).end({})
    page = Live(clicks=True)
    page.paint(a_run(show="none"))
    page.end({})
    assert len(shown.bundles) == 1


def test_the_source_of_a_run_says_how_it_stands() -> None:
    run = a_run()
    source = RunSource(run)
    assert (source.info.title, source.info.first_routes) == ("r", ("sim/echo",))
    states = []
    for done, stopped in ((False, False), (False, True), (True, True), (True, False)):
        run.done, run.stopped = done, stopped
        states.append(source.state)
    assert states == ["running", "stopping", "stopped", "done"]


def test_price_as_an_unknown_route_is_a_mistake_of_the_user() -> None:
    run = a_run()
    run.options.price_as = "no route"
    with pytest.raises(BadRoute, match="no route"):
        RunSource(run)


def test_a_view_says_what_helps_when_its_kernel_is_gone() -> None:
    source = WrittenSource()
    view, sent = view_of(source)
    view.tick()
    assert [sent[-1]["view"][k] for k in ("again", "then")] == ["%infer resume a-run", "goes on with the run"]
    assert sent[-1]["view"]["standin"] == view.standin.id
    source.state = "done"
    view.finish()
    assert sent[-1]["view"]["again"] == "%infer show a-run"
    source.name = ""
    view.finish()
    assert sent[-1]["view"]["again"] == "", "a recording"


def test_a_run_that_is_shown_again_can_be_taken_out_and_no_other() -> None:
    asked: list[Any] = []
    export = SimpleNamespace(answer=lambda what, rows, *, safe: asked.append((what, rows, safe)) or {"kind": "exported"})
    view, sent = view_of(WrittenSource(), export=export)
    receive(view, cmd="export", what="copy", rows=[2, 0, 7, -1])
    receive(view, cmd="export", what="csv", safe=True)
    assert asked == [("copy", [2, 0], False), ("csv", [], True)]
    assert sent == [{"kind": "exported"}] * 2
    assert "no_parquet" in view.widget.first["view"]
    other, sent = view_of(WrittenSource())
    receive(other, cmd="export", what="csv")
    assert sent == []


# -- what is sent to the page ------------------------------------------------------------------------------------------
def test_opening_is_under_seventy_kilobytes() -> None:
    view, _ = view_of(WrittenSource(100))
    state = view.widget.get_state()
    assert len(json.dumps({k: v for k, v in state.items() if k in ("_esm", "_css", "first", "_anywidget_id")})) < 70_000


def test_the_page_imports_the_scripts_as_they_are() -> None:
    """Whether a browser takes them out is held by every test of the live view in one."""
    (held,) = re.findall(r'inflate\("([A-Za-z0-9+/=]+)"\)', lives.LiveWidget._esm)
    assert zlib.decompress(base64.b64decode(held)).decode() == lives.asset(*DRAWING)
    assert "Leon Sorokin" in lives.LiveWidget._esm, "MIT asks for it in every copy"


def test_a_run_of_ten_thousand_rows_is_shown_again_in_small_messages() -> None:
    source = WrittenSource(10_000)
    source.state = "done"
    for row in range(10_000):
        source.journal.append(Ended(row, replace(OK, text=f"answer {row} " * 20), 0.5))
    view, sent = view_of(source, export=SimpleNamespace())
    state = view.widget.get_state()
    opening = len(json.dumps({k: v for k, v in state.items() if k in ("_esm", "_css", "first", "_anywidget_id")}))
    assert opening < 76_000
    receive(view, cmd="ready", page="a", seq=1)
    while not view.feed.drained:
        view.tick()
    assert max(len(json.dumps(m)) for m in sent) < 150_000
    assert len({row[0] for m in (view.widget.first, *sent) for row in m["rows"]}) == 10_000
    assert not view.settled, "what a notebook keeps is not said yet"
    view.standin._shown = "said"
    assert view.settled
    receive(view, cmd="ready", page="b", seq=1)
    assert not view.settled, "a page that was loaded again is sent all of it"


def test_model_text_reaches_the_page_through_text_content_or_what_the_kernel_rendered() -> None:
    own = {
        s: re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", lives.asset(s))
        for s in (*DRAWING, *AGAIN)
        if s != "uplot.js"
    }
    assert {s: found for s, found in own.items() if found} == {"formats.js": ["innerHTML"]}
    assert re.findall(r"sayRendered\(([^)]*)\)", lives.asset("live.js", "detail.js")) == ["rendered, html", "it.said, html"], (
        "html of a message"
    )


def test_nothing_is_loaded_from_elsewhere() -> None:
    own = "\n".join(lives.asset(s) for s in (*DRAWING, *AGAIN, "live.css", "export.css") if s != "uplot.js")
    assert not re.search(r"https?://|@import|\bimport\b|url\(", own)
    assert set(re.findall(r"https?://[^\s*\"')]+", lives.asset("uplot.js"))) <= {"https://github.com/leeoniya/uPlot"}


def test_the_libraries_licence_is_beside_it() -> None:
    assert "MIT" in lives.asset("uplot.LICENSE")
    assert "Leon Sorokin" in lives.asset("uplot.LICENSE")
