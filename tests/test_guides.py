"""README, ARCHITECTURE, CONTRIBUTING and the manual's pages name files that are there, and names that stand in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = tuple(
    f"notebooks/{name}.md" for name in ("BILLION", "CELL", "CLASSROOM", "KUBERNETES", "MEASURED", "POOL", "PROVIDERS", "README", "SLURM")
)
GUIDES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *PAGES)
#: A path from one of the repository's folders.
PATH = re.compile(r"`((?:holynb|kernels_support|tests|notebooks|binder)/[\w./-]+)`")
#: "`TABLE` and a field of the same name in `Options`, in the same place, in `holynb/config/options.py`": the names before a module.
NAME_IN = re.compile(r"`([A-Za-z_]\w+)`[^`]{0,60}? in\s+`([\w/]+\.py)`")


def prose(guide: str) -> str:
    return re.sub(r"```.*?```", "", (ROOT / guide).read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("guide", GUIDES)
def test_every_path_is_there(guide: str) -> None:
    assert [path for path in PATH.findall(prose(guide)) if not (ROOT / path).exists()] == []


def test_a_name_stands_in_its_file() -> None:
    named = [(name, path) for guide in GUIDES for name, path in NAME_IN.findall(prose(guide)) if (ROOT / path).exists()]
    assert len(named) > 6
    assert [(name, path) for name, path in named if not re.search(rf"\b{name}\b", (ROOT / path).read_text("utf-8"))] == []
