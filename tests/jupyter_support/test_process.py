"""A process is its number and its start; a corpse is not alive; a group is killed whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

from kernels_support.jupyter import process
from kernels_support.jupyter.process import Process

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_mine_is_alive_and_another_start_is_not() -> None:
    mine = Process.mine()
    assert mine.pid == os.getpid()
    assert mine.alive
    assert not replace(mine, start=mine.start + 1).alive


def test_a_number_used_again_is_not_hit() -> None:
    child = subprocess.Popen(SLEEP, start_new_session=True)
    found = Process.of(child.pid)
    assert found is not None
    try:
        assert not replace(found, start=found.start - 1).signal(signal.SIGKILL)
        assert child.poll() is None
        assert found.signal(signal.SIGKILL, group=True)
        assert found.wait(30)  # a zombie until we bury it, and not alive
        assert not found.signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert Process.of(child.pid) is None


def test_stop_kills_what_does_not_listen() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    found = Process.of(child.pid)
    assert found is not None
    assert found.stop(0.2)
    assert child.wait(30) == -signal.SIGKILL
    child.stdout.close()


def test_boot_and_host_do_not_change() -> None:
    assert process.boot_id() == process.boot_id() != ""
    assert process.host()
