"""Headers about quotas: real ones, and nonsense."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.engines import quotas
from holynb.types import Limits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("100ms", 0.1),
        ("1h2m3.5s", 3723.5),
        ("2d", 172800.0),
        ("37", 37.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("-5s", None),
        ("inf", None),
        ("nan", None),
        ("1x", None),
        ("1s nonsense", None),
        ("1.5.2s", None),
    ],
)
def test_durations(text: str | None, expected: float | None):
    assert quotas.seconds(text) == expected


def test_moments():
    now = 1_800_000_000.0
    assert quotas.seconds("1800000030", now) == 30.0
    assert quotas.seconds("1800000030000", now) == 30.0
    assert quotas.seconds("2027-01-15T08:00:30Z", now) == 30.0
    assert quotas.seconds("Fri, 15 Jan 2027 08:00:30 GMT", now) == 30.0
    assert quotas.seconds("2020-01-01T00:00:00Z", now) == 0.0


def test_openai_limits():
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "598",
        "x-ratelimit-reset-requests": "200ms",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert quotas.openai(headers) == Limits(600, 598, 0.2, 150000, 149984, 360.0)
    assert quotas.openai({}) is None
    assert quotas.openai({"x-ratelimit-remaining-tokens": "5"}) == Limits(tokens_left=5)


@pytest.mark.parametrize(("limit", "left"), [("-1", "0"), ("0", "0"), ("-1", "-1"), ("600", "-1"), ("many", "few"), ("inf", "nan")])
def test_limits_that_are_none(limit: str, left: str):
    assert quotas.openai({"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": left}) is None


def test_a_bare_zero_is_azures_way_to_say_nothing():
    assert quotas.openai({"x-ratelimit-remaining-requests": "0"}) is None
    assert quotas.openai({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}) == Limits(
        requests_left=0, requests_reset=1.0
    )


def test_anthropic_limits_count_from_their_dates():
    then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 30))
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": then,
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
    }
    limits = quotas.anthropic(headers)
    assert limits is not None
    assert (limits.requests, limits.requests_left, limits.tokens, limits.tokens_left) == (50, 49, 40000, 39000)
    assert limits.requests_reset is not None
    assert 27 < limits.requests_reset <= 30


@given(
    st.dictionaries(
        st.sampled_from([f"x-ratelimit-{a}-{b}" for a in ("limit", "remaining", "reset") for b in ("requests", "tokens")]), st.text()
    )
)
def test_nonsense_never_raises(headers: dict[str, str]):
    limits = quotas.openai(headers)
    assert limits is None or limits != Limits()


@given(st.text())
def test_words_never_raise(text: str):
    assert quotas.retry_in_words(text) is None or "retry" in text.lower() or "try again" in text.lower()
    assert quotas.wait({"retry-after": text, "retry-after-ms": text, "date": text}) is None or text.strip()
