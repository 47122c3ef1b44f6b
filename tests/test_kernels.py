"""The GPU's kernels and engine, without a GPU: Triton's interpreter runs them. A process of its own, for Triton reads what to be when it loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not made for this system")
def test_kernels_say_what_plain_torch_says() -> None:
    """All of tests/gpu but what takes the interpreter minutes; on a GPU run them with `-m kernel`."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "kernel and not gpu and not slow", "tests/gpu"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 95, "that many cases there are; fewer means that they were not found"
