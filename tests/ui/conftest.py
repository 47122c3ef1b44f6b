"""A shell with the extension, for the tests of what a cell says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ui.shells import Here, shell


@pytest.fixture
def here() -> Iterator[Here]:
    with shell() as ip:
        ip.extension_manager.load_extension("holynb")
        yield Here(ip)
