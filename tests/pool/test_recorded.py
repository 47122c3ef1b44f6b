"""The script that records a run on two GPUs does on a CPU what it does there: two pools, a shortage and its end, files that play."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holynb.events import Ended, Gauge
from holynb.ui.live import recording
from holynb.ui.live.replay import Replay

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "record_gpus.py"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_recorder_of_two_gpus(tmp_path: Path) -> None:
    argv = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--cpu", "--rows", "160", "--new", "64"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=220, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "two: 160 of 160 rows ok" in done.stdout
    assert "ran out of memory" in done.stdout
    for name, rows in (("gpus-dp2", 160), ("gpus-tp2", 40)):
        played = Replay(recording.read(str(tmp_path / f"{name}.jsonl.gz")))
        played.finish()
        events, _ = played.journal.events_since(0)
        assert sum(isinstance(e, Ended) and e.outcome.status == "ok" for e in events) == rows
        assert any(isinstance(e, Gauge) and e.ours for e in events)
