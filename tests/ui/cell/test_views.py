"""Where progress goes: in place in a kernel, over one line on a tty, nowhere else."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ui.facts import FakeRun, ok

from holynb.ui.cell import views
from holynb.ui.cell.views import QuietView, StatusLine, TerminalView, TextView
from holynb.ui.cell.wait import QUIET_S


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Handle:
    """Stands for IPython's display handle."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, str]] = []

    def update(self, bundle: dict[str, str], raw: bool) -> None:
        assert raw
        self.bundles.append(bundle)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Handle:
    handle = Handle()

    def display(bundle: dict[str, str], raw: bool, display_id: bool) -> Handle:
        handle.update(bundle, raw)
        return handle

    monkeypatch.setattr("IPython.display.display", display)
    return handle


def running(n: int = 4) -> Any:
    run = FakeRun(n)
    run.elapsed = 2.0
    run.end(0, ok())
    return run


def test_a_notebooks_output_is_painted_and_replaced(page: Handle) -> None:
    text = TextView()
    text.paint(running())
    text.end({"text/html": "<b>done</b>", "text/plain": "done"})
    assert "1 of 4" in page.bundles[0]["text/plain"]
    assert "rows/s" in page.bundles[0]["text/plain"]
    assert page.bundles[1:] == [{"text/html": "<b>done</b>", "text/plain": "done"}]


def test_without_a_final_output_progress_is_taken_away_and_nothing_is_made(page: Handle) -> None:
    TextView().end({})
    assert page.bundles == []
    text = TextView()
    text.paint(running())
    text.end({})
    assert page.bundles[-1] == {"text/plain": ""}


def test_one_answer_is_shown_as_it_arrives_without_control_characters(page: Handle) -> None:
    run: Any = FakeRun(1)
    run.journal.append_text(0, "hel\x1b[31m")
    run.journal.append_text(0, "lo")
    TextView().paint(run)
    assert page.bundles[0]["text/plain"].startswith("hello\n\n")


def test_a_terminal_writes_over_one_line_and_clears_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tty = Tty()
    monkeypatch.setattr(sys, "stderr", tty)
    monkeypatch.setenv("COLUMNS", "40")
    terminal = TerminalView()
    terminal.paint(running())
    terminal.paint(running())
    painted = tty.getvalue()
    assert painted.count("\r") == 2
    assert "\n" not in painted
    assert all(len(line) <= 40 for line in painted.replace("\x1b[K", "").split("\r"))
    terminal.end({"text/plain": "done"})
    assert tty.getvalue().endswith("\r\x1b[K")
    assert capsys.readouterr().out == "done\n"


def test_into_a_file_there_is_no_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    terminal = TerminalView()
    terminal.paint(running())
    terminal.end({"text/plain": "done"})
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    assert capsys.readouterr().out == "done\n"


def test_quiet_shows_the_end_alone(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = QuietView(TerminalView())
    quiet.paint(running())
    quiet.end({})
    assert capsys.readouterr().out == ""


def test_the_shell_decides() -> None:
    assert isinstance(views.select_view(None), TerminalView)
    kernel = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: {"content": {"allow_stdin": False}}))
    assert isinstance(views.select_view(kernel), TextView), "nbclient and papermill get text in place"
    assert isinstance(views.select_view(kernel, quiet=True), QuietView)
    assert isinstance(views.text_view(kernel), TextView)


def test_a_notice_is_late_calm_and_ends_in_what_stays(page: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    status = StatusLine(SimpleNamespace(kernel=object()))
    for step in range(300):
        now[0] = step / 100
        status(f"step {step}")
    shown = [b["text/plain"] for b in page.bundles]
    assert shown[0] == f"step {int(QUIET_S * 100)}"
    assert len(shown) <= 11
    status.end("ready")
    assert page.bundles[-1] == {"text/plain": "ready"}


def test_what_is_said_once_is_seen_at_once(page: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool says that a model fits once, half a second after it was asked to start, and then loads for a minute."""
    monkeypatch.setattr("time.monotonic", lambda: 0.5)
    status = StatusLine(SimpleNamespace(kernel=object()), at_once=True)
    status("it fits")
    status("loading the weights")
    assert [b["text/plain"] for b in page.bundles] == ["it fits", "loading the weights"]


def test_a_notice_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tty = Tty()
    monkeypatch.setattr(sys, "stderr", tty)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    status = StatusLine(None)
    now[0] = 2.0
    status("loading\nweights")
    status.end("ready")
    assert tty.getvalue() == "\rloading weights\x1b[K\r\x1b[K"
    assert capsys.readouterr().out == "ready\n"


def test_the_only_row_says_that_it_thinks_until_it_answers(page: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    tty, run = Tty(), FakeRun(1)
    monkeypatch.setattr(sys, "stderr", tty)
    run.journal.append_thoughts(0, "hm", 412)
    TextView().paint(run)  # type: ignore[arg-type]
    TerminalView().paint(run)  # type: ignore[arg-type]
    assert page.bundles[0]["text/plain"].startswith("thinking … 412 tokens\n\n")
    assert tty.getvalue().startswith("\rthinking … 412 tokens · ")
    run.journal.append_text(0, "Tea")
    TextView().paint(run)  # type: ignore[arg-type]
    assert page.bundles[-1]["text/plain"].startswith("Tea\n\n")
