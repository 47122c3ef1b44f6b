"""How a cost is said: one word for each case, the same in every room."""

from __future__ import annotations

from decimal import Decimal

import pytest

from holynb.results import cost_text, dollars
from holynb.types import Route


@pytest.mark.parametrize(
    ("amount", "route", "text"),
    [
        (None, "openai/gpt-4.1", "?"),
        (None, None, "?"),
        (None, "pool/qwen", "free"),
        (None, "vllm/qwen", "?"),
        (None, "sim/echo", "?"),
        (Decimal("0.42"), "openai/gpt-4.1", "$0.42"),
        (Decimal("0.42"), "pool/qwen", "$0.42"),
        (Decimal("0.42"), "sim/echo", "$0.42 simulated"),
        (Decimal("0.42"), "demo/smollm2-135m", "$0.42 simulated"),
        (Decimal(0), "sim/echo", "$0.00"),
        (Decimal(0), "openai/gpt-4.1", "$0.00"),
    ],
)
def test_one_word_for_each_case(amount: Decimal | None, route: str | None, text: str):
    assert cost_text(amount, route) == text
    assert route is None or cost_text(amount, Route.parse(route)) == text


def test_unknown_costs_stand_beside_a_sum_and_are_no_part_of_it():
    assert cost_text(Decimal("0.42"), unknown=1_234) == "$0.42 + 1,234 unknown"
    assert cost_text(Decimal("0.42"), "sim/echo", unknown=2) == "$0.42 simulated + 2 unknown"
    assert cost_text(None, "a/b", unknown=3) == "?"


def test_a_column_whose_caption_tells_simulated_dollars_leaves_the_word():
    assert cost_text(Decimal("0.42"), "sim/echo", mark=False) == "$0.42"
    assert cost_text(None, "pool/x", mark=False) == "free"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "?"),
        (0, "$0.00"),
        (Decimal("0.42"), "$0.42"),
        (Decimal("1234"), "$1,234.00"),
        (Decimal("0.0123"), "$0.012"),
        (Decimal("0.000123"), "$0.00012"),
    ],
)
def test_dollars(amount: Decimal | None, text: str):
    assert dollars(amount) == text
