"""Guesses are what followed the same tokens before, and cost no more the longer a row is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holynb.pool.engine.guesses import LONGEST_MATCH, NgramIndex


def matched(tokens: list[int], place: int) -> int:
    """How many tokens before a place are the last ones, too."""
    length = 0
    while length < min(place, LONGEST_MATCH) and tokens[place - 1 - length] == tokens[-1 - length]:
        length += 1
    return length


#: Few different tokens, so that they repeat; at most 16 places of a pair, which are all looked at.
ROWS = st.lists(st.integers(0, 3), max_size=17)


@given(ROWS, st.integers(1, 6), st.lists(st.booleans(), min_size=17, max_size=17))
def test_it_says_what_followed_the_longest_match(row: list[int], count: int, asked: list[bool]) -> None:
    tokens: list[int] = []
    index = NgramIndex(tokens)
    for token, ask in zip(row, asked, strict=False):
        tokens.append(token)
        if not ask:
            continue  # what was not asked is caught up with
        guess = index.guess(count)
        lengths = {place: matched(tokens, place) for place in range(2, len(tokens))}
        best = max(lengths.values(), default=0)
        if best < 2:
            assert (guess, index.match) == ((), 0)
            continue
        assert index.match == best
        place = max(p for p, length in lengths.items() if length == best)
        following = tokens + list(guess)
        assert len(guess) == count
        assert following[len(tokens) :] == following[place : place + count], "as it went on there, and at the end as it begins to repeat"


@given(st.lists(st.integers(0, 2), min_size=3, max_size=200), st.integers(1, 20))
def test_every_guess_follows_an_earlier_occurrence(tokens: list[int], count: int) -> None:
    guess = NgramIndex(tokens).guess(count)
    for i, token in enumerate(guess):
        said = tokens + list(guess[:i])
        pairs = [(said[k], said[k + 1], said[k + 2]) for k in range(len(said) - 2)]
        assert (said[-2], said[-1], token) in pairs


def test_large_numbers_of_tokens_stay_apart() -> None:
    """A pair is one number, of two that are below 2^32."""
    assert NgramIndex([1, 0, 5, 0, 1 << 31, 7, 0, 0]).guess(1) == ()
    assert NgramIndex([9, 1 << 31, 5, 9, 1 << 31]).guess(2) == (5, 9)


def test_a_token_costs_the_same_however_many_came_before() -> None:
    class Counted(list[int]):
        looks = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.looks += 1
            return super().__getitem__(at)

    tokens = Counted()
    index, worst = NgramIndex(tokens), 0
    for i in range(5000):
        tokens.append(1 if i % 50 else 2)  # thousands of places of one pair
        before = Counted.looks
        index.guess(8)
        worst = max(worst, Counted.looks - before)
    assert worst <= 2 + 2 + 16 * 2 * LONGEST_MATCH + 1
