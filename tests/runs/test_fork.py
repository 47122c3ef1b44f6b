"""A process that was forked after the first run, as multiprocessing does on Linux, has a loop, a log and connections of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers.exact import Exact, reply
from servers.golden import OPENAI

from holynb import runlog

pytestmark = [
    pytest.mark.usefixtures("ended"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]
DEADLINE = 60.0

HEAD = """
import multiprocessing, os, sys, threading, time
import holynb
from holynb import runlog
base = sys.argv[1]

def ask(texts):
    run = holynb.infer(texts, "openai/m", api_base=base)
    run.wait(30)
    return run.frame()["status"].tolist()

def child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + 40
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise SystemExit("the child hung")

"""


def program(home: Path, code: str, *, code_at_end: int = 0) -> subprocess.CompletedProcess[str]:
    """A program of its own that asks a server on this machine. Ends here, whatever happens."""
    with Exact([0.02, reply(OPENAI.whole)]) as server:
        env = {**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "OPENAI_API_KEY": "sk-forked-0123456789"}
        done = subprocess.run(  # noqa: PLW1510 - looked at below
            [sys.executable, "-W", "error::ResourceWarning", "-c", HEAD + code, f"{server.base}/v1"],
            env=env,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
    assert done.returncode == code_at_end, done.stderr
    return done


def answered(home: Path) -> dict[str, int]:
    return {record.status: sum(r.ok for r in runlog.log().runs() if r.status == record.status) for record in runlog.log().runs()}


def test_a_child_asks_and_so_does_its_parent_afterwards(home: Path):
    done = program(
        home,
        """
print(ask(["one", "two"]), flush=True)
child(lambda: print(ask(["two", "three"]), flush=True))
print(ask(["four"]), flush=True)
""",
    )
    assert done.stdout.splitlines() == ["['ok', 'ok']", "['ok', 'ok']", "['ok']"]
    assert done.stderr == ""
    assert answered(home) == {"done": 5}


def test_a_pool_of_multiprocessing_asks_with_every_worker(home: Path):
    done = program(
        home,
        """
ask(["first"])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map_async(ask, [[f"{i} a", f"{i} b"] for i in range(8)]).get(40))
print(ask(["last"]))
""",
    )
    assert done.stdout.splitlines() == [str([["ok", "ok"]] * 8), "['ok']"]
    assert answered(home) == {"done": 18}


def test_a_fork_in_the_middle_of_a_run_leaves_the_run_to_the_parent(home: Path):
    done = program(
        home,
        """
ask(["first"])
run = holynb.infer([f"row {i}" for i in range(200)], "openai/m", api_base=base, concurrency=4, name="parents")
while run.summary().ok < 20:
    time.sleep(0.01)

def work():
    print(ask(["mine"]), flush=True)
    try:
        run.wait(10)
    except holynb.HolynbError as exc:
        print(exc, flush=True)
    assert run.done and len(run.frame()) == 200
    run.cancel()

child(work)
run.wait(40)
print(run.summary().ok)
""",
    )
    assert done.stdout.splitlines() == [
        "['ok']",
        "Run parents belongs to the process that this one was forked from, and continues there.",
        "200",
    ]
    assert done.stderr == ""
    record = runlog.log().find("parents")
    assert record is not None
    assert (record.ok, record.status) == (200, "done")


def test_a_child_that_ends_as_a_program_does_touches_nothing_of_its_parent(home: Path):
    """`sys.exit` in a child runs what is registered for the end, and frees everything."""
    done = program(
        home,
        """
run = holynb.infer([f"row {i}" for i in range(100)], "openai/m", api_base=base, concurrency=4, name="parents")
while run.summary().ok < 20:
    time.sleep(0.01)
pid = os.fork()
if pid == 0:
    import gc
    ask(["mine"])
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
run.wait(40)
print(run.summary().ok)
""",
    )
    assert done.stdout.splitlines() == ["100"]
    assert done.stderr == ""
    assert {(r.ok, r.status) for r in runlog.log().runs()} == {(100, "done"), (1, "done")}


def test_forks_at_any_moment_never_hang(home: Path):
    """A lock may be held by another thread as the process is forked."""
    program(
        home,
        """
ask(["first"])
stop = False
def forever():
    n = 0
    while not stop:
        ask([f"{n} {i}" for i in range(20)])
        n += 1
threads = [threading.Thread(target=forever, daemon=True) for _ in range(2)]
for t in threads: t.start()
for i in range(12):
    child(lambda: ask([f"child {i}"]))
stop = True
for t in threads: t.join()
""",
    )


def test_a_lock_ends_with_the_parent_though_a_child_lives_on(home: Path):
    done = program(
        home,
        """
run = holynb.infer([f"row {i}" for i in range(400)], "openai/m", api_base=base, concurrency=2, name="held")
while run.summary().ok < 4:
    time.sleep(0.01)
pid = os.fork()
if pid == 0:
    os.close(1); os.close(2)
    time.sleep(25)
    os._exit(0)
print(pid, flush=True)
os.kill(os.getpid(), 9)
""",
        code_at_end=-9,
    )
    try:
        again = program(
            home, 'print(holynb.infer([f"row {i}" for i in range(400)], "openai/m", api_base=base, name="held").wait(30).summary().ok)'
        )
        assert again.stdout == "400\n"
    finally:
        os.kill(int(done.stdout), 9)
