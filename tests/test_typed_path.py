"""A path that cannot be looked at is not there: what is typed is answered with one line, never with an OSError."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import holynb
from holynb import files, typed_path
from holynb.errors import BadOption, UserError
from holynb.ui.live import recording

LONG = "x" * 300


@pytest.mark.parametrize("text", [LONG, f"/tmp/{LONG}/rows.csv", "~nobody-of-this-name/rows.csv", "with\0null"])
def test_what_no_system_takes_is_not_there(text: str) -> None:
    path = typed_path.typed(text)
    assert not typed_path.is_there(path) and not typed_path.is_file(path) and not typed_path.is_folder(path)


def test_what_is_there_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    path = typed_path.typed("~/rows.csv")
    assert path == tmp_path / "rows.csv"
    assert typed_path.is_there(path) and typed_path.is_file(path) and not typed_path.is_folder(path)
    assert typed_path.is_folder(tmp_path) and not typed_path.is_file(tmp_path)


@pytest.mark.parametrize("name", [LONG, "~nobody-of-this-name/rows"])
def test_each_option_that_names_a_file_says_so_in_a_line(name: str) -> None:
    with pytest.raises(BadOption, match="There is no file"):
        files.read(f"{name}.csv")
    with pytest.raises(BadOption, match="there is no"):
        holynb.infer("x", "sim/echo", schema=f"{name}.json")
    with pytest.raises(BadOption, match="There is no recording"):
        recording.read(f"{name}.jsonl")
    with pytest.raises(UserError, match=r"Write it elsewhere|there is no folder"):
        holynb.infer("{{ p }}", "sim/echo", df=pd.DataFrame({"p": ["a"]}), out=f"{name}.csv")
