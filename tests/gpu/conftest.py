"""Where there is no GPU the kernels are interpreted: quickly."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.importorskip("triton")
        from triton_interpreter import hasten

        hasten()
