"""`holynb.infer` in a program that is ending: one clear error, whoever calls it, and no hang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE = 60.0
CLEAR = "The program is ending, so no new run can start. Call infer earlier, and run.wait() for the answers."
HEAD = """
import atexit, threading, time
import holynb
def ask():
    try:
        run = holynb.infer("late", "sim/echo")
        run.wait(20)
    except holynb.HolynbError as exc:
        print(f"error: {exc}", flush=True)
    else:
        print("answered", flush=True)
        return True
"""


def program(home: Path, code: str) -> tuple[str, str]:
    env = {**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", HEAD + code], env=env, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("before", ["", "holynb.infer('early', 'sim/echo').wait()"])
def test_at_exit(home: Path, before: str):
    assert program(home, f"atexit.register(ask)\n{before}") == (f"error: {CLEAR}\n", "")
    assert program(home, f"{before}\natexit.register(ask)") == (f"error: {CLEAR}\n", "")


def test_in_a_thread_that_outlives_the_main_one(home: Path):
    code = """
def later():
    threading.main_thread().join()
    ask()
threading.Thread(target=later).start()
"""
    assert program(home, code) == (f"error: {CLEAR}\n", "")


def test_in_a_daemon_thread_as_the_program_ends(home: Path):
    """It asks again and again until it is gone: every one is answered, stopped with the program, or that error."""
    code = """
once, refused = threading.Event(), threading.Event()
def forever():
    while True:
        if ask():
            once.set()
        else:
            refused.set()
threading.Thread(target=forever, daemon=True).start()
atexit.register(time.sleep, 0.3)  # a few more
atexit.register(refused.wait, 20)
once.wait(20)
"""
    out, err = program(home, code)
    lines = out.splitlines()
    assert "answered" in lines
    assert f"error: {CLEAR}" in lines
    assert {line for line in lines if "answered" not in line and CLEAR not in line} <= {""}, lines[-5:]
    assert "RuntimeError" not in err
    assert "Traceback" not in err
