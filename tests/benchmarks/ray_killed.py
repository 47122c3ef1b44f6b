"""Kills at random moments under a pool on Ray: raylet, node, actor, rank, server, client; by SIGKILL and by SIGSTOP.

    python tests/benchmarks/ray_killed.py [MOMENTS] [SEED]

Three raylets of one machine, a pool of three replicas of the fake runner, at each moment a run of ROWS rows in the middle of which one thing
is hit. Says for each what was hit, rows lost and twice, and the longest time in which no row ended; at the end what is left after `pool stop`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
HOME = tempfile.mkdtemp(prefix="holynb-killed-")
os.environ |= {"HOLYNB_HOME": HOME, "HOLYNB_POOL_RUNNER": "fake_runner:Runner", "PYTHONPATH": str(HERE.parent)}

import psutil  # noqa: E402 - the paths above come first
from pool_fake import byte_model  # noqa: E402
from ray_cluster import RayCluster  # noqa: E402

import holynb  # noqa: E402
from holynb import pools  # noqa: E402
from holynb.events import Ended  # noqa: E402

ROWS = 60
#: What is hit: a part of a command line, or raylet (its process alone), node (and all that it runs), client (this machine's process).
VICTIMS = ("raylet", "node", "ray::Seat", "holynb.pool.worker", "ray::PoolServer", "client")
#: How long a stopped process stays so, unless it was killed meanwhile.
STOPPED_S = 25.0


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def choose(cluster: RayCluster, what: str, dice: random.Random) -> tuple[list[psutil.Process], int | None]:
    """The processes to hit, and the number of the node where it is one."""
    if what in ("raylet", "node"):
        number = dice.choice([n for n, pid in enumerate(cluster.raylets) if n and pid and psutil.pid_exists(pid)])
        return family(cluster.raylets[number])[: 1 if what == "raylet" else None], number
    if what == "client":
        return [psutil.Process(pools.status("killed").pid)], None
    return [dice.choice(cluster.named(what))], None


def moment(cluster: RayCluster, what: str, number: int, dice: random.Random) -> dict[str, Any]:
    """One run, and one hit in the middle of it."""
    run = holynb.infer([f"row {i} " * 8 for i in range(ROWS)], "pool/killed", max_tokens=60, cache=False, temperature=0)
    time.sleep(dice.uniform(0.3, 3.0))
    hit, node = choose(cluster, what, dice)
    for process in hit:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
    began = time.monotonic()
    with contextlib.suppress(TimeoutError):
        run.wait(STOPPED_S)
    for process in hit:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)
    run.wait(180)
    frame = run.frame()
    times = sorted(e.at for e in run.journal.events() if isinstance(e, Ended))
    gaps = [b - a for a, b in itertools.pairwise([run.started, *times])]
    right = sum(str(text).startswith(f"row {i} ") for i, text in enumerate(frame["text"]))
    if node is not None and (number == signal.SIGKILL or not psutil.pid_exists(cluster.raylets[node])):
        cluster.do("remove", node=node)
        cluster.do("add")
    lost = ROWS - int((frame["status"] == "ok").sum())
    twice = len(frame) - len(set(frame.index))
    ends = Counter(e.row for e in run.journal.events() if isinstance(e, Ended))
    twice += sum(n - 1 for n in ends.values())
    waited = max(gaps)
    return {
        "lost": lost,
        "wrong": ROWS - right,
        "twice": twice,
        "longest wait": round(waited, 1),
        "took": round(time.monotonic() - began, 1),
    }


def main(moments: int = 20, seed: int = 1) -> int:
    dice = random.Random(seed)
    cluster = RayCluster(3, 2, HOLYNB_FAKE_STEP="0.03")
    try:
        model = byte_model(Path(HOME) / "bytes")
        pools.start(str(model), name="killed", on=cluster.on, dp=3)
        hits = [(what, number) for what in VICTIMS for number in (signal.SIGKILL, signal.SIGSTOP)]
        hits = [hits[i % len(hits)] for i in range(moments)]
        dice.shuffle(hits)
        quiet = moment(cluster, "client", signal.SIGCONT, dice)
        print(f"{'nothing':<28} {quiet}", flush=True)
        sums: Counter[str] = Counter()
        worst = 0.0
        for what, number in hits:
            result = moment(cluster, what, number, dice)
            sums.update({k: result[k] for k in ("lost", "wrong", "twice")})
            worst = max(worst, result["longest wait"])
            print(f"{what + ' ' + signal.Signals(number).name:<28} {result}", flush=True)
            until = time.monotonic() + 60
            while len(pools.status("killed").replicas) < 3 and time.monotonic() < until:
                time.sleep(0.2)
        print(f"in all: {dict(sums)}, longest wait for the next row {worst:.1f} s (without a kill {quiet['longest wait']} s)", flush=True)
        pools.stop("killed")
        time.sleep(2)
        left = [p for word in ("ray::Seat", "ray::PoolServer", "holynb.pool.worker") for p in cluster.named(word)]
        print(f"left after pool stop: {len(left)} {[p.pid for p in left]}", flush=True)
        return int(bool(sums["lost"] or sums["twice"] or left))
    finally:
        with contextlib.suppress(Exception):
            pools.stop("all")
        cluster.end()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
