"""The circuit breaker: opens after faults in a row or at a refusal, lets one probe through after a wait, closes at an answer."""

from __future__ import annotations

from holynb.scheduler.breaker import ABSENT_KINDS, Breaker


def test_faults_in_a_row_open_it_and_an_answer_in_between_does_not():
    breaker = Breaker(limit=3, cooldown=10)
    assert not any(breaker.record_failure("server", 0.0) for _ in range(2))
    breaker.record_success()
    assert not any(breaker.record_failure("server", 0.0) for _ in range(2))
    assert breaker.record_failure("timeout", 1.0)
    assert breaker.is_open


def test_rows_that_have_somewhere_else_to_go_wait_for_the_cooldown_and_others_for_growing_times():
    breaker = Breaker(limit=1, cooldown=30)
    breaker.record_failure("connection", 100.0)
    waits = []
    for _ in range(6):
        assert breaker.opened_at is not None
        waits.append((breaker.probe_at(needed=True) or 0) - breaker.opened_at)
        assert breaker.probe_at(needed=False) == breaker.opened_at + 30
        breaker.record_failed_probe(breaker.opened_at + 50)
    assert waits == [1, 2, 4, 8, 8, 8]
    assert (breaker.failing_since, breaker.failed_probes) == (100.0, 6)
    breaker.record_success()
    assert (breaker.probe_at(needed=True), breaker.failing_since, breaker.failed_probes) == (None, None, 0)


def test_while_a_server_refuses_it_is_probed_when_it_said():
    breaker = Breaker()
    breaker.refuse(100.0, 20.0)
    assert breaker.is_open and breaker.refusing
    assert (breaker.probe_at(needed=True), breaker.probe_at(needed=False)) == (120.0, 120.0)
    breaker.record_failed_probe(120.0)
    breaker.refuse(120.0, 0.1)
    assert breaker.probe_at(needed=False) == 122.0, "not as often as it refuses"
    breaker.record_success()
    assert not breaker.is_open and not breaker.refusing


def test_what_is_the_requests_fault_or_our_pace_does_not_count():
    breaker = Breaker(limit=1)
    assert not any(breaker.record_failure(kind, 0.0) for kind in ("rate_limit", "content_filter", "context_length", "bad_request", "auth"))
    assert breaker.opened_at is None


def test_a_lone_endpoint_is_closed_by_absence_alone_and_one_proof_is_enough():
    breaker = Breaker(limit=2)
    breaker.kinds = ABSENT_KINDS
    assert not any(breaker.record_failure("server", 0.0) for _ in range(9))
    assert breaker.record_failure("connection", 0.0, certain=True)
