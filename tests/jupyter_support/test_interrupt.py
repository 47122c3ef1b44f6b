"""Interrupts are counted, the old handler comes back, and other threads change nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from kernels_support.jupyter.interrupt import Interrupts

pytestmark = pytest.mark.usefixtures("interruptible")


def test_each_one_is_counted_and_said() -> None:
    before = signal.getsignal(signal.SIGINT)
    said: list[int] = []
    with Interrupts(said.append) as seen:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 0)  # lets the handlers run
        assert seen.count == 2
    assert said == [1, 2]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_comes_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="x"), Interrupts():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_changes_nothing() -> None:
    before, during = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Interrupts():
            during.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


def test_a_background_job_that_ignores_interrupts_goes_on_ignoring_them() -> None:
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from kernels_support.jupyter.interrupt import Interrupts
with Interrupts() as seen:
    os.kill(os.getpid(), signal.SIGINT)
assert seen.count == 0
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
