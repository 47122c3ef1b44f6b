"""The kernelspec is found by Jupyter where it was installed, starts with the extension, and goes without a trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kernels_support.jupyter import spec
from kernels_support.jupyter.spec import KernelSpec

SPEC = KernelSpec("holynb-test", "holynb (Python 3)", "holynb")


def test_install_find_uninstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    place = spec.install(SPEC, prefix=tmp_path)
    said = json.loads((place / "kernel.json").read_text())
    assert said["argv"][0] == sys.executable
    assert said["argv"][-1] == "--ext=holynb"
    assert said["display_name"] == "holynb (Python 3)"
    assert spec.installed("holynb-test") == place
    assert spec.install(SPEC, prefix=tmp_path) == place, "installing again replaces it"
    assert spec.uninstall("holynb-test") == place
    assert not place.exists()
    assert spec.uninstall("holynb-test") is None
