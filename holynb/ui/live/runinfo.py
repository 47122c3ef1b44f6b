"""A run as a view needs it before anything has happened. Frozen facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holynb.attached import Attachment
from holynb.ui.live.measure import Measure
from holynb.ui.live.timeseries import Price
from holynb.ui.output import clip, one_line

if TYPE_CHECKING:
    from holynb.quality.assessment import Assessment

__all__ = ["RunInfo"]

LABEL_CHARS = 40


@dataclass(frozen=True, slots=True)
class RunInfo:
    """`labels` are index labels, None for 0…n-1; `price_as` prices an outcome at `as_route`; `grace_s`: for rows in flight after a stop.

    format: how an answer in full is shown. `first_routes` are those that rows ask first; `compared` those of the rows of one prompt, which
    follow each other, where several stand side by side.
    """

    prompts: Sequence[str]
    labels: Sequence[object] | None = None
    started: float = 0.0
    title: str = ""
    as_route: str | None = None
    price_as: Price | None = None
    format: str = "text"
    first_routes: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    fallbacks: frozenset[str] = frozenset()
    grace_s: float = 0.0
    attached: Callable[[int], Sequence[Attachment]] | None = None
    """What goes along with a row; None where nothing does."""
    measure: Measure | None = None
    assessment: Assessment | None = None
    """How good its answers are, of a run that is over and cannot be folded."""
    timed: bool = True
    """Whether it is known when its rows began and ended."""

    @property
    def scale(self) -> str:
        """The judge's; "" where nobody judges."""
        if self.measure is not None:
            return self.measure.scale
        return "" if self.assessment is None else next((s.scale for s in self.assessment.scored), "")

    def label(self, row: int) -> str:
        value = row if self.labels is None else self.labels[row]
        return clip(one_line(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)), LABEL_CHARS)
