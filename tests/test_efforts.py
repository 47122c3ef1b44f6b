"""The order of levels, and which is nearest: what engines send, a pool's template gets and a plan expects rests on it."""

import pytest

from holynb.efforts import EFFORTS, nearest, rank
from holynb.types import THINK_LEVELS


@pytest.mark.parametrize(
    ("efforts", "effort", "chosen"),
    [
        (("low", "high"), "medium", "high"),  # of two as near the one that thinks more
        (("high", "low"), "medium", "high"),
        (("low", "medium", "high"), "max", "high"),
        (("low", "medium"), "none", "low"),
        (("none", "medium"), "minimal", "none"),
        (("low", "dynamic", "max"), "medium", "dynamic"),  # a word of one vendor's own stands in the middle
        (("xhigh",), "none", "xhigh"),
    ],
)
def test_the_nearest(efforts: tuple[str, ...], effort: str, chosen: str) -> None:
    assert nearest(efforts, effort) == chosen


def test_the_levels_of_think_are_among_them_in_their_order() -> None:
    levels = [level for level in THINK_LEVELS if level != "off"]
    assert set(levels) <= set(EFFORTS)
    assert sorted(levels, key=rank) == levels
