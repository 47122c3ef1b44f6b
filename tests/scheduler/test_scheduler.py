"""The scheduler: every row ends once, whatever the engines, the limits and the person do."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal

import pytest
from engines_fake import Scripted, Step, always, done
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduled import FAST, drive, ends, request

from holynb.errors import KINDS, Fault
from holynb.events import Failed, Paused, Started
from holynb.scheduler.budget import Money
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.retry import Policy
from holynb.scheduler.scheduler import Scheduler
from holynb.types import Timeouts


def test_the_next_route_has_all_retries_of_its_own():
    first = Scripted(always(Fault("server", "boom")), "a/x")
    second = Scripted(lambda row, attempt: [Fault("server", "boom")] if attempt <= FAST.retries else [done("late")], "b/y")
    (row,) = ends(drive([first, second], 1)[0])
    assert (row.status, row.text, row.route) == ("ok", "late", "b/y")
    assert (first.seen[0], second.seen[0], row.attempts) == (FAST.retries + 1, FAST.retries + 1, 2 * FAST.retries + 2)


def test_rows_come_back_with_text_tokens_cost_and_latency():
    engine = Scripted(lambda row, attempt: ["a", "b", done(f"answer {row}", tokens_in=3, tokens_out=2)])
    journal, _ = drive([engine], 20)
    rows = ends(journal)
    assert [o.text for o in rows] == [f"answer {i}" for i in range(20)]
    assert {(o.status, o.attempts, o.usage.tokens_in, o.cost, o.model, o.finish_reason) for o in rows} == {
        ("ok", 1, 3, Decimal("0.5"), "model-of-the-server", "stop")
    }
    assert all(o.latency_s is not None and o.ttft_s is not None and 0 <= o.ttft_s <= o.latency_s for o in rows)


def test_an_answer_that_was_not_streamed_has_no_time_to_first_token():
    journal, _ = drive([Scripted(always(done("x")))], 1)
    assert ends(journal)[0].ttft_s is None


def test_never_more_at_once_than_the_window():
    engine = Scripted(always(0.01, done("x")))
    drive([engine], 40, cap=5)
    assert engine.most == 5


def test_a_fault_is_tried_again_and_counted():
    engine = Scripted(lambda row, attempt: [Fault("server", "boom")] if attempt < 3 else [done("at last")])
    journal, _ = drive([engine], 3)
    assert [(o.status, o.attempts) for o in ends(journal)] == [("ok", 3)] * 3
    assert sum(isinstance(e, Failed) and e.kind == "server" for e in journal.events_since(0)[0]) == 6
    assert sum(engine.seen.values()) == 9


def test_retries_are_attempts_after_the_first():
    engine = Scripted(always(Fault("server", "boom")))
    journal, _ = drive([engine], 1, Policy(retries=2))
    (row,) = ends(journal)
    assert (row.status, row.error_type, row.error, row.attempts) == ("error", "server", "boom", 3)
    assert engine.seen[0] == 3


def test_what_cannot_be_cured_is_asked_once():
    kinds = ["content_filter", "context_length", "bad_request", "not_found"]
    engine = Scripted(lambda row, attempt: [Fault(kinds[row], "no")])
    journal, _ = drive([engine], 4)
    assert [(o.error_type, o.attempts) for o in ends(journal)] == [(k, 1) for k in kinds]


def test_waiting_out_a_429_uses_up_no_attempt_of_the_budget():
    engine = Scripted(lambda row, attempt: [Fault("rate_limit", "slow down", wait=0.001)] if attempt <= 8 else [done("ok")])
    journal, _ = drive([engine], 1, Policy(retries=0))
    assert [(o.status, o.attempts) for o in ends(journal)] == [("ok", 9)]
    assert sum(isinstance(e, Failed) and e.wait is not None for e in journal.events_since(0)[0]) == 8


def test_a_single_429_delays_its_own_row_alone():
    seen: list[tuple[int, float]] = []

    def script(row: int, attempt: int) -> list[Step]:
        seen.append((row, time.perf_counter()))
        return [Fault("rate_limit", "wait", wait=0.2)] if len(seen) == 1 else [done("ok")]

    drive([Scripted(script)], 6, cap=1)
    assert [row for row, _ in seen] == [0, 1, 2, 3, 4, 5, 0]
    assert seen[-1][1] - seen[0][1] >= 0.19
    assert seen[-2][1] - seen[0][1] < 0.19


def test_when_all_are_refused_everybody_waits():
    seen: list[float] = []

    def script(row: int, attempt: int) -> list[Step]:
        seen.append(time.perf_counter())
        return [0.01, Fault("rate_limit", "wait", wait=0.2)] if len(seen) <= 16 else [done("ok")]

    journal, _ = drive([Scripted(script)], 40, cap=16)
    assert {o.status for o in ends(journal)} == {"ok"}
    assert any(isinstance(e, Paused) for e in journal.events_since(0)[0])
    assert seen[16] - seen[0] >= 0.19


def test_a_wait_that_is_too_long_ends_the_rows_and_sends_nothing_more():
    engine = Scripted(always(Fault("rate_limit", "come back tomorrow", wait=40_000)))
    journal, _ = drive([engine], 50, cap=1)
    assert {o.error_type for o in ends(journal)} == {"rate_limit"}
    assert sum(engine.seen.values()) == 1


def test_a_refused_key_costs_one_request_not_all():
    engine = Scripted(always(0.02, Fault("auth", "key refused", stops=True)))
    journal, _ = drive([engine], 200, cap=64, verified=False)
    rows = ends(journal)
    assert {(o.status, o.error_type, o.error) for o in rows} == {("error", "auth", "key refused")}
    assert sum(engine.seen.values()) == 1
    assert sum(o.attempts for o in rows) == 1


def test_silence_is_a_timeout_and_content_resets_it():
    engine = Scripted(lambda row, attempt: [0.5, done("late")] if row == 0 else ["a", 0.2, "b", 0.2, done("ab")])
    journal, _ = drive([engine], 2, Policy(Timeouts(silence=0.35), retries=0))
    slow, steady = ends(journal)
    assert (slow.status, slow.error_type) == ("error", "timeout")
    assert "--timeout" in (slow.error or "")
    assert (steady.status, steady.text) == ("ok", "ab")


def test_an_empty_delta_is_a_sign_of_work_but_not_the_first_token():
    engine = Scripted(always("", 0.2, "", 0.2, "x", done("x")))
    journal, _ = drive([engine], 1, Policy(Timeouts(silence=0.35), retries=0))
    (row,) = ends(journal)
    assert row.status == "ok"
    assert row.ttft_s is not None and row.ttft_s >= 0.39


def test_an_engine_that_ends_without_an_answer_has_truncated_it():
    journal, _ = drive([Scripted(always("half"))], 1, Policy(retries=0))
    assert ends(journal)[0].error_type == "truncated"


def test_the_deadline_ends_what_is_left():
    engine = Scripted(lambda row, attempt: [done("quick")] if row == 0 else [9.0, done("never")])
    journal, _ = drive([engine], 30, Policy(deadline=0.2), cap=4)
    rows = ends(journal)
    assert rows[0].status == "ok"
    assert {(o.status, o.error_type) for o in rows[1:]} == {("error", "deadline")}


def test_stop_lets_those_in_flight_finish_and_sends_no_more():
    engine = Scripted(always("par", 0.05, "tial", done("partial")))

    async def stop(scheduler: Scheduler) -> None:
        await asyncio.sleep(0.02)
        scheduler.stop()

    journal, _ = drive([engine], 100, Policy(grace=2.0), during=stop, cap=4)
    rows = ends(journal)
    assert [o.status for o in rows].count("ok") == 4
    assert [o.status for o in rows].count("cancelled") == 96
    assert sum(engine.seen.values()) == 4


def test_after_the_grace_what_was_said_is_kept():
    engine = Scripted(always("what there was", 9.0, done("never")))

    async def stop(scheduler: Scheduler) -> None:
        await asyncio.sleep(0.05)
        scheduler.stop()

    started = time.perf_counter()
    journal, _ = drive([engine], 10, Policy(grace=0.1), during=stop, cap=4)
    assert time.perf_counter() - started < 8, "its engine takes nine seconds"
    rows = ends(journal)
    assert {o.status for o in rows} == {"cancelled"}
    assert [o.text for o in rows][:4] == ["what there was"] * 4
    assert [o.text for o in rows][4:] == [None] * 6
    assert [o.attempts for o in rows] == [1] * 4 + [0] * 6
    assert len({o.route for o in rows[:4]}) == 1, "who was asked, and may send a bill"
    assert rows[0].route is not None
    assert {o.route for o in rows[4:]} == {None}
    assert engine.flying == 0


def test_a_hard_stop_ends_at_once():
    engine = Scripted(always(9.0, done("never")))

    async def stop(scheduler: Scheduler) -> None:
        await asyncio.sleep(0.05)
        scheduler.stop()
        scheduler.stop(hard=True)

    started = time.perf_counter()
    journal, _ = drive([engine], 10, Policy(grace=30), during=stop)
    assert time.perf_counter() - started < 8, "its engine takes nine seconds"
    assert {o.status for o in ends(journal)} == {"cancelled"}


def test_a_stop_while_paused_ends_the_queued_rows_too():
    engine = Scripted(always(Fault("rate_limit", "wait", wait=60)))

    async def stop(scheduler: Scheduler) -> None:
        await asyncio.sleep(0.05)
        scheduler.stop()

    journal, _ = drive([engine], 20, during=stop)
    assert {o.status for o in ends(journal)} == {"cancelled"}


def test_a_fault_of_ours_ends_its_row_and_is_kept():
    engine = Scripted(lambda row, attempt: [RuntimeError("bug")] if row == 1 else [done("ok")])
    journal, scheduler = drive([engine], 3)
    assert [o.status for o in ends(journal)] == ["ok", "error", "ok"]
    assert journal.rows[1] is not None and journal.rows[1].error_type == "internal"
    assert isinstance(scheduler.error, RuntimeError)


def test_failover_moves_the_row_and_says_who_answered_and_why():
    down = Scripted(always(Fault("server", "it is down")), "a/m")
    up = Scripted(always(done("from b")), "b/m")
    journal, _ = drive([down, up], 1, Policy(retries=1))
    (row,) = ends(journal)
    assert (row.status, row.route, row.attempts, row.error_type) == ("ok", "b/m", 3, None)
    assert row.error == "moved: a/m: it is down"


def test_a_row_that_moved_asks_for_the_model_that_serves_there():
    routes: list[str] = []

    class Noting(Scripted):
        async def send(self, request, timeouts):
            routes.append(str(request.route))
            async for item in super().send(request, timeouts):
                yield item

    drive([Noting(always(Fault("server", "down")), "a/big"), Noting(always(done("x")), "b/other")], 1, Policy(retries=0))
    assert routes == ["a/big", "b/other"]


def test_a_dead_endpoint_is_soon_left_alone_and_probed_one_at_a_time():
    down = Scripted(always(Fault("server", "down")), "a/m")
    up = Scripted(always(0.005, done("from b")), "b/m")
    journal, _ = drive([down, up], 300, Policy(retries=3), cap=4, cooldown=0.1)
    assert {o.route for o in ends(journal)} == {"b/m"}
    probes = sum(down.seen.values())
    assert 5 <= probes <= 20, "five in a row open the circuit; then one probe a tenth of a second"


def test_an_endpoint_that_comes_back_gets_its_rows_back():
    def script(row: int, attempt: int) -> list[Step]:
        return [Fault("server", "down")] if asyncio.get_running_loop().time() < 1020 else [0.1, done("from a")]

    back = Scripted(script, "a/m")
    slow = Scripted(always(2.0, done("from b")), "b/m")
    journal, _ = drive([back, slow], 200, Policy(retries=5), cap=2, virtual=True)
    routes = [o.route for o in ends(journal)]
    assert routes.count("a/m") > routes.count("b/m") > 0


def test_when_all_are_cooling_down_the_first_to_be_back_is_waited_for():
    began = time.perf_counter()

    def script(row: int, attempt: int) -> list[Step]:
        return [Fault("server", "down")] if time.perf_counter() - began < 0.25 else [done("back")]

    journal, _ = drive([Scripted(script, "a/m"), Scripted(script, "b/m")], 20, Policy(retries=50), cap=4, cooldown=0.1)
    assert {o.status for o in ends(journal)} == {"ok"}


def test_equal_routes_share_the_rows_by_how_fast_they_are():
    quick = Scripted(always(0.01, done("a")), "a/m")
    slow = Scripted(always(0.04, done("b")), "b/m")
    journal, _ = drive([quick, slow], 100, cap=2, spread=True)
    assert {o.status for o in ends(journal)} == {"ok"}
    assert sum(quick.seen.values()) > 2 * sum(slow.seen.values()) > 0


def test_never_more_at_once_over_all_endpoints_than_was_said():
    flying, most = 0, 0

    class Counting(Scripted):
        async def send(self, request, timeouts):
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            try:
                async for item in super().send(request, timeouts):
                    yield item
            finally:
                flying -= 1

    engines = [Counting(always(0.003, done("x")), f"{name}/m") for name in "abc"]
    journal, _ = drive(engines, 60, Policy(max_in_flight=3), spread=True, cap=8)
    assert {o.status for o in ends(journal)} == {"ok"}
    assert most == 3


def test_one_of_two_equal_routes_with_a_refused_key_leaves_its_rows_to_the_other():
    refused = Scripted(always(Fault("auth", "refused", stops=True)), "a/m")
    up = Scripted(always(0.001, done("b")), "b/m")
    journal, _ = drive([refused, up], 50, spread=True, verified=False)
    assert {(o.status, o.route) for o in ends(journal)} == {("ok", "b/m")}
    assert sum(refused.seen.values()) == 1


def test_a_key_refused_at_the_first_route_moves_every_row_after_one_request():
    refused = Scripted(always(Fault("auth", "refused", stops=True)), "a/m")
    up = Scripted(always(done("from b")), "b/m")
    journal, _ = drive([refused, up], 40, verified=False)
    assert {o.route for o in ends(journal)} == {"b/m"}
    assert sum(refused.seen.values()) == 1
    assert sum(up.seen.values()) == 40


def test_rows_that_ask_the_same_share_one_answer():
    engine = Scripted(always(done("same", tokens_out=4)))
    items = [WorkItem(request(0), ("test/model",), followers=[1, 2])]
    journal, _ = drive([engine], 3, items=items)
    rows = ends(journal)
    assert [o.text for o in rows] == ["same"] * 3
    assert [(o.attempts, o.cost, o.cached) for o in rows] == [(1, Decimal("0.5"), False), (0, 0, True), (0, 0, True)]


def test_what_shares_an_answer_of_unknown_cost_has_none_either():
    items = [WorkItem(request(0), ("test/model",), followers=[1, 2])]
    journal, _ = drive([Scripted(always(done("same", tokens_out=4)))], 3, items=items, money=Money(lambda *a: None))
    assert [(o.cost, o.cached) for o in ends(journal)] == [(None, False), (None, True), (None, True)]


def test_a_row_that_failed_by_bad_luck_does_not_fail_those_that_ask_the_same():
    engine = Scripted(lambda row, attempt: [Fault("server", "down")] if row == 0 else [done("ok")])
    items = [WorkItem(request(0), ("test/model",), followers=[1, 2])]
    journal, _ = drive([engine], 3, Policy(retries=1), items=items)
    assert [o.status for o in ends(journal)] == ["error", "ok", "ok"]


def test_what_the_request_itself_causes_is_shared():
    engine = Scripted(always(Fault("content_filter", "no")))
    items = [WorkItem(request(0), ("test/model",), followers=[1, 2])]
    journal, _ = drive([engine], 3, items=items)
    assert [(o.status, o.attempts) for o in ends(journal)] == [("error", 1), ("error", 0), ("error", 0)]
    assert sum(engine.seen.values()) == 1


def test_the_cost_of_failed_attempts_counts():
    from holynb.types import Usage

    engine = Scripted(
        lambda row, attempt: [Fault("truncated", "cut", usage=Usage(tokens_in=1))] if attempt == 1 else [done("ok", tokens_in=1)]
    )
    journal, _ = drive([engine], 1)
    (row,) = ends(journal)
    assert (row.cost, row.usage.tokens_in) == (Decimal("1.0"), 2)


def test_attempts_equal_the_requests_the_engine_saw():
    rng = random.Random(7)
    plan = {row: [rng.choice(["ok", "server", "truncated"]) for _ in range(3)] for row in range(60)}
    plan[7] = plan[30] = ["rate_limit", "rate_limit", "server"]

    def script(row: int, attempt: int) -> list[Step]:
        kind = plan[row][attempt - 1] if attempt <= 3 else "ok"
        return [done("x")] if kind == "ok" else [Fault(kind, "bad luck", wait=0.001)]

    engine = Scripted(script)
    journal, _ = drive([engine], 60)
    rows = ends(journal)
    assert {o.status for o in rows} == {"ok"}
    assert [o.attempts for o in rows] == [engine.seen[i] for i in range(60)]
    assert sum(isinstance(e, Started) for e in journal.events_since(0)[0]) == sum(engine.seen.values())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["ok", "delta", "wait", *KINDS]), min_size=1, max_size=4), min_size=1, max_size=12),
    st.sampled_from([None, "soft", "hard"]),
    st.integers(1, 4),
)
def test_whatever_happens_each_row_ends_once(plan: list[list[str]], stop: str | None, cap: int):
    def script(row: int, attempt: int) -> list[Step]:
        kind = plan[row][min(attempt - 1, len(plan[row]) - 1)] if attempt < 6 else "ok"
        steps: dict[str, list[Step]] = {"ok": [done("x")], "delta": ["text"], "wait": [0.02, done("y")]}
        return steps.get(kind) or [Fault(kind if kind in KINDS else "server", kind, wait=0.001, stops=kind in ("auth", "quota"))]

    async def during(scheduler: Scheduler) -> None:
        await asyncio.sleep(0.01)
        if stop:
            scheduler.stop(hard=stop == "hard")

    engine = Scripted(script)
    journal, scheduler = drive([engine], len(plan), Policy(Timeouts(silence=1), retries=1, grace=0.05), during=during, cap=cap)
    rows = ends(journal)
    assert scheduler.error is None
    assert engine.flying == 0
    assert all((o.text is not None) == (o.status == "ok") or o.status == "cancelled" for o in rows)
    assert not journal.partial_texts()


@pytest.mark.parametrize("n", [0, 1])
def test_small_runs_end(n: int):
    journal, _ = drive([Scripted(always(done("x")))], n)
    assert len(ends(journal)) == n
