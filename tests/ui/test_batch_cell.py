"""A cell with `--batch`: it gives the run once all is accepted, a kernel that ends leaves it at its provider, and lines collect it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from servers.batches import Batches
from ui.shells import Here

from holynb import runlog
from holynb.batches import pace
from holynb.run import Run
from holynb.runlog import lease
from holynb.ui.commands import active

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(pace, "FIRST_S", 0.02)
    monkeypatch.setattr(pace, "MOST_S", 0.1)
    with Batches("openai") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base)
        yield server


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.01)


def test_the_cell_gives_the_run_and_a_kernel_that_ends_leaves_it_there(here: Here, server: Batches) -> None:
    here.shell.user_ns["df"] = pd.DataFrame({"a": ["x", "y"]})
    result = here("%%infer openai/gpt-6-luna --df df --batch --name mine\nsay {{ a }}")
    run = result.value
    assert isinstance(run, Run) and not run.done
    assert "Run mine on openai/gpt-6-luna: 0 of 2 rows" in result.out
    status = here("%infer status").out
    assert "run mine on openai/gpt-6-luna: 0 of 2 rows" in status and "batch_0 at openai: 2 rows, fetch before 20" in status
    shown = here("%infer show mine").out
    assert "2 pending" in shown and "say x" in shown and "running" not in shown
    bound = here("%%infer out << openai/gpt-6-luna --batch --name other\nsay z")
    assert bound.value is None and isinstance(here["out"], Run)

    here("%unload_ext holynb")
    assert {job.state for job in server.jobs.values()} == {"working"}, "nothing was cancelled there"
    here("%load_ext holynb")
    assert here("%infer runs").out.count("pending") == 2
    assert "1 pending" in here("%infer show other").out, "from the log alone"
    server.work("batch_0")
    status = here("%infer status").out
    assert "run mine on openai/gpt-6-luna: 2 of 2 rows. %infer show mine" in status
    assert "run other on openai/gpt-6-luna: 0 of 1 row. %infer resume other waits for the rest" in status
    assert here("%infer resume mine").value["status"].tolist() == ["ok", "ok"]
    assert "Stopped other at its provider. stopped · 0 of 1 row · 1 cancelled" in here("%infer stop other").out
    assert server.jobs["batch_1"].state == "cancelled" and len(server.jobs) == 2
    assert not runlog.log().batches()
    assert KEY not in status + result.out


PROGRAM = """
import time, holynb
from holynb.batches import pace
pace.FIRST_S = pace.MOST_S = 0.02
runs = {name: holynb.infer([name, "b"], "openai/gpt-6-luna", batch=True, name=name) for name in ("night", "noon", "stopped")}
while not all(run.batch.accepted for run in runs.values()):
    time.sleep(0.01)
print("accepted", flush=True)
print(runs["noon"].wait(30).summary().line(), flush=True)
print(runs["stopped"].wait(30).summary().line(), flush=True)
"""


def test_two_processes_collect_nothing_twice_and_a_program_that_ends_leaves_its_batches(
    home: Path, server: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**os.environ, "HOLYNB_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(60, other.kill)
    timer.start()
    try:
        assert other.stdout is not None and other.stdout.readline() == "accepted\n"
        jobs = {job.rows[0]["body"]["messages"][0]["content"]: job for job in server.jobs.values()}
        here = "run {0}: another kernel collects its batch. %infer show {0}"
        every = [here.format(name) for name in ("night", "noon", "stopped")]
        assert sorted(active.lines()) == every, "while the other process asks, this one leaves it alone"
        monkeypatch.setattr(lease, "WAIT_S", 0.0)
        with monkeypatch.context() as patched:  # both asked at once, and the other was quicker
            patched.setattr(runlog.Lease, "is_held", staticmethod(lambda home, run: False))
            assert sorted(active.lines()) == every
        server.work(jobs["noon"].id)
        assert other.stdout.readline().startswith("2 rows · 200 + 40 tokens")
        server.work(jobs["stopped"].id, share=0.5, end="working")
        said = active.stopped("stopped")
        assert (
            said
            == "Asked for the end of stopped at its provider. Another kernel collects it, and has what was answered by then within 0.10 s."
        )
        assert other.stdout.readline().startswith("stopped · 1 of 2 rows")
        out, err = other.communicate(timeout=30)
    finally:
        timer.cancel()
        other.kill()
    assert (out, err) == ("", 'holynb: night goes on by batch: 0 rows of 2 ended. resume="night" collects the rest.\n')
    assert {name: job.state for name, job in jobs.items()} == {"night": "working", "noon": "ended", "stopped": "cancelled"}
    assert [p.state for p in runlog.log().batches()] == ["accepted"] and len(server.jobs) == 3
    assert not any("another kernel" in line for line in active.lines())
