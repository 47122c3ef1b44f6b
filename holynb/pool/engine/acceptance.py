"""How one row's guesses came out: how probable the next ones are, and what they have cost it. Knows tokens; no steps and no clock.

Guesses are looked up after every token and held against what comes next, verified or not, so that a row is known before it costs anything.
"""

from __future__ import annotations

from holynb.pool.engine.guesses import LONGEST_MATCH, NgramIndex

__all__ = ["MAX_GUESSES", "Acceptance"]

#: Tokens that are guessed at a time.
MAX_GUESSES = 15

#: What each outcome before counts beside the next one: about the last twenty decide.
_MEMORY = 0.95

#: Outcomes that a row begins with, right and wrong, by the tokens that matched: what text that quotes now and then has.
_PRIOR = {2: (0.6, 1.4), 3: (1.0, 1.0), LONGEST_MATCH: (1.4, 0.6)}

#: What guesses may cost a row in all, in steps of one token: so much, and so much of a step for each of its tokens.
_ALLOWED, _ALLOWED_SHARE = 0.5, 0.02


class Acceptance:
    """Of one row, whose `tokens` are a list that only grows.

    `guess`: what may come next, of all tokens that are known. `balance`: tokens that guesses have brought, less the steps of one token
    that the time would have been enough for.
    """

    __slots__ = ("_index", "_known", "_outcomes", "_tokens", "balance", "guess")

    def __init__(self, tokens: list[int]) -> None:
        self._tokens, self._index = tokens, NgramIndex(tokens)
        self._outcomes = {length: list(prior) for length, prior in _PRIOR.items()}
        self._known = 0
        self.guess: tuple[int, ...] = ()
        self.balance = 0.0

    def update(self) -> None:
        """Tokens came: hold the last guess against them, and look up the next."""
        if self.guess:
            self._compare()
        self.guess, self._known = self._index.guess(MAX_GUESSES), len(self._tokens)

    def expected(self, most: int) -> list[float]:
        """Tokens that a step is expected to bring which verifies no guess, one, and so on up to `most`."""
        chance, tokens = 1.0, [1.0]
        for i in range(most):
            right, wrong = self._outcomes[self._matched(i)]
            chance *= right / (right + wrong)
            tokens.append(tokens[-1] + chance)
        return tokens

    def spare(self, answered: int) -> float:
        """How many steps the row may lose, after so many tokens of its answer."""
        return self.balance + _ALLOWED + _ALLOWED_SHARE * answered

    def _compare(self) -> None:
        for i, token in enumerate(self._tokens[self._known : self._known + len(self.guess)]):
            outcome, wrong = self._outcomes[self._matched(i)], token != self.guess[i]
            outcome[0], outcome[1] = outcome[0] * _MEMORY + (not wrong), outcome[1] * _MEMORY + wrong
            if wrong:
                break

    def _matched(self, i: int) -> int:
        """How many tokens match before a guess, all guesses before it taken as right."""
        return min(self._index.match + i, LONGEST_MATCH)
