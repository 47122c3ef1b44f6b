"""macOS and Windows, as far as their Python differs from Linux's: pools work on the first, and on the second what needs none of them does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pool_fake import byte_model

from kernels_support.jupyter import process

HERE = Path(__file__).parent

POOL = """
import os, signal, sys, holynb
from holynb import pools
from holynb.config import settings
from kernels_support.jupyter import process
from kernels_support.jupyter.process import Process
assert sys.platform == "darwin" and not hasattr(os, "sched_getaffinity")
info = pools.start(sys.argv[1], name="mac", dp=2)
frame = holynb.infer([f"row {i}" for i in range(20)], "pool/mac").wait().frame()
assert list(frame["text"]) == [f"row {i}" for i in range(20)], frame
assert [i.name for i in pools.listing()] == ["mac"]
rank = Process.of(info.ranks[0])
rank.signal(signal.SIGKILL)
assert rank.wait(30)
assert holynb.infer(["again"], "pool/mac").wait().frame()["text"][0] == "again"
every = [Process.of(pid) for pid in (info.pid, info.ranks[1])]
assert pools.stop("mac") == ["mac"]
assert not any(p.alive for p in every)
assert pools.start(sys.argv[1], name="mac").state == "ready"
server = pools.status("mac")
left = Process.of(server.ranks[0])
Process.of(server.pid).signal(signal.SIGKILL)
assert left.wait(30), "it watches the socket, where the system does not end it"
notes = []
assert pools.listing(notes.append) == [] and "gone without a goodbye" in notes[0], notes
assert list((settings.home() / "run").iterdir()) == []
print("good")
"""

HOSTED = """
import sys, holynb
from holynb import cli, pools
assert sys.platform == "win32"
run = holynb.infer(["a", "b"], "sim/echo").wait()
assert list(run.frame()["text"]) == ["a", "b"]
slow = holynb.infer(["a"], "sim/echo", name="one", cache=False, p={"latency": 60})
try:
    holynb.infer(["a"], "sim/echo", name="one", cache=False, p={"latency": 60}).wait()
except holynb.errors.BadOption as exc:
    assert "is active in another cell or kernel" in str(exc)
else:
    raise AssertionError("one run twice at once")
slow.cancel(), slow.cancel()
assert slow.wait().summary().cancelled == 1
assert pools.listing() == [] and pools.stop("all") == []
for ask in (lambda: pools.start(), lambda: holynb.infer(["a"], "pool/smollm2-135m").wait()):
    try:
        ask()
    except holynb.errors.BadRoute as exc:
        assert str(exc) == "The local pool needs Unix sockets, which this system's Python lacks. Hosted routes work; for pools on Windows use WSL.", exc
    else:
        raise AssertionError("a pool without Unix sockets")
sys.platform = "linux"  # IPython has parts of its own for Windows, which load there alone
from IPython.core.interactiveshell import InteractiveShell
sys.platform = "win32"
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "holynb")
shell.run_cell("%%infer rows << sim/echo -l\\nx\\ny", silent=False).raise_error()
assert list(shell.user_ns["rows"]["text"]) == ["x", "y"]
assert cli.main(["pool", "list"]) == 0
assert cli.main(["doctor"]) == 0
print("good")
"""


def on(system: str, code: str, *args: str) -> str:
    env = {
        **os.environ,
        "HOLYNB_TEST_SYSTEM": system,
        "HOLYNB_POOL_RUNNER": "fake_runner:Runner",
        "PYTHONPATH": os.pathsep.join(map(str, (HERE / "systems", HERE, HERE.parent))),
    }
    completed = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, timeout=120, env=env)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout.splitlines()[-1]


def test_a_pool_on_macos(tmp_path: Path) -> None:
    assert on("darwin", POOL, str(byte_model(tmp_path / "bytes"))) == "good"


def test_hosted_cells_on_windows_and_pools_refused_in_one_line() -> None:
    assert on("win32", HOSTED) == "good"


def test_a_laptop_that_changes_its_network_is_the_same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.sys, "platform", "darwin")
    names = iter(["book.lan", "book.local", "book"])
    monkeypatch.setattr(process.socket, "gethostname", lambda: next(names))
    assert {process.host() for _ in range(3)} == {"book"}
    assert process.boot_id() == process.boot_id()
