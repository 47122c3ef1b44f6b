"""What the answers of a run are measured by. Frozen facts; loads none of the measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holynb.run.labels import Labels
    from holynb.schema import Schema

__all__ = ["Measure"]


@dataclass(frozen=True, slots=True)
class Measure:
    """variants: route and sample of the rows of one prompt; scale: the judge's, "": none."""

    variants: Sequence[tuple[str, int]] = ()
    labels: Labels | None = None
    schema: Schema | None = None
    scale: str = ""
