"""Binder's environment, built as far as pip can and held to Binder's memory. Takes minutes: run with `-m slow`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from layout import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_notebook_runs_in_binders_memory(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/binder_check"), "--keep", str(tmp_path / "binder")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1750, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "MB resident" in done.stdout
