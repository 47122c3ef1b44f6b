"""The list of what a model's files can say is whole, its rows say what they mean, and what it refuses is refused by name."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from holynb.pool import modelfields
from holynb.pool.modelfields import USES, ModelField

FILES = tomllib.loads((files("holynb.pool") / "modelfields.toml").read_text("utf-8"))
ROWS = [row for file in FILES for row in modelfields.fields_of(file)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.file} {row.name}")
def test_a_row_has_a_reason(row: ModelField) -> None:
    assert row.use in USES
    assert row.why.strip()
    assert not row.unless or row.use == "refused"


def test_no_field_has_two_rows() -> None:
    seen = [(row.file, row.name, family) for row in ROWS for family in (row.families or {""})]
    assert len(seen) == len(set(seen))
