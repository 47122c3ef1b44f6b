"""Whether and when the same endpoint is asked again: what a server asked for, growing waits that differ, and an end."""

from __future__ import annotations

import pytest

from holynb.errors import Fault
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.retry import MAX_BACKOFF_S, MAX_WAIT_S, Policy, backoff, exceeds_max_wait, retry_delay
from holynb.types import Message, Request, Route


def new_item() -> WorkItem:
    return WorkItem(Request(0, (Message("user", "x"),), Route("test", "model")), ("test/model",))


def test_the_wait_that_a_server_asks_for_is_kept_to() -> None:
    assert retry_delay(new_item(), Fault("server", "busy", wait=7.5), Policy()) == 7.5
    assert retry_delay(new_item(), Fault("server", "busy", wait=MAX_WAIT_S), Policy()) == MAX_WAIT_S


@pytest.mark.parametrize(
    "fault",
    [Fault("server", "tomorrow", wait=MAX_WAIT_S + 1), Fault("bad_request", "no", retry=False), Fault("auth", "no", stops=True)],
    ids=["too long a wait", "no retry", "stops"],
)
def test_what_is_not_asked_again_uses_no_retry(fault: Fault) -> None:
    one = new_item()
    assert retry_delay(one, fault, Policy()) is None
    assert one.faults == 0
    assert exceeds_max_wait(fault) is ((fault.wait or 0) > MAX_WAIT_S)


def test_after_its_retries_there_is_no_more() -> None:
    one = new_item()
    waits = [retry_delay(one, Fault("server", "boom"), Policy(retries=2)) for _ in range(3)]
    assert [w is None for w in waits] == [False, False, True]


@pytest.mark.parametrize(
    ("attempt", "most"), [(1, 1.0), (3, 4.0), (5, 16.0), (6, MAX_BACKOFF_S), (9, MAX_BACKOFF_S), (5000, MAX_BACKOFF_S)]
)
def test_waits_double_up_to_the_longest_and_differ(attempt: int, most: float) -> None:
    waits = [backoff(attempt, Policy()) for _ in range(400)]
    assert 0 <= min(waits) < 0.2 * most, "full jitter: from nothing on"
    assert 0.8 * most < max(waits) <= most
    assert len(set(waits)) > 300
    assert max(backoff(attempt, Policy(backoff_scale=0.01)) for _ in range(50)) <= 0.01 * most
