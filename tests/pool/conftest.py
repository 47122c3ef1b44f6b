"""Pools of the fake runner, one for a test or one for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pool_fake import Pool, Pools


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    made = Pools(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One pool for the tests of a module."""
    made = Pools(tmp_path_factory.mktemp("pool"))
    yield made.start("--port", "0")
    made.end()
