"""One owner at a time, between processes, and a dead owner's lock is free."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from kernels_support.jupyter.lock import Lock

HOLD = """
import sys, time
from pathlib import Path
from kernels_support.jupyter.lock import Lock
lock = Lock(Path(sys.argv[1])); lock.take(); print("held", flush=True); time.sleep(60)
"""


def test_a_second_owner_waits_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.lock"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    lock = Lock(path)
    assert not lock.take(0)
    child.kill()
    child.wait()
    child.stdout.close()
    assert lock.take(5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.free()


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with Lock(tmp_path / "a"):
        assert not Lock(tmp_path / "a").take(0.1)
    again = Lock(tmp_path / "a")
    assert again.take(0)
    again.free()


def test_a_removed_lock_lets_one_new_owner_in(tmp_path: Path) -> None:
    first, second, third = (Lock(tmp_path / "a") for _ in range(3))
    assert first.take(0)
    first.free(remove=True)
    assert not (tmp_path / "a").exists()
    assert second.take(0)
    assert not third.take(0)
    second.free()
    second.free()
