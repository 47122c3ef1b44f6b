"""Two cells or kernels that go on with one run at once would pay its rows twice: the second says so, and whoever comes after an end goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from layout import ROOT

from holynb import loop, runlog
from holynb.errors import BadOption
from holynb.events import Started
from holynb.run import Run, infer, session
from holynb.runlog import lease

DEADLINE = 30
ROWS = [f"row {i}" for i in range(40)]
#: What another kernel does: it says when its first row is answered.
OTHER = """
import sys, time, holynb
run = holynb.infer([f"row {i}" for i in range(40)], "sim/echo", name=sys.argv[1], cache=False, p={"latency": float(sys.argv[2])}, concurrency=4)
while not any(run.rows()) and not run.done:
    time.sleep(0.01)
print(run.error or "goes on", flush=True)
run.wait()
"""


@pytest.fixture(autouse=True)
def ended(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "WAIT_S", 0.3)
    session._session.clear()
    yield
    loop.close()
    runlog.close()


def other(name: str, latency: float) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, name, str(latency)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def sent(run: Run) -> int:
    return sum(isinstance(e, Started) for e in run.journal.events_since(0)[0])


def test_a_run_that_goes_on_in_another_kernel_is_not_paid_twice(home: Path) -> None:
    with other("big", 0.5) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "goes on\n"
            run = infer(ROWS, "sim/echo", name="big", cache=False, p={"latency": 0.5})
            with pytest.raises(BadOption, match=r"Run big is active in another cell or kernel.*%infer stop big"):
                run.wait(DEADLINE)
            assert sent(run) == 0
            record = runlog.log().find("big")
            assert record is not None
            assert record.ended is None, "what goes on there is left alone"
        finally:
            child.kill()  # as a kernel dies
    rest = infer(ROWS, "sim/echo", name="big", cache=False, p={"latency": 0.5}).wait(DEADLINE)
    assert list(rest.frame()["status"]) == ["ok"] * 40
    assert 0 < sent(rest) < 40
    assert not list((home / "turns").iterdir()), "nothing is left behind"


def test_the_same_in_one_session_and_by_its_id() -> None:
    going = infer(ROWS, "sim/echo", cache=False, p={"latency": 0.3}, concurrency=4)
    end = time.monotonic() + DEADLINE
    while runlog.log().find(going.id) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(BadOption, match=f"Run {going.id} is active"):
        infer(ROWS, "sim/echo", cache=False, resume=going.id, p={"latency": 0.3}).wait(DEADLINE)
    assert going.wait(DEADLINE).summary().ok == 40
    again = infer(ROWS, "sim/echo", cache=False, resume=going.id, p={"latency": 0.3}).wait(DEADLINE)
    assert (sent(going), sent(again), again.summary().ok) == (40, 0, 40)


def test_of_two_that_begin_under_one_name_at_once_one_sends() -> None:
    runs = [infer(ROWS, "sim/echo", name="twins", cache=False, p={"latency": 0.05}) for _ in range(2)]
    for run in runs:
        try:
            run.wait(DEADLINE)
        except BadOption:
            assert sent(run) == 0
    assert sorted(map(sent, runs)) == [0, 40]


def test_who_continues_waits_a_moment_for_the_one_before_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WAIT_S", DEADLINE)
    first = infer(ROWS, "sim/echo", name="soon", cache=False, p={"latency": 0.3}, concurrency=4)
    end = time.monotonic() + DEADLINE
    while runlog.log().find("soon") is None or not any(first.rows()):
        assert time.monotonic() < end
        time.sleep(0.01)
    threading.Timer(0.4, first.cancel).start()
    second = infer(ROWS, "sim/echo", name="soon", cache=False, p={"latency": 0.3}).wait(DEADLINE)
    assert first.done
    assert second.summary().ok == 40
    assert sent(second) == 40 - first.summary().ok


def test_a_cancelled_wait_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WAIT_S", DEADLINE)
    first = infer(ROWS, "sim/echo", name="held", cache=False, p={"latency": 0.1}, concurrency=4)
    end = time.monotonic() + DEADLINE
    while runlog.log().find("held") is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    second = infer(ROWS, "sim/echo", name="held", cache=False)
    time.sleep(0.1)
    second.cancel()
    second.wait(DEADLINE)
    assert (sent(second), second.summary().cancelled) == (0, 40)
    first.wait(DEADLINE)
    assert infer(ROWS, "sim/echo", name="held", cache=False).wait(DEADLINE).summary().ok == 40


def test_where_no_file_can_be_locked_nothing_is_held_up(home: Path) -> None:
    (home / "turns").write_text("a file where the folder should be")
    assert infer(["x"], "sim/echo", name="free", cache=False).wait(DEADLINE).summary().ok == 1
