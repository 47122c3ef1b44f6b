"""The waiting cell: calm when it is short, deaf to a broken view, and out at the second interrupt."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ui.facts import FakeRun, ok

from holynb.ui.cell.views import REDRAW_INTERVAL_S
from holynb.ui.cell.wait import INTERRUPT_GRACE_S, POLL_S, QUIET_S, WaitState, follow, wait


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class View:
    interval_s = REDRAW_INTERVAL_S

    def __init__(self, fails: Exception | None = None) -> None:
        self.painted: list[float] = []
        self.clock: Callable[[], float] = time.monotonic
        self.fails = fails

    def paint(self, run: Any) -> None:
        self.painted.append(self.clock())
        if self.fails:
            raise self.fails


def waiting(view: View | None = None) -> tuple[WaitState, Any, Clock]:
    clock, run = Clock(), FakeRun()
    if view is not None:
        view.clock = clock
    return WaitState(run, view, clock), run, clock  # type: ignore[arg-type]


def pass_time(state: WaitState, clock: Clock, until: float, interrupts: int = 0) -> bool:
    waiting_on = True
    while clock.now < until and waiting_on:
        clock.now += 0.01
        waiting_on = state.poll(interrupts)
    return waiting_on


def test_nothing_is_painted_in_the_first_second_and_at_most_five_times_in_each_after_it() -> None:
    view = View()
    state, _, clock = waiting(view)
    assert pass_time(state, clock, QUIET_S - 0.02)
    assert view.painted == []
    assert pass_time(state, clock, QUIET_S + 10)
    assert 45 <= len(view.painted) <= 50


def test_it_ends_with_the_run() -> None:
    state, run, _ = waiting()
    assert state.poll(0)
    run.done = True
    assert not state.poll(0)


def test_a_view_that_fails_is_told_and_left() -> None:
    view = View(fails=OSError("no page"))
    state, _, clock = waiting(view)
    assert pass_time(state, clock, 5)
    assert len(view.painted) == 1
    assert isinstance(state.view_error, OSError)


def test_the_first_interrupt_stops_softly_and_waits_for_the_run() -> None:
    state, run, clock = waiting()
    assert pass_time(state, clock, 60, interrupts=1)
    assert run.cancels == 1
    run.done = True
    assert not state.poll(1)


def test_the_second_interrupt_leaves_at_once() -> None:
    state, run, clock = waiting()
    pass_time(state, clock, 1, interrupts=1)
    assert not pass_time(state, clock, 60, interrupts=2)
    assert run.cancels == 2
    assert clock.now <= 1 + INTERRUPT_GRACE_S + 0.05


class Slow(FakeRun):
    """Ends when its event is set; can be awaited and blocked on, as a run can."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = threading.Event()
        self.dies = False

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self.ending.is_set()

    @done.setter
    def done(self, value: bool) -> None:
        """Set by the fake's constructor."""

    def cancel(self) -> None:
        super().cancel()
        if self.cancels == 2 or self.dies:
            self.ending.set()

    def wait(self, timeout: float | None = None) -> FakeRun:
        if not self.ending.wait(timeout):
            raise TimeoutError
        raise RuntimeError("what the run raises is raised by check()")

    def __await__(self) -> Any:
        yield from asyncio.get_running_loop().run_in_executor(None, self.ending.wait, 10).__await__()
        raise RuntimeError("what the run raises is raised by check()")


def interrupt(*after: float) -> threading.Thread:
    """SIGINT to this process after each of these pauses."""

    def send() -> None:
        for pause in after:
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("door", ["follow", "wait"])
def test_it_waits_without_interrupts_and_raises_nothing(door: str) -> None:
    run = Slow()
    started = time.monotonic()
    threading.Timer(0.1, run.ending.set).start()
    state = asyncio.run(follow(run, None)) if door == "follow" else wait(run, None)  # type: ignore[arg-type]
    assert state.interrupts == 0
    assert 0.09 <= time.monotonic() - started < 10


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("door", ["follow", "wait"])
def test_an_idle_wait_notices_an_interrupt_within_a_tenth_of_a_second(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks that often, and the first look sees it: a busy machine may be late for the look itself."""
    looks, poll = list[int](), WaitState.poll
    monkeypatch.setattr(WaitState, "poll", lambda state, interrupts: looks.append(interrupts) or poll(state, interrupts))
    run = Slow()
    run.dies = True
    before = signal.getsignal(signal.SIGINT)
    thread = interrupt(0.3)
    state = asyncio.run(follow(run, None)) if door == "follow" else wait(run, None)  # type: ignore[arg-type]
    thread.join()
    assert state.interrupts == 1
    assert run.cancels == 1
    assert POLL_S <= 0.1
    assert looks[-2:] in ([1, 1], [0, 1]), "the end is seen at the next look after it"
    assert looks.count(1) <= 2
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("door", ["follow", "wait"])
def test_a_second_interrupt_ends_a_run_that_would_go_on(door: str) -> None:
    run = Slow()
    thread = interrupt(0.2, 0.3)
    started = time.monotonic()
    state = asyncio.run(follow(run, None)) if door == "follow" else wait(run, None)  # type: ignore[arg-type]
    thread.join()
    assert state.interrupts == 2
    assert run.cancels == 2
    assert time.monotonic() - started < 8, "it would have gone on for ten seconds"


def test_a_cancelled_cell_stops_its_run_and_is_not_left_cancelled() -> None:
    """ipykernel turns an interrupt into a cancellation where its own handler was first."""
    run = Slow()
    run.dies = True

    async def cell() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.1, task.cancel)
        state = await follow(run, None)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return state.interrupts

    assert asyncio.run(cell()) == 1
    assert run.cancels == 1


def test_the_loop_stays_free_while_a_cell_waits() -> None:
    """A click is handled while the cell runs: other tasks of the loop go on."""
    run = Slow()

    async def cell() -> int:
        clicks = 0

        async def clicking() -> None:
            nonlocal clicks
            for _ in range(10):
                await asyncio.sleep(0.01)
                clicks += 1
            run.end(0, ok())
            run.ending.set()

        clicker = asyncio.ensure_future(clicking())
        await follow(run, View())  # type: ignore[arg-type]
        await clicker
        return clicks

    assert asyncio.run(cell()) == 10
