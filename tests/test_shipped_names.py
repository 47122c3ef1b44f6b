"""Names of models that ship live: held against the day on which the table of models was read. Against today: tests/models_check."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from shipped_names import ROOT, named, old_readings, wrong_names

from holynb.config import models


def check() -> ModuleType:
    loader = SourceFileLoader("models_check", str(ROOT / "tests" / "models_check"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_name_lived_when_the_table_was_read() -> None:
    read_on = max(m.reading.date for m in models.shipped())
    assert wrong_names(read_on) == []
    assert old_readings(read_on, 30) == []


def test_names_are_found_where_they_stand() -> None:
    places = {where for where, _ in named()}
    assert {"README.md", "notebooks/01-first-run.ipynb", "holynb/run/routing.toml", "holynb/ui/magic.py"} <= places


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openai/gpt-4.1-nano", "README.md: openai/gpt-4.1-nano reported to have ended 2026-10-23"),
        ("anthropic/claude-opus-4-1", "ended 2026-08-05; successor anthropic/claude-opus-4-8"),
        ("openai/gpt-4.1-mini", ""),  # it ends, but not yet
        ("openai/gtp-5", "README.md: openai/gtp-5 is not in models.toml"),
        ("holysheep/gpt-4.1-mini", "is not of the article's list"),
        ("https://example.com/openai/gpt-4.1-nano", ""),
        ("openai/deployments", ""),
    ],
)
def test_a_name_that_does_not_live_is_caught(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "holynb" / "run").mkdir(parents=True)
    shutil.copy(ROOT / "holynb/run/routing.toml", tmp_path / "holynb/run")
    (tmp_path / "README.md").write_text(f"%%infer answers << {name} --df reviews", encoding="utf-8")
    problems = wrong_names(dt.date(2026, 11, 28), root=tmp_path)
    assert words in "\n".join(problems)
    assert bool(problems) == bool(words)
    assert bool(wrong_names(dt.date(2026, 11, 28), 90, root=tmp_path)) == (bool(words) or name == "openai/gpt-4.1-mini")


def test_the_release_check_fails_at_90_days(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_HOME", os.environ["HOLYNB_HOME"])  # the check sets its own
    read_on = min(m.reading.date for m in models.shipped() if not m.article)
    main = check().main
    assert main([str(read_on + dt.timedelta(days=60))]) == 0, capsys.readouterr().out
    assert main([str(read_on + dt.timedelta(days=91))]) == 1
    assert "models.toml: " in capsys.readouterr().out


def test_the_release_check_needs_nothing_but_python() -> None:
    """As the workflow runs it: no package of ours or others is installed there."""
    day = str(max(m.reading.date for m in models.shipped()))
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "tests" / "models_check"), day], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "lives for 90 days" in done.stdout
