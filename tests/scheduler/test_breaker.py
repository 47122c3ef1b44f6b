"""The circuit breaker: opens after faults in a row, lets one probe through after its cooldown, closes at an answer."""

from __future__ import annotations

from holynb.scheduler.breaker import Breaker


def test_faults_in_a_row_open_it_and_an_answer_in_between_does_not():
    breaker = Breaker(limit=3, cooldown=10)
    assert not any(breaker.record_failure("server", 0.0) for _ in range(2))
    breaker.record_success()
    assert not any(breaker.record_failure("server", 0.0) for _ in range(2))
    assert breaker.record_failure("timeout", 1.0)
    assert breaker.is_open(5.0)
    assert not breaker.half_open(5.0)


def test_after_the_cooldown_one_probe_decides():
    breaker = Breaker(limit=1, cooldown=10)
    breaker.record_failure("server", 0.0)
    assert breaker.probe_at() == 10.0
    assert breaker.half_open(10.0)
    assert not breaker.is_open(10.0)
    assert breaker.record_failure("server", 11.0), "a probe that fails opens it again"
    assert breaker.is_open(20.9)
    breaker.record_success()
    assert breaker.probe_at() is None


def test_what_is_the_requests_fault_or_our_pace_does_not_count():
    breaker = Breaker(limit=1)
    assert not any(breaker.record_failure(kind, 0.0) for kind in ("rate_limit", "content_filter", "context_length", "bad_request", "auth"))
    assert breaker.opened_at is None
