"""What follows a failed attempt: routes that refuse are left, servers that are gone are waited for, all in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from engines_fake import Scripted, Step, done
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduled import drive, ends
from servers import virtual

from holynb.errors import Fault
from holynb.events import Failed, Paused, Started
from holynb.journal import Journal
from holynb.scheduler.limiter import Limiter
from holynb.scheduler.retry import Policy
from holynb.scheduler.scheduler import Scheduler
from holynb.types import Done, Limits, Outcome, Timeouts

GONE = "the connection to h:1 failed: nothing is listening there."


def now() -> float:
    """Seconds into the run."""
    return asyncio.get_running_loop().time() - 1000.0


def refusal(wait: float | None = None) -> Fault:
    return Fault("rate_limit", "429: slow down", wait=wait, status=429)


def gone() -> Fault:
    return Fault("connection", GONE, unreachable=True)


class Timed(Scripted):
    """Notes when each request came and what it was answered with."""

    def __init__(self, script: Callable[[float, int], Sequence[Step]], route: str = "a/m") -> None:
        self.at: list[float] = []

        def timed(row: int, attempt: int) -> Sequence[Step]:
            self.at.append(now())
            return script(now(), row)

        super().__init__(timed, route)


def run(engines: Sequence[Scripted], n: int = 1, policy: Policy | None = None, **options: Any) -> tuple[list[Outcome], Journal, float]:
    """The outcomes, the journal, and how many seconds the run took."""
    took: list[float] = []

    async def watch(scheduler: Scheduler) -> None:
        await scheduler._rows.finished.wait()
        took.append(now())

    journal, scheduler = drive(engines, n, policy or Policy(), virtual=True, during=options.pop("during", None) or watch, **options)
    assert scheduler.error is None
    assert all(e.flying == 0 for e in engines)
    return ends(journal), journal, took[0] if took else 0.0


# -- routes that refuse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [None, 0.5, 5.0])
def test_a_row_leaves_a_route_that_refuses_for_30_s(wait: float | None) -> None:
    busy, free = Timed(lambda at, row: [0.05, refusal(wait)]), Timed(lambda at, row: [0.05, done("b")], "b/m")
    (row,), _, took = run([busy, free])
    assert (row.status, row.route) == ("ok", "b/m")
    assert took <= 31
    assert took > 14, "and not before the next wait would be over the limit"
    assert "429: slow down" in (row.error or "")


@pytest.mark.parametrize("wait", [31.0, 90.0, 119.0])
def test_at_once_where_the_server_asks_for_more_than_is_left(wait: float) -> None:
    busy, free = Timed(lambda at, row: [0.05, refusal(wait)]), Timed(lambda at, row: [0.05, done("b")], "b/m")
    rows, _, took = run([busy, free], 200)
    assert {(o.status, o.route) for o in rows} == {("ok", "b/m")}
    assert took < 3
    assert len(busy.at) <= 8, "those that were in flight together"


def test_refusals_count_as_no_retry_and_the_next_route_has_all_of_them() -> None:
    def second(at: float, row: int) -> list[Step]:
        return [Fault("server", "boom")] if len(free.at) <= 2 else [done("b")]

    busy, free = Timed(lambda at, row: [refusal(2.0)]), Timed(second, "b/m")
    (row,), _, _ = run([busy, free], policy=Policy(retries=2))
    assert (row.status, row.route, len(free.at)) == ("ok", "b/m", 3)
    assert len(busy.at) > 10
    assert row.attempts == len(busy.at) + len(free.at)


def test_later_rows_come_back_when_the_route_answers_again() -> None:
    busy = Timed(lambda at, row: [0.1, refusal(1.0) if at < 90 else done("a")])
    slow = Timed(lambda at, row: [2.0, done("b")], "b/m")
    rows, _, _ = run([busy, slow], 1000, cap=4)
    routes = Counter(o.route for o in rows)
    assert {o.status for o in rows} == {"ok"}
    assert routes["a/m"] > 800
    assert routes["b/m"] >= 90
    probes = [at for at in busy.at if 35 < at < 90]
    assert 3 <= len(probes) <= 10, "one row at a time, less and less often"


def test_a_route_that_asks_for_minutes_is_asked_again_when_they_are_over() -> None:
    busy = Timed(lambda at, row: [0.1, refusal(200.0 - at) if at < 200 else done("a")])
    slow = Timed(lambda at, row: [2.0, done("b")], "b/m")
    rows, _, _ = run([busy, slow], 1000, cap=4)
    assert {o.status for o in rows} == {"ok"}
    assert len([at for at in busy.at if at < 200]) == 4
    assert Counter(o.route for o in rows)["a/m"] > 500


def test_rows_end_where_the_last_route_that_is_left_asks_for_minutes() -> None:
    busy = Timed(lambda at, row: [0.1, refusal(900.0)])
    dead = Timed(lambda at, row: [0.1, done("b")] if at < 20 else [gone()], "b/m")
    rows, _, took = run([busy, dead], 2000, cap=4)
    failed = [o for o in rows if o.status == "error"]
    assert 1000 < len(failed) < 1300
    assert {o.error_type for o in failed} == {"connection"}
    assert took < 90


def test_one_row_that_is_always_refused_leaves_alone() -> None:
    busy = Timed(lambda at, row: [0.2, refusal(0.5) if row == 3 else done("a")])
    free = Timed(lambda at, row: [0.2, done("b")], "b/m")
    rows, _, _ = run([busy, free], 2000, cap=4)
    assert {o.status for o in rows} == {"ok"}
    assert [i for i, o in enumerate(rows) if o.route == "b/m"] == [3]
    assert "refused for" in (rows[3].error or "")


def told(text: str, left: int, reset: float, tokens: bool = False) -> Done:
    """An answer whose headers say what is left of a quota of ten, and when it is full again."""
    limits = Limits(tokens=10_000, tokens_left=left, tokens_reset=reset) if tokens else Limits(10, left, reset)
    return replace(done(text), limits=limits)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("reset", [45.0, 110.0, 3600.0])
def test_a_quota_that_headers_alone_report_is_not_waited_out_beside_another_route(reset: float, tokens: bool) -> None:
    def answer(at: float, row: int) -> list[Step]:
        full = at % reset < 20 and at < 600
        return [0.1, told("a", 10 if full and at >= 40 else 0, reset - at % reset, tokens)]

    busy, slow = Timed(answer), Timed(lambda at, row: [2.0, done("b")], "b/m")
    rows, _, _ = run([busy, slow], 400, cap=4)
    assert {o.status for o in rows} == {"ok"}
    routes = Counter(o.route for o in rows)
    assert routes["b/m"] > 50
    first = [at for at in busy.at if at < min(reset, 120)]
    assert len(first) <= 8, "those that were in flight before the first headers came"
    assert routes["a/m"] > len(first), "rows come back when it is full again, or after two minutes"
    moved = [o.error for o in rows if o.route == "b/m"]
    assert all("that its quota is used up" in (error or "") for error in moved)


def test_a_short_wait_for_a_quota_that_headers_report_is_waited_out() -> None:
    busy = Timed(lambda at, row: [0.1, told("a", 0, 25.0)])
    free = Timed(lambda at, row: [0.1, done("b")], "b/m")
    rows, _, took = run([busy, free], 8, cap=2)
    assert {o.route for o in rows} == {"a/m"}
    assert took > 10


def test_what_a_row_waited_for_refusals_counts_for_a_quota_too() -> None:
    """Refused for 24 s, then headers that ask for 15 more: it leaves at once."""

    def answer(at: float, row: int) -> list[Step]:
        return [0.1, refusal(8.0)] if row == 0 else [24.0, told("a", 0, 15.0)]

    busy, free = Timed(answer), Timed(lambda at, row: [0.1, done("b")], "b/m")
    rows, _, took = run([busy, free], 2, cap=2)
    assert [o.route for o in rows] == ["b/m", "a/m"]
    assert took < 30


def test_a_quota_that_headers_report_is_left_as_soon_as_another_route_is_there() -> None:
    busy = Timed(lambda at, row: [0.1, told("a", 0, 100.0 - at)])
    restarts = Timed(lambda at, row: [0.1, done("b")] if at > 12 else [gone()], "b/m")
    rows, _, took = run([busy, restarts], 60, cap=4)
    assert {o.status for o in rows} == {"ok"}
    assert Counter(o.route for o in rows)["b/m"] > 40
    assert took < 60


def test_without_another_route_a_quota_that_headers_report_is_waited_for() -> None:
    busy = Timed(lambda at, row: [0.1, told("a", 0 if at < 45 else 10, max(0.0, 50.0 - at))])
    rows, _, took = run([busy], 20, cap=4)
    assert {(o.status, o.route) for o in rows} == {("ok", "a/m")}
    assert 40 < took < 80


def test_a_run_behind_anothers_wait_for_the_same_quota_moves_on() -> None:
    async def main() -> tuple[object, float]:
        clock = asyncio.get_running_loop().time
        limiter = Limiter(cap=4, start=4, clock=clock)
        permit = await limiter.acquire()
        assert permit is not None
        limiter.on_success(permit, Limits(1, 0, 100.0))
        limiter.release(permit)
        first = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(1)
        began = clock()
        second = await limiter.acquire(0, 30.0)
        took = clock() - began
        first.cancel()
        return second, took

    assert virtual.run(main) == (None, 0.0)


def test_without_another_route_it_is_waited_for_and_the_end_says_why() -> None:
    busy = Timed(lambda at, row: [0.05, refusal(7.0)])
    rows, _, took = run([busy], 50, Policy(deadline=60.0))
    assert 59 < took < 61
    assert {o.error_type for o in rows} == {"deadline"}
    assert {o.error for o in rows if o.attempts} == {"not answered within the run's deadline of 60 s (--deadline); last: 429: slow down"}
    assert {o.error for o in rows if not o.attempts} == {
        "not answered within the run's deadline of 60 s (--deadline); last of a/m: 429: slow down"
    }


def test_a_deadline_without_a_fault_names_none() -> None:
    rows, _, _ = run([Timed(lambda at, row: [9.0, done("a")])], 20, Policy(deadline=60.0), cap=1)
    assert [o.status for o in rows].count("ok") == 6
    assert {o.error for o in rows if o.status == "error"} == {"not answered within the run's deadline of 60 s (--deadline)"}


def test_where_the_other_route_is_gone_a_refusing_one_is_waited_for() -> None:
    busy = Timed(lambda at, row: [0.05, refusal(5.0) if at < 100 else done("a")])
    dead = Timed(lambda at, row: [gone()], "b/m")
    rows, _, took = run([busy, dead], 60)
    assert {(o.status, o.route) for o in rows} == {("ok", "a/m")}
    assert took < 120


def test_both_refuse_until_one_answers() -> None:
    first = Timed(lambda at, row: [0.05, refusal(5.0)])
    second = Timed(lambda at, row: [0.05, refusal(5.0) if at < 100 else done("b")], "b/m")
    rows, _, took = run([first, second], 60)
    assert {(o.status, o.route) for o in rows} == {("ok", "b/m")}
    assert took < 130


# -- servers that are gone -----------------------------------------------------------------------------------------------


def restarting(down: float, up: float, *, latency: float = 0.2) -> Timed:
    """Answers, is gone from `down` to `up` with what was in flight, and answers again."""

    def script(at: float, row: int) -> list[Step]:
        if down <= at < up:
            return [gone()]
        if at < down < at + latency:
            return ["half of ", down - at, Fault("truncated", "the connection was reset")]
        return ["half of ", latency, done(f"answer {row}")]

    return Timed(script)


@pytest.mark.parametrize("retries", [3, 1])
@pytest.mark.parametrize("cap", [1, 8, 64])
def test_a_server_that_restarts_loses_no_row(cap: int, retries: int) -> None:
    engine = restarting(1.5, 7.5)
    rows, journal, took = run([engine], 500, Policy(retries=retries), cap=cap)
    assert {o.status for o in rows} == {"ok"}
    assert took < 7.5 + 2 + 0.2 * (500 / cap + 3) + 2
    events = journal.events_since(0)[0]
    said = [e for e in events if isinstance(e, Paused)]
    assert [e.kind for e in said] == ["connection"] * len(said)
    assert 2 <= len(said) <= 6
    assert sum(isinstance(e, Started) for e in events) == sum(o.attempts for o in rows)
    probes = [at for at in engine.at if 2.6 < at < 7.5]
    assert len(probes) <= 4, "one row asks, the others wait"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_long_answer_of_the_probe_does_not_hold_up_the_others(streamed: bool) -> None:
    def script(at: float, row: int) -> list[Step]:
        if 2 < at < 30:
            return [gone()]
        return [1.0, *["so ", 10.0] * 5, done("a")] if streamed else [50.0, done("a")]

    rows, _, took = run([Timed(script)], 64, cap=16)
    assert {o.status for o in rows} == {"ok"}
    assert took < 52 + 8 + 3 + 3 * 52


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_probes_do_not_count_as_retries_even_where_there_are_none(rows: int) -> None:
    engine = Timed(lambda at, row: [gone()] if at < 40 else [0.1, done("a")])
    outcomes, _, took = run([engine], rows, Policy(retries=0), answered=True)
    assert {o.status for o in outcomes} == {"ok"}
    assert 40 < took < 55


def test_a_server_that_does_not_come_back_ends_its_rows_with_one_line() -> None:
    engine = Timed(lambda at, row: [gone()] if at > 3 else [0.2, done("a")])
    rows, _, took = run([engine], 500, cap=4)
    failed = [o for o in rows if o.status == "error"]
    assert 400 < len(failed) < 480
    assert {o.error_type for o in failed} == {"connection"}
    (line,) = {o.error for o in failed}
    assert line is not None and line.startswith("a/m did not come back within ") and line.endswith(GONE)
    assert 55 < took < 65
    assert len([at for at in engine.at if at > 4]) <= 12


def test_a_shorter_deadline_ends_the_wait_and_says_what_failed() -> None:
    engine = Timed(lambda at, row: [gone()] if at > 3 else [0.2, done("a")])
    rows, _, took = run([engine], 100, Policy(deadline=20.0), cap=4)
    failed = [o for o in rows if o.status == "error"]
    assert 19.9 < took < 20.1
    assert {o.error_type for o in failed} == {"deadline"}
    assert all((o.error or "").endswith(GONE) for o in failed)


def test_where_nobody_ever_answered_the_end_is_near() -> None:
    for n in (1, 3, 300):
        engine = Timed(lambda at, row: [gone()])
        rows, _, took = run([engine], n)
        assert {(o.status, o.error_type, o.error) for o in rows} == {("error", "connection", GONE)}
        assert took <= 5, n
        assert len(engine.at) < 40


def test_two_routes_at_which_nobody_ever_answered_end_soon_too() -> None:
    engines = [Timed(lambda at, row: [gone()]), Timed(lambda at, row: [gone()], "b/m")]
    rows, _, took = run(engines, 300)
    assert {o.error_type for o in rows} == {"connection"}
    assert took <= 10


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [([Fault("server", "boom", status=500)], 150), ([1e6, done("never")], 500), ([Fault("truncated", "cut")], 60)],
    ids=["broken", "silent", "cut"],
)
def test_two_routes_that_fail_otherwise_end_too(steps: list[Step], seconds: float) -> None:
    engines = [Timed(lambda at, row: steps), Timed(lambda at, row: steps, "b/m")]
    rows, _, took = run(engines, 300)
    assert {o.status for o in rows} == {"error"}
    assert took < seconds


def test_two_routes_of_which_one_comes_back() -> None:
    first = Timed(lambda at, row: [gone()] if at > 1 else [0.1, done("a")])
    second = Timed(lambda at, row: [gone()] if 10 < at < 40 else [0.3, done("b")], "b/m")
    rows, _, took = run([first, second], 1000, cap=4)
    assert {o.status for o in rows} == {"ok"}
    assert took < 40 + 9 + 1000 * 0.3 / 4


@pytest.mark.parametrize("spread", [True, False])
def test_where_another_route_serves_a_restart_costs_nothing(spread: bool) -> None:
    first = Timed(lambda at, row: [gone()] if 2 < at < 8 else [0.2, done("a")])
    engines = [first, Timed(lambda at, row: [0.2, done("b")], "b/m")]
    rows, _, took = run(engines, 400, Policy(retries=0), spread=spread, cap=4)
    assert {o.status for o in rows} == {"ok"}
    assert took < 400 * 0.2 / 4 + 2
    assert len([at for at in first.at if 2 < at < 8]) == 4, "those of one moment"


def test_equal_routes_that_restart_together_lose_no_row() -> None:
    def script(at: float, row: int) -> list[Step]:
        return [gone()] if 2 < at < 20 else [0.2, done("x")]

    rows, _, took = run([Timed(script), Timed(script, "b/m")], 400, spread=True, cap=4)
    assert {o.status for o in rows} == {"ok"}
    assert took < 45


def test_a_gateway_whose_server_restarts_is_waited_for() -> None:
    def script(at: float, row: int) -> list[Step]:
        return [0.02, Fault("server", "502: bad gateway", status=502)] if 2 < at < 30 else [0.2, done("a")]

    rows, _, _ = run([Timed(script)], 500, cap=16)
    assert [o.status for o in rows].count("ok") >= 495


def test_a_gateway_that_has_shown_no_server_is_asked_as_often_as_was_said() -> None:
    engine = Timed(lambda at, row: [0.02, Fault("server", "502: bad gateway", status=502)])
    rows, _, took = run([engine], 50, Policy(retries=2))
    assert {(o.error_type, o.error, o.attempts) for o in rows} == {("server", "502: bad gateway", 3)}
    assert took < 10


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_a_server_that_still_loads_is_waited_for(told: bool, restarts: bool) -> None:
    """llama.cpp listens before its model is loaded. Whether its 503 says so is known to `engines`."""

    def script(at: float, row: int) -> list[Step]:
        if restarts and 2 < at < 5:
            return [gone()]
        loads = at < 30 if not restarts else 2 < at < 30
        return [0.02, Fault("server", "503: Loading model", status=503, unreachable=told)] if loads else [0.2, done("a")]

    rows, _, took = run([Timed(script)], 100, cap=8)
    if told or restarts:
        assert {o.status for o in rows} == {"ok"}
        assert took < 45
    else:
        assert {o.error_type for o in rows} == {"server"}, "an overload that may last: each row has its retries"


def test_a_pool_that_ended_is_waited_for_and_fails_over_at_once_where_it_can() -> None:
    def ended() -> Fault:
        return Fault("connection", "pool/x is not running any more", retry=False, stops=True, unreachable=True)

    def script(at: float, row: int) -> list[Step]:
        return [ended()] if 2 < at < 30 else [0.2, done("a")]

    rows, _, _ = run([Timed(script, "pool/x")], 300, cap=4)
    assert {o.status for o in rows} == {"ok"}
    rows, _, took = run([Timed(lambda at, row: [ended()], "pool/x"), Timed(lambda at, row: [done("b")], "b/m")], 300)
    assert {o.route for o in rows} == {"b/m"}
    assert took < 1
    engine = Timed(lambda at, row: [ended()], "pool/x")
    rows, _, took = run([engine], 300)
    assert {o.error_type for o in rows} == {"connection"}
    assert (took < 1, len(engine.at) <= 8) == (True, True)


def test_a_row_that_breaks_its_connection_ends_after_its_retries() -> None:
    """A server that is there for the others: what fails is this row."""
    engine = Timed(lambda at, row: [0.05, Fault("connection", "closed without an answer")] if row == 5 else [0.05, done("a")])
    rows, _, _ = run([engine], 2000, cap=8)
    assert [i for i, o in enumerate(rows) if o.status != "ok"] == [5]
    assert rows[5].attempts == 4


def test_the_last_rows_that_break_their_connections_end_too() -> None:
    engine = Timed(lambda at, row: [0.05, Fault("connection", "closed without an answer")] if row % 2 else [0.05, done("a")])
    rows, _, took = run([engine], 40, cap=4)
    assert [o.status for o in rows] == ["ok", "error"] * 20
    assert took < 90


# -- servers that are silent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 40, 300])
def test_a_silent_server_costs_a_few_timeouts_not_one_for_each_row(n: int) -> None:
    engine = Timed(lambda at, row: [1e6, done("never")])
    rows, _, took = run([engine], n, Policy(Timeouts(silence=60.0)), cap=16)
    assert {o.error_type for o in rows} == {"timeout"}
    assert took < 5 * 60
    assert len(engine.at) < 40


def test_a_server_that_falls_silent_is_probed_and_comes_back() -> None:
    engine = Timed(lambda at, row: [1e6, done("never")] if 5 < at < 400 else [0.2, done("a")])
    rows, _, took = run([engine], 500, Policy(Timeouts(silence=60.0)), cap=8)
    assert {o.status for o in rows} == {"ok"}
    assert took < 500


def test_slow_rows_among_quick_ones_open_nothing_for_long() -> None:
    rng = random.Random(3)
    slow = {row for row in range(400) if rng.random() < 0.5}
    engine = Timed(lambda at, row: [1e6, done("never")] if row in slow else [5.0, done("a")])
    rows, _, _ = run([engine], 400, Policy(Timeouts(silence=60.0)), cap=8)
    assert {i for i, o in enumerate(rows) if o.status != "ok"} == slow


# -- whatever happens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("scene", ["gone", "refuses", "silent"])
def test_a_stop_ends_every_one_of_these_waits(scene: str, hard: bool) -> None:
    faults: dict[str, list[Step]] = {"gone": [gone()], "refuses": [refusal(20.0)], "silent": [1e6, done("never")]}
    engine = Timed(lambda at, row: faults[scene] if at > 1 else [0.2, done("a")])

    async def stop(scheduler: Scheduler) -> None:
        await asyncio.sleep(15)
        scheduler.stop(hard=hard)
        began = now()
        await scheduler._rows.finished.wait()
        assert now() - began <= 3.1

    rows, _, _ = run([engine], 100, during=stop, cap=4)
    assert {o.status for o in rows} == {"ok", "cancelled"}


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    n=st.integers(1, 40),
    routes=st.integers(1, 3),
    spread=st.booleans(),
    cap=st.sampled_from([1, 3, 16]),
    deadline=st.sampled_from([None, 50.0]),
    stop=st.sampled_from([None, 30.0]),
)
def test_each_row_ends_once_through_any_weather(
    seed: int, n: int, routes: int, spread: bool, cap: int, deadline: float | None, stop: float | None
) -> None:
    rng = random.Random(seed)
    weather = {
        name: [(rng.uniform(0, 120), rng.choice(["gone", "refuse", "silent", "server", "cut", "fine", "bad"])) for _ in range(4)]
        for name in "abc"[:routes]
    }

    def script(name: str) -> Callable[[float, int], Sequence[Step]]:
        def steps(at: float, row: int) -> Sequence[Step]:
            kind = next((kind for until, kind in weather[name] if at < until), "fine")
            return {
                "gone": [gone()],
                "refuse": [0.1, refusal(rng.choice([None, 0.5, 8.0, 40.0, 130.0]))],
                "silent": [1e6, done("never")],
                "server": [0.1, Fault("server", "boom", status=500)],
                "cut": ["half", Fault("truncated", "cut")],
                "bad": [0.1, Fault("bad_request", "no", status=400)],
                "fine": [0.3, done("x")],
            }[kind]

        return steps

    async def during(scheduler: Scheduler) -> None:
        if stop is not None:
            await asyncio.sleep(stop)
            scheduler.stop()

    engines = [Timed(script(name), f"{name}/m") for name in weather]
    policy = Policy(Timeouts(silence=10.0), deadline=deadline)
    rows, journal, _ = run(engines, n, policy, spread=spread and routes > 1, cap=cap, during=during)
    assert sum(o.attempts for o in rows) == sum(len(e.at) for e in engines)
    assert all(isinstance(e.wait, float | int | None) for e in journal.events_since(0)[0] if isinstance(e, Failed))
