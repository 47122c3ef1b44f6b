"""Figures are said with three digits, memory in GB; the page says them alike."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.units import memory, three_digits


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (89558.1, "89,600"),
        (1234, "1,230"),
        (100, "100"),
        (99.95, "100"),
        (12.34, "12.3"),
        (1.0, "1"),
        (0.8333, "0.833"),
        (0.0512, "0.0512"),
        (0, "0"),
    ],
)
def test_three_digits(value: float, said: str) -> None:
    assert three_digits(value) == said


@given(st.floats(1e-6, 1e12))
def test_it_is_the_figure_to_half_a_digit(value: float) -> None:
    said = float(three_digits(value).replace(",", ""))
    assert math.isclose(said, value, rel_tol=0.0051)
    assert len(three_digits(value).replace(",", "").replace(".", "").strip("0")) <= 3


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (974 * 2**20, "1.02 GB"),
        (0.7e9, "0.7 GB"),
        (24 * 2**30, "25.8 GB"),
        (143e9, "143 GB"),
        (64e6, "64 MB"),
        (0, "0 GB"),
        (99.9e6, "100 MB"),
        (86_016, "86 kB"),
    ],
)
def test_memory(size: float, said: str) -> None:
    assert memory(size) == said
