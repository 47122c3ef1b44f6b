"""Processes that compile before there is a context: who waits for what, and what is left of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from holynb.pool.engine import compile_ahead
from holynb.pool.engine.compile_ahead import CompileAhead

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Note:
    """A launch whose compilation is a file that says which process wrote it."""

    def __init__(self, path: Path, *, fails: bool = False) -> None:
        self.path, self.fails = path, fails

    def compile(self, *, load: bool) -> None:
        assert not load, "a process that ends with its work loads nothing"
        if self.fails:
            raise RuntimeError("does not compile")
        self.path.write_text(str(os.getpid()))


@pytest.fixture(autouse=True)
def enough_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_ahead, "cpus", lambda: 4)


def until(found: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_what_the_first_token_needs_is_there_after_the_wait_and_the_rest_follows(tmp_path: Path) -> None:
    first, later = [Note(tmp_path / f"first{i}") for i in range(9)], [Note(tmp_path / f"later{i}") for i in range(3)]
    ahead = CompileAhead(lambda: (first, later), lambda: (tmp_path / "prepared").touch(), forks=True)
    assert ahead.running
    ahead.wait(20)
    assert all(note.path.exists() for note in first)
    assert (tmp_path / "prepared").exists()
    writers = {int(note.path.read_text()) for note in first}
    assert len(writers) == 4
    assert os.getpid() not in writers
    until(lambda: all(note.path.exists() and note.path.read_text() for note in later))
    until(lambda: all(gone(process) for process in writers))


@pytest.mark.parametrize("where", ["prepare", "record", "compile"])
def test_a_failure_there_ends_the_wait(where: str, tmp_path: Path) -> None:
    def fail() -> Any:
        raise RuntimeError("no")

    found = CompileAhead(
        fail if where == "record" else lambda: ([Note(tmp_path / "a", fails=True), Note(tmp_path / "b")], []),
        fail if where == "prepare" else lambda: None,
        forks=True,
    )
    begin = time.monotonic()
    found.wait(20)
    assert time.monotonic() - begin < 15
    assert (tmp_path / "b").exists() == (where == "compile"), "another process compiles what it has to"


def test_without_a_fork_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> Any:
        raise AssertionError("called")

    assert not CompileAhead(never, never, forks=False).running
    monkeypatch.setattr(compile_ahead, "cpus", lambda: 2)
    ahead = CompileAhead(never, never, forks=True)
    assert not ahead.running
    ahead.wait(60)
