"""Whole runs against servers and pools that go away and come back, over real sockets and in real time."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from servers.exact import Exact, reply
from servers.golden import OPENAI

import holynb
from holynb import pools
from holynb.errors import NotRunning
from holynb.events import Noted, Paused
from holynb.run import assembly
from holynb.types import Route

OK = reply(OPENAI.whole)


def start(server: Exact, rows: int, **options: Any) -> holynb.Run:
    return holynb.infer([f"row {i}" for i in range(rows)], "openai/gpt-4.1-mini", api_base=server.base, cache=False, **options)


def answered(run: holynb.Run, rows: int) -> None:
    """Wait until so many rows have ended."""
    until = time.monotonic() + 20
    while run.journal.ended < rows:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("retries", [3, 1])
def test_a_server_that_is_killed_and_restarted_loses_no_row(retries: int) -> None:
    with Exact([0.02, OK]) as server:
        run = start(server, 600, concurrency=16, retries=retries)
        answered(run, 50)
        server.__exit__()
        time.sleep(2.0)
        assert any(isinstance(e, Paused) and e.kind == "connection" for e in run.journal.events_since(0)[0])
        asked = len(server.asked)
        server.__enter__()
        frame = run.wait(30).frame()
    assert set(frame["status"]) == {"ok"}
    assert asked < 600, "it was killed in the middle"
    assert int(frame["attempts"].sum()) >= len(server.asked)


@pytest.mark.usefixtures("keyed")
def test_what_answered_an_earlier_run_is_waited_for_by_the_next() -> None:
    with Exact([OK]) as server:
        start(server, 2).wait(20)
        server.__exit__()
        run = start(server, 3, retries=0)
        time.sleep(0.5)
        assert not run.done
        server.__enter__()
        assert set(run.wait(20).frame()["status"]) == {"ok"}


@pytest.mark.usefixtures("keyed")
def test_what_answered_a_run_that_still_goes_on_is_waited_for_by_another() -> None:
    with Exact([0.02, OK]) as server:
        first = start(server, 300, concurrency=4)
        answered(first, 20)
        assert not first.done
        (endpoint,) = first.plan.targets.endpoints
        assert assembly._has_answered(endpoint.base_url, endpoint.route)
        first.wait(30)


@pytest.mark.usefixtures("fake_pools")
def test_a_new_run_waits_for_a_pool_that_has_answered_and_for_one_that_starts(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotRunning, match=r"is not running\. Start it"):
        holynb.infer(["a"], "pool/bytes", cache=False).wait(20)
    pools.start(model)
    assert holynb.infer(["a"], "pool/bytes", cache=False).wait(20).frame()["status"][0] == "ok"
    pools.stop("bytes")
    run = holynb.infer(["a", "b"], "pool/bytes", cache=False, retries=0)
    time.sleep(1.0)
    assert not run.done
    assert "has answered before, so its rows wait" in notes(run)
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "1.5")
    pools.start(model, wait=False)
    late = holynb.infer(["c"], "pool/bytes", cache=False, retries=0)
    assert set(run.wait(30).frame()["status"]) == {"ok"}
    assert set(late.wait(30).frame()["status"]) == {"ok"}
    assert "bytes: loading the weights" in notes(late)


def notes(run: holynb.Run) -> str:
    return "\n".join(e.text for e in run.journal.events_since(0)[0] if isinstance(e, Noted))


@pytest.mark.usefixtures("keyed")
def test_where_nobody_ever_answered_one_line_says_so_within_seconds() -> None:
    with Exact([OK]) as server:
        pass
    began = time.monotonic()
    run = start(server, 200)
    with pytest.raises(holynb.InferError, match=r"200 of 200 failed: 200 connection.*nothing is listening there"):
        run.wait(20)
    assert time.monotonic() - began < 8
    assert len(set(run.frame()["error"])) == 1


@pytest.mark.usefixtures("keyed")
def test_a_stop_ends_the_wait_for_a_server() -> None:
    with Exact([0.02, OK]) as server:
        run = start(server, 300, concurrency=8)
        answered(run, 20)
        server.__exit__()
        time.sleep(1.2)
        began = time.monotonic()
        run.cancel()
        run.wait(20)
        assert time.monotonic() - began < 4
        server.__enter__()
    assert set(run.frame()["status"]) <= {"ok", "cancelled"}


@pytest.mark.usefixtures("fake_pools", "ended")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_pool_that_is_started_again_loses_no_row(model: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_STEP", "0.01")
    info = pools.start(model)
    run = holynb.infer([f"row {i} of many" for i in range(60)], "pool/bytes", cache=False)
    answered(run, 8)
    if how == "killed":
        os.kill(info.pid, signal.SIGKILL)
    else:
        threading.Thread(target=pools.stop, args=("bytes",)).start()
    time.sleep(1.5)
    assert not run.done
    pools.start(model)
    frame = run.wait(40).frame()
    assert set(frame["status"]) == {"ok"}


def test_what_answered_in_another_home_is_not_waited_for_in_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`pool/x` is another pool there."""
    route = Route("sim", "echo")
    holynb.infer("hi", str(route)).wait(30)
    assert assembly._has_answered("", route)
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path / "other"))
    assert not assembly._has_answered("", route)
