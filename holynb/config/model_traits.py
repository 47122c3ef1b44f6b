"""What follows from what is known of a model: how much it thinks when it is told something or nothing, and how long it may answer.

Pure: reads no table, sends nothing. How a wire says a level is the wires' affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from holynb.config.model_entries import KnownModel, ThinkingControl
from holynb.efforts import EFFORTS, nearest, rank

__all__ = ["HOSTED_MAX_TOKENS", "POOL_MAX_TOKENS", "SHORT_TOKENS", "THINKING_MAX_TOKENS", "EffortRange", "ModelTraits"]

#: Longest answer where nothing is said (contract section 2); of models that think, thoughts included.
HOSTED_MAX_TOKENS, THINKING_MAX_TOKENS, POOL_MAX_TOKENS = 2048, 8192, 512

#: A longest answer of so many tokens, or fewer, may go to thinking as a whole.
SHORT_TOKENS = 64


class EffortRange(NamedTuple):
    """How much a model thinks, by its rank among EFFORTS: at least and at most. One number where that is known."""

    least: int
    most: int


#: What a model may think by default, where that is a level.
DEFAULTS = ("off", *EFFORTS)

NOTHING, SOMETHING, UNKNOWN = EffortRange(0, 0), EffortRange(1, 6), EffortRange(0, 6)


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """Of one route. `model`: None where nothing is known of it. `pool`: it runs in a pool, whose answers are shorter by default.

    `control`: how it is told to think, where that is known by its name alone, as of gpt-oss.
    """

    model: KnownModel | None = None
    pool: bool = False
    control: ThinkingControl | None = None

    def thinks(self, think: str | int | None = None) -> EffortRange:
        """How much it thinks with this `--think`; None: with nothing sent."""
        control = self.control or (self.model.thinking if self.model is not None else None)
        if control is None and (self.model is None or self.model.thinks is None):
            return UNKNOWN
        if control is None and self.model is not None and not self.model.thinks:
            return NOTHING
        if control is None:  # it can; whether it does by itself is not known
            return UNKNOWN if think in (None, "off", 0) else SOMETHING
        return _by_itself(control) if think is None else _when_told(control, think)

    def thinks_less(self, than: ModelTraits, think: str | int | None = None, *, thought: bool = False) -> bool:
        """Whether this model surely thinks less than the other with the same `--think`. `thought`: the other was seen to think."""
        least = than.thinks(think).least
        return self.thinks(think).most < (max(least, 1) if thought else least)

    def quieter(self, think: str | int | None = None, *, short: bool = False) -> str | None:
        """The `--think` that makes it think less than it does with this one: low, off where that is no less; None where nothing does.

        `short`: the answer has so few tokens that low may use them up too, so off comes first, unless it is known to be none.
        """
        words = () if think in ("off", 0) else ("off",) if think == "low" else ("low", "off")
        if short and not self.thinks("off").least:
            words = words[::-1]
        return next((word for word in words if self.thinks(word).least < self.thinks(think).most), None)

    def longest(self, think: str | int | None = None) -> int:
        """The longest answer where nobody says one, in tokens. With a number of tokens to think, there is room for an answer after them."""
        if self.pool:
            return POOL_MAX_TOKENS
        able = self.model is not None and (self.model.thinks is not None or self.control is not None)
        if self.model is None or not able or self.thinks(think) == NOTHING:
            return HOSTED_MAX_TOKENS
        control = self.control or self.model.thinking
        most = control.budget[1] if control is not None and control.budget is not None else 0
        if isinstance(think, int) and most:
            think = min(think, most)  # as it is sent
        roomy = max(THINKING_MAX_TOKENS, think + max(HOSTED_MAX_TOKENS, think // 16)) if isinstance(think, int) else THINKING_MAX_TOKENS
        return min(self.model.output or roomy, roomy)


def _by_itself(control: ThinkingControl) -> EffortRange:
    if control.default is None:
        return UNKNOWN
    if control.default == "on":
        return SOMETHING
    return _exactly(control.default) if control.default in DEFAULTS else SOMETHING


def _when_told(control: ThinkingControl, think: str | int) -> EffortRange:
    """What comes nearest to `think` of what it can do, as it is sent."""
    values = [v for v in control.values if v in EFFORTS] or EFFORTS[1:]
    if think in ("off", 0):
        if isinstance(control.off, Mapping):
            return NOTHING
        least = min(map(rank, values))
        return EffortRange(least if control.off is False else 0, least)
    return _exactly(nearest(values, think)) if isinstance(think, str) else SOMETHING  # so many tokens


def _exactly(level: str) -> EffortRange:
    return NOTHING if level == "off" else EffortRange(rank(level), rank(level))
