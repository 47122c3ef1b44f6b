"""The list of what a model's files can say is whole, its rows say what they mean, and what it refuses is refused by name."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib.resources import files

import pytest
import read_by_transformers

from holynb.pool import modelfields
from holynb.pool.modelfields import USES, ModelField

FILES = tomllib.loads((files("holynb.pool") / "modelfields.toml").read_text("utf-8"))
ROWS = [row for file in FILES for row in modelfields.fields_of(file)]


def test_a_row_has_a_use_and_a_reason() -> None:
    assert {row.use for row in ROWS} == set(USES)
    assert not [row for row in ROWS if not row.why.strip()]
    assert not [row for row in ROWS if (row.unless or row.when) and row.use != "refused"]


def test_no_field_has_two_rows() -> None:
    seen = [(row.file, row.name, family) for row in ROWS for family in (row.families or {""})]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("file", read_by_transformers.written())
def test_every_field_that_transformers_reads_has_a_row(file: str) -> None:
    """What is not in the list would be dropped in silence: give it a row in holynb/pool/modelfields.toml."""
    table = set(read_by_transformers.written()[file])
    if importlib.util.find_spec("transformers"):
        table |= set(read_by_transformers.extracted()[file])
    rows = modelfields.fields_of(file)
    assert table
    assert not [name for name in sorted(table) if not any(row_is_for(row, name) for row in rows)]


def row_is_for(row: ModelField, name: str) -> bool:
    return bool(re.fullmatch("[^.]+".join(map(re.escape, re.split(r"\{[^}]*\}", row.name))), name))
