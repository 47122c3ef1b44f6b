"""Whether and when the same endpoint is asked again: what a server asked for, growing waits that differ, and an end."""

from __future__ import annotations

import pytest

from holynb.errors import Fault
from holynb.scheduler.failover import WorkItem
from holynb.scheduler.retry import LONGEST_BACKOFF_S, LONGEST_WAIT_S, Policy, backoff, pause, too_long
from holynb.types import Message, Request, Route


def job() -> WorkItem:
    return WorkItem(Request(0, (Message("user", "x"),), Route("test", "model")), ("test/model",))


def test_the_wait_that_a_server_asks_for_is_kept_to() -> None:
    assert pause(job(), Fault("server", "busy", wait=7.5), Policy()) == 7.5
    assert pause(job(), Fault("server", "busy", wait=LONGEST_WAIT_S), Policy()) == LONGEST_WAIT_S


@pytest.mark.parametrize(
    "fault",
    [Fault("server", "tomorrow", wait=LONGEST_WAIT_S + 1), Fault("bad_request", "no", retry=False), Fault("auth", "no", stops=True)],
    ids=["too long a wait", "no retry", "stops"],
)
def test_what_is_not_asked_again_uses_no_retry(fault: Fault) -> None:
    one = job()
    assert pause(one, fault, Policy()) is None
    assert one.faults == 0
    assert too_long(fault) is ((fault.wait or 0) > LONGEST_WAIT_S)


def test_after_its_retries_there_is_no_more() -> None:
    one = job()
    waits = [pause(one, Fault("server", "boom"), Policy(retries=2)) for _ in range(3)]
    assert [w is None for w in waits] == [False, False, True]


@pytest.mark.parametrize(
    ("k", "most"), [(1, 1.0), (3, 4.0), (5, 16.0), (6, LONGEST_BACKOFF_S), (9, LONGEST_BACKOFF_S), (5000, LONGEST_BACKOFF_S)]
)
def test_waits_double_up_to_the_longest_and_differ(k: int, most: float) -> None:
    waits = [backoff(k, Policy()) for _ in range(400)]
    assert 0 <= min(waits) < 0.2 * most, "full jitter: from nothing on"
    assert 0.8 * most < max(waits) <= most
    assert len(set(waits)) > 300
    assert max(backoff(k, Policy(backoff=0.01)) for _ in range(50)) <= 0.01 * most
