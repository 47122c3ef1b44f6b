"""What a step costs is what steps of its kind took, and a guess before any did."""

from __future__ import annotations

from math import inf

import pytest

from holynb.pool.engine.steptimes import StepTimes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def measured(*steps: tuple[int, int, float]) -> StepTimes:
    clock = Clock()
    times = StepTimes(clock)
    times.pause()
    for rows, tokens, seconds in steps:
        clock.now += seconds
        times.add(rows, tokens)
    return times


def test_costs_are_medians_of_what_was_measured() -> None:
    plain, guessed = [(1, 1, 2.0)] * 5, [(1, 8, 3.0)] * 4
    assert measured(*plain, *guessed).cost(1, 8) == pytest.approx(1.5)
    assert measured(*plain, *guessed, (1, 8, 500.0)).cost(1, 8) == pytest.approx(1.5), "a hiccup is none"
    assert measured(*plain, (1, 8, 90.0), *guessed).cost(1, 7) == pytest.approx(1.5), "seven run as eight, and the first one compiled"


def test_few_guesses_are_measured_before_many() -> None:
    plain = [(1, 1, 2.0)] * 5
    assert measured().cost(1, 2) == measured((1, 1, 2.0)).cost(1, 2) == inf, "a first step is none"
    assert measured(*plain).cost(1, 2) == pytest.approx(1.3)
    assert measured(*plain).cost(1, 4) == inf
    assert measured(*plain, (1, 2, 2.0)).cost(1, 4) == inf
    few = measured(*plain, *[(1, 2, 2.4)] * 4)
    assert few.cost(1, 2) == pytest.approx(1.2)
    assert few.cost(1, 3) == few.cost(1, 4) == pytest.approx(1.5)
    assert few.cost(1, 8) == inf
    assert measured(*[(8, 8, 2.0)] * 3).cost(8, 16) == measured(*[(5, 5, 2.0)] * 3).cost(5, 8) == pytest.approx(1.3), "there are no fewer"


def test_more_tokens_never_cost_less() -> None:
    assert measured(*[(1, 1, 2.0)] * 5, *[(1, 2, 0.5)] * 3).cost(1, 2) == 1.0


def test_a_hiccup_at_the_first_try_is_tried_again() -> None:
    plain = [(1, 1, 2.0)] * 5
    assert measured(*plain, *[(1, 2, 90.0)] * 3).cost(1, 2) == pytest.approx(1.3)
    assert measured(*plain, *[(1, 2, 90.0)] * 4).cost(1, 2) == pytest.approx(45)
    assert measured(*plain, *[(1, 2, 90.0)] * 3, (1, 2, 2.2), (1, 2, 2.2), (1, 2, 2.2)).cost(1, 2) == pytest.approx(1.1)


def test_what_is_old_is_forgotten() -> None:
    slow = [(1, 1, 1.0)] * 3 + [(1, 2, 9.0)] * 4
    assert measured(*slow).cost(1, 2) == pytest.approx(9)
    assert measured(*slow, *[(1, 1, 1.0)] * 2001).cost(1, 2) == pytest.approx(1.3)


def test_time_between_runs_is_no_step() -> None:
    clock = Clock()
    times = StepTimes(clock)
    for _ in range(4):
        times.add(1, 1)
        clock.now += 1
        times.add(1, 1)
        times.pause()
        clock.now += 1000
    for _ in range(4):
        times.add(1, 4)
        clock.now += 1
    assert times.cost(1, 4) == pytest.approx(1)
