"""The limit of open files is raised to what is granted, also where the system grants less than it says, and is never lowered."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kernels_support.jupyter import files

INFINITE = resource.RLIM_INFINITY


def test_it_is_raised_to_what_is_granted() -> None:
    code = (
        "import resource; from kernels_support.jupyter import files; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))\n"
        "print(files.raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE), files.raise_limit())"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "512 (512, 512) 512\n"


@pytest.mark.parametrize(
    ("limits", "granted", "now"),
    [
        ((256, INFINITE), 10240, 10240),
        ((256, INFINITE), INFINITE, INFINITE),
        ((256, INFINITE), 100, 256),
        ((INFINITE, INFINITE), 0, INFINITE),
    ],
    ids=["macOS", "Linux", "nothing more", "no limit"],
)
def test_a_system_that_grants_less_than_it_says(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], granted: int, now: int) -> None:
    def grant(_: int, wanted: tuple[int, int]) -> None:
        if granted != INFINITE and (wanted[0] == INFINITE or wanted[0] > granted):
            raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", grant)
    assert files.raise_limit() == now


def test_windows_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert files.raise_limit() is None
