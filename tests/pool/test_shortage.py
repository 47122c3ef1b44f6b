"""A machine that is out of disk, of files or of places to write: one clear line, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pool_fake import byte_model

from holynb import pools
from holynb.errors import BadRoute

ROOT = Path(__file__).parents[2]


def limited(which: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (most, most))


def run(module: str, *flags: str, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "HOLYNB_POOL_RUNNER": "fake_runner:Runner"}
    argv = [sys.executable, "-m", module, *flags]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env, preexec_fn=limit)


def test_a_full_disk_while_converting(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the middle of the weights."""
    import gguf_fake

    gguf_fake.write(tmp_path / "x.gguf")
    done = run("holynb.pool.weights", str(tmp_path / "x.gguf"), "--home", str(tmp_path / "h"), limit=limited(resource.RLIMIT_FSIZE, 50_000))
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert "could not be converted" in said["error"]
    assert "File too large" in said["error"]
    assert [p.name for p in (tmp_path / "h" / "models").iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize("most", [7, 9, 11, 13])
def test_too_few_files(tmp_path: Path, most: int) -> None:
    model = byte_model(tmp_path / "m")
    done = run(
        "holynb.pool.server",
        "--name",
        "x",
        "--model",
        str(model),
        "--home",
        str(tmp_path / "h"),
        limit=limited(resource.RLIMIT_NOFILE, most),
    )
    assert done.returncode != 0
    assert done.stdout.startswith("error: the pool x cannot run: ")
    assert list((tmp_path / "h" / "run").iterdir()) == []


@pytest.mark.parametrize("taken", ["run", "logs"])
def test_a_home_where_nothing_can_be_made(home: Path, tmp_path: Path, taken: str) -> None:
    (home / taken).write_text("a file where a folder must be")
    with pytest.raises(BadRoute, match="File exists") as caught:
        pools.start(str(byte_model(tmp_path / "m")))
    assert "\n" not in str(caught.value)
