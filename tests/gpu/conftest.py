"""Where there is no GPU the kernels are interpreted: quickly."""

from __future__ import annotations

import os

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Where no test of this folder is asked for, none is read: each would load torch and Triton, and this process and its children would have an interpreter for Triton."""
    chosen = config.getoption("markexpr")
    return True if "not gpu" in chosen and "not kernel" in chosen else None


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.importorskip("triton")
        from triton_interpreter import hasten

        hasten()
