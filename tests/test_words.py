"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from holynb.words import counted


@pytest.mark.parametrize(("n", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")])
def test_a_number_with_its_noun(n: int, text: str) -> None:
    assert counted(n, "row") == text
