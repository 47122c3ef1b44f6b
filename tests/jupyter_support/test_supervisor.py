"""Children live in sessions of their own; bound ones end with us, whatever ends us; what they wrote last can be read."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kernels_support.jupyter import supervisor, wire
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.supervisor import Command, spawn

ECHO = """
from kernels_support.jupyter import supervisor, wire
sock = supervisor.control()
for frame in wire.frames(sock):
    print("got", frame, flush=True)
    sock.sendall(wire.encode({"echo": frame}))
"""
#: A parent that starts one bound child, says its number, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from kernels_support.jupyter.supervisor import Command, spawn
child = spawn(Command([sys.executable, "-c", sys.argv[1]]), bound=True)
print(child.pid, flush=True); time.sleep(60)
"""
#: A bound child that never looks at its socket: only the system's signal can end it.
DEAF = "from kernels_support.jupyter import supervisor; sock = supervisor.control(); import time; time.sleep(60)"


def test_a_bound_child_talks_over_its_socket_and_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    child = spawn(Command([sys.executable, "-c", ECHO], log=log), bound=True)
    assert child.control is not None
    child.control.settimeout(20)
    child.control.sendall(wire.encode({"n": 1}))
    assert next(wire.frames(child.control)) == {"echo": {"n": 1}}
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.control.close()
    assert child.wait(30)
    assert child.code == 0
    assert child.how() == "ended with code 0"
    assert child.tail() == ["got {'n': 1}"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_killed_parent_takes_its_bound_child_along() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, DEAF], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    child = Process.of(int(parent.stdout.readline()))
    assert child is not None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert child.wait(30), "the child outlived its parent"


def test_an_interrupt_of_our_group_does_not_reach_children() -> None:
    """A kernel's interrupt is SIGINT to its process group."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + PARENT.replace("bound=True", "bound=False"),
            "import time; time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    child = Process.of(int(parent.stdout.readline()))
    assert child is not None
    try:
        os.killpg(parent.pid, signal.SIGINT)
        assert not child.wait(0.3)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        free_survives = child.alive
        child.signal(signal.SIGKILL)
    assert free_survives
    assert child.wait(30)


def test_kill_is_said_in_words_and_stop_is_final() -> None:
    child = spawn(Command([sys.executable, "-c", "import time; time.sleep(60)"]), bound=False)
    assert child.how() == "runs"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(30)
    assert "SIGKILL" in child.how()
    deaf = spawn(Command([sys.executable, "-c", "import signal,time; signal.signal(15, 1); time.sleep(60)"]), bound=True)
    deaf.stop(grace=0.5)
    assert not deaf.alive


def test_a_command_that_cannot_start_leaves_no_socket(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        spawn(Command([str(tmp_path / "no-such-program")]), bound=True)


def test_only_a_bound_child_has_a_control_socket() -> None:
    with pytest.raises(KeyError):
        supervisor.control()


def test_tail_reads_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(f"line {i}" for i in range(50_000)) + "\n\n")
    assert supervisor.tail(log, 2) == ["line 49998", "line 49999"]
    assert supervisor.tail(tmp_path / "none", 2) == []
