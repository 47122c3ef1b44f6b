"""Estimates against bills: the bill lies in the range, and the range is narrow once a few answers were seen."""

from __future__ import annotations

import random
import re
from decimal import Decimal

import pytest

from holynb.pricing import prices
from holynb.pricing.estimate import MeasuredAnswer, estimate
from holynb.types import Message, Request, Route, Sampling, Usage

ROUTE = Route("openai", "gpt-4.1")
KINDS = ("Classify this review as good or bad: {}", "Summarise in one sentence:\n\n{}", '{{"task": "extract", "text": "{}"}}')
pytestmark = pytest.mark.usefixtures("no_project")


def asks(n: int, rng: random.Random, max_tokens: int = 60) -> list[Request]:
    """Rows of three kinds, in English and Korean."""
    words = [
        "the",
        "parcel",
        "came",
        "late",
        "but",
        "support",
        "was",
        "kind",
        "and",
        "the",
        "price",
        "fair",
        "배송이",
        "늦었지만",
        "고객센터가",
        "친절했어요",
        "가격도",
        "적당하고",
        "품질이",
        "좋아요",
    ]
    out = []
    for row in range(n):
        body = " ".join(rng.choices(words, k=rng.randrange(20, 200)))
        out.append(Request(row, (Message("user", rng.choice(KINDS).format(body)),), ROUTE, Sampling(max_tokens=max_tokens)))
    return out


def server(request: Request, rng: random.Random) -> Usage:
    """What a server counts that splits words into pieces of four letters, Hangul into syllables, and answers as its kind of prompt asks."""
    text = request.messages[-1].content
    pieces = re.findall(r"[가-힣]|[a-z]{1,4}|[^\sa-z가-힣]", text.lower())
    answer = (
        rng.randrange(1, 4)
        if text.startswith("Classify")
        else rng.randrange(20, 45)
        if text.startswith("Summarise")
        else rng.randrange(30, 70)
    )
    return Usage(len(pieces) + 7, min(answer, request.sampling.max_tokens))


@pytest.mark.parametrize("seed", range(5))
def test_the_bill_of_five_hundred_rows_lies_in_a_range_no_wider_than_two(seed):
    rng = random.Random(seed)
    first, rest = asks(20, rng), asks(500, rng)
    seen = [MeasuredAnswer(ROUTE, r.messages, server(r, rng)) for r in first]
    guess = estimate(rest, seen)
    bill = sum(prices.price(ROUTE, None, server(r, rng)) for r in rest)
    low, high = guess.cost
    assert low <= bill <= high
    assert high <= 2 * low
    assert guess.measured == 20


@pytest.mark.parametrize("seed", range(5))
def test_without_a_measured_answer_the_bill_still_lies_in_the_range(seed):
    rng = random.Random(seed)
    rows = asks(500, rng)
    guess = estimate(rows)
    usages = [server(r, rng) for r in rows]
    assert guess.tokens_in[0] <= sum(u.tokens_in for u in usages) <= guess.tokens_in[1]
    assert guess.tokens_out[0] <= sum(u.tokens_out for u in usages) <= guess.tokens_out[1] == 500 * 60
    assert guess.cost[0] <= sum(prices.price(ROUTE, None, u) for u in usages) <= guess.cost[1]
    assert guess.measured == 0


def test_two_answers_are_too_few_to_go_by():
    rng = random.Random(1)
    rows = asks(50, rng)
    assert estimate(rows, [MeasuredAnswer(ROUTE, r.messages, server(r, rng)) for r in rows[:2]]) == estimate(rows)
    assert estimate(rows, [MeasuredAnswer(ROUTE, r.messages, Usage(None, 3)) for r in rows]) == estimate(rows)
    assert estimate(rows, [MeasuredAnswer(Route("openai", "other"), r.messages, server(r, rng)) for r in rows]) == estimate(rows)


def test_longest_answers_bound_the_estimate():
    rng = random.Random(1)
    short = asks(50, rng, max_tokens=5)
    seen = [MeasuredAnswer(ROUTE, r.messages, Usage(50, 400)) for r in short]
    assert estimate(short, seen).tokens_out == (250, 250)


def test_an_unknown_price_is_an_unknown_cost():
    rows = [Request(0, (Message("user", "x"),), ROUTE, Sampling(max_tokens=9)), Request(1, (Message("user", "x"),), Route("vllm", "m"))]
    guess = estimate(rows)
    assert guess.cost is None
    assert guess.unpriced == (Route("vllm", "m"),)
    assert guess.tokens_in[1] > 0


def test_rows_that_ask_nothing_cost_nothing():
    assert estimate([None, None]).cost == (Decimal(0), Decimal(0))
    assert estimate([]).rows == 0


def test_the_time_that_limits_allow():
    guess = estimate([Request(i, (Message("user", "x"),), ROUTE, Sampling(max_tokens=83)) for i in range(300)])
    assert guess.seconds(None, None) is None
    assert guess.seconds(600, None) == 30.0
    assert guess.seconds(600, 1000) == pytest.approx((guess.tokens_in[1] + 300 * 83) * 60 / 1000)
