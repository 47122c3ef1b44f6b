"""A machine that is out of disk, of files or of places to write: one clear line, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pool_fake import Pools, byte_model

from holynb import pools as local
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
    done = run(
        "holynb.pool.models.weights", str(tmp_path / "x.gguf"), "--home", str(tmp_path / "h"), limit=limited(resource.RLIMIT_FSIZE, 50_000)
    )
    message: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert "could not be converted" in message["error"]
    assert "File too large" in message["error"]
    assert [p.name for p in (tmp_path / "h" / "models").iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize("most", [7, 9, 11, 13, 15])
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
        "--devices",
        "cpu,cpu,cpu,cpu",
        "--tp",
        "2",
        limit=limited(resource.RLIMIT_NOFILE, most),
    )
    assert done.returncode != 0
    assert re.match("error: the pool x (cannot run|ends: it cannot run|ends: a replica did not start): ", done.stdout)
    assert done.stdout.count("\n") == 1
    # With fewest, Python already finds no place for temporary files and says that.
    assert ("Too many open files" in done.stdout and "ulimit -n" in done.stdout) or most == 7
    assert done.stderr == ""
    assert list((tmp_path / "h" / "run").iterdir()) == []


@pytest.mark.parametrize("taken", ["run", "logs"])
def test_a_home_where_nothing_can_be_made(home: Path, tmp_path: Path, taken: str) -> None:
    (home / taken).write_text("a file where a folder must be")
    with pytest.raises(BadRoute, match="File exists") as caught:
        local.start(str(byte_model(tmp_path / "m")))
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_start(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        BadRoute, match=r"cannot be started: No space left on device .* Free some space there, or set HOLYNB_HOME"
    ) as caught:
        local.start(str(byte_model(tmp_path / "m")))
    assert "\n" not in str(caught.value)
    assert list((home / "run").iterdir()) == []


def test_a_disk_that_fills_up_takes_the_log_and_not_the_pool(pools: Pools) -> None:
    """A limit on the size of files stands for the disk again: nothing more is written, and requests are answered."""
    pool = pools.start("--idle", "600")
    pids = [pool.process.pid, *(r.pid for r in pool.record.ranks)]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    assert pool.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})[0] == 200
    pool.process.terminate()
    assert pool.process.wait(10) == 0
    assert not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)
    assert list((pool.home / "run").iterdir()) == []


@pytest.fixture
def open_to_all() -> Iterator[Pools]:
    """A HOLYNB_HOME that every user may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        pools = Pools(Path(folder))
        yield pools
        pools.end()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_pool_is_its_users_alone(open_to_all: Pools) -> None:
    """One Jupyter server may proxy many users: another one reaches neither the socket nor the record, and ends nothing."""
    pool = open_to_all.start("--port", "0")
    for place in (pool.home, pool.home / "run"):
        place.chmod(0o755)
    code = (
        "import encodings.idna, os, socket, sys, urllib.request, urllib.error\n"
        "from pathlib import Path; from kernels_support.jupyter import rendezvous\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(rendezvous.listing(Path(sys.argv[1])))\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "try:\n    sock.connect(sys.argv[2])\nexcept OSError as exc:\n    print(type(exc).__name__)\n"
        "try:\n    urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[3]}/v1/models')\nexcept urllib.error.HTTPError as exc:\n    print(exc.code)\n"
    )
    argv = [sys.executable, "-c", code, str(pool.home / "run"), str(pool.record.socket), str(pool.record.port)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.split("\n")[:3] == ["([], [])", "PermissionError", "401"], done.stderr
    assert pool.now() is not None
    assert pool.ask("/health")[0] == 200
