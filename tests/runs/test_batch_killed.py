"""A run by batch that is killed with SIGKILL, wherever that hits it, is finished by the next process: no row twice, none lost, to the cent."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs.batch_killed import killed


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_kills_cost_nothing_and_lose_nothing(vendor: str, tmp_path: Path) -> None:
    figures = killed(vendor, rows=90, kills=2, home=tmp_path, piece=30)
    assert figures.kills == 2
    assert (figures.twice, figures.lost) == (0, 0)
    assert figures.cost == figures.expected
