"""A row's own record: what its guesses are worth, and that they never cost it more than they may."""

from __future__ import annotations

import random
import statistics

import pytest

from holynb.pool.engine.acceptance import MAX_GUESSES, Acceptance


def test_what_comes_next_is_held_against_every_guess() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 7, 8] * 4
    row = Acceptance(tokens)
    row.update()
    assert row.guess == (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7)
    before = row.expected(MAX_GUESSES)[-1]
    tokens += [1, 2, 3]
    row.update()
    assert row.guess[:2] == (4, 5)
    after = row.expected(MAX_GUESSES)[-1]
    assert 1 < before < after < 1 + MAX_GUESSES, "three were right"
    tokens.append(90)
    row.update()
    assert row.guess == ()
    tokens += [1, 2, 3, 4]
    row.update()
    assert 1 < row.expected(MAX_GUESSES)[-1] < after, "one was wrong since"


def test_without_a_guess_a_step_is_expected_to_bring_one_token() -> None:
    row = Acceptance([1, 2, 3])
    row.update()
    assert (row.guess, row.expected(0)) == ((), [1.0])


@pytest.mark.parametrize(("right", "low", "high"), [(0.0, 1.0, 1.2), (0.5, 1.5, 2.9), (1.0, 12.0, 16.0)])
def test_it_learns_how_often_a_guess_is_right(right: float, low: float, high: float) -> None:
    dice, tokens, found = random.Random(4), [*range(8), *range(8)], []
    row = Acceptance(tokens)
    for _ in range(600):
        row.update()
        if row.guess:
            found.append(row.expected(MAX_GUESSES)[-1])
        tokens.append(row.guess[0] if row.guess and dice.random() < right else dice.randrange(8))
    assert low <= statistics.median(found[-50:]) <= high


def test_a_row_pays_no_more_than_its_share() -> None:
    row = Acceptance([1])
    assert row.spare(0) == pytest.approx(0.5)
    assert row.spare(100) == pytest.approx(2.5), "two of a hundred steps"
    row.balance = -2.6
    assert row.spare(100) < 0 < row.spare(200)
