"""Prompt lookup: what may come next in a row, by what followed when its last tokens stood there before. Knows tokens and nothing else.

As prompt-lookup decoding (Saxena 2023) and n-gram speculation: an answer that quotes its prompt, or itself, says again what stands there.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LONGEST_MATCH", "NgramIndex"]

#: As many last tokens are compared; fewer than two are no match.
LONGEST_MATCH = 4

#: Earlier places that are compared at most, the latest first: a pair of tokens may stand in a text a thousand times.
_MAX_PLACES = 16


class NgramIndex:
    """Over one row's tokens, a list that only grows. Each token is read once: places of one pair of tokens are chained, as in LZ77."""

    __slots__ = ("_earlier", "_latest", "_tokens", "match")

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._latest: dict[int, int] = {}
        """A pair of tokens → the place behind its last occurrence; a pair at the very end is not there yet, since nothing follows it."""
        self._earlier = [0, 0]
        """Of each place, the one before it in the chain; 0: none."""
        self.match = 0
        """How many tokens the last guess goes by."""

    def guess(self, count: int) -> tuple[int, ...]:
        """Up to `count` tokens: what followed the longest match, the latest of equals. None where the last two stand nowhere before."""
        self._update()
        tokens, end = self._tokens, len(self._tokens)
        place, self.match = (self._latest.get(_pair(tokens, end), 0) if end > 1 else 0), 0
        best = 0
        for _ in range(_MAX_PLACES):
            if not place or self.match == LONGEST_MATCH:
                break
            length = 2
            while length < min(LONGEST_MATCH, place) and tokens[place - 1 - length] == tokens[end - 1 - length]:
                length += 1
            if length > self.match:
                self.match, best = length, place
            place = self._earlier[place]
        if not best:
            return ()
        guess = list(tokens[best : best + count])
        while len(guess) < count:  # the match reaches the end: what repeats goes on as it began
            guess.append(guess[best + len(guess) - end])
        return tuple(guess)

    def _update(self) -> None:
        tokens, latest, earlier = self._tokens, self._latest, self._earlier
        for place in range(len(earlier), len(tokens)):
            pair = _pair(tokens, place)
            earlier.append(latest.get(pair, 0))
            latest[pair] = place


def _pair(tokens: Sequence[int], end: int) -> int:
    return tokens[end - 2] << 32 | tokens[end - 1]
