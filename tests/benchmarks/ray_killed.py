"""Kills at random moments under a pool on Ray: raylet, node, actor, rank, server, client; by SIGKILL and by SIGSTOP.

    python tests/benchmarks/ray_killed.py [EACH] [SEED] [VICTIM ...]

Three raylets of one machine, a pool of three replicas of the fake runner; EACH times for each victim that is killed or stopped a run of ROWS rows, all
under way at once, in the middle of which one thing is hit. Says for each kill how long it was until the rows that were on the dead rank
were handed to another one, and until the last of them had its next token there; where it was the server or the client, until rows had
tokens again. Then medians and longest, rows lost, wrong and twice, and what is left after `pool stop`.
A node that is hit is never the one with the pool's server: that is the head, without which there is no cluster, and `server` says that it is
there each time, also where Ray started it again. "server and node" kills both at once: a server that comes again while a node is just gone.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
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
CLUSTER = {"HOLYNB_FAKE_STEP": "0.06", "HOLYNB_FAKE_BATCH": "64"}

import psutil  # noqa: E402 - the paths above come first
from pool_fake import byte_model  # noqa: E402
from ray_cluster import RayCluster  # noqa: E402

import holynb  # noqa: E402
from holynb import pools  # noqa: E402
from holynb.errors import HolynbError  # noqa: E402
from holynb.events import Ended  # noqa: E402
from holynb.pools import PoolInfo  # noqa: E402

ROWS = 48
#: Tokens of a row: 15 s.
TOKENS = 240
#: What is hit: a part of a command line, or raylet (its process alone), node (and all that it runs), client (this machine's process).
VICTIMS = ("holynb.pool.worker", "ray::PoolServer", "ray::Seat", "client", "node", "server and node", "raylet")
#: Of these, what loses its rows also where it is stopped: an actor or a raylet holds up nobody, and a client is everybody's way.
STOPPED = ("node", "holynb.pool.worker", "ray::PoolServer", "server and node")
#: Of these, what takes the server with it.
SERVERS = ("ray::PoolServer", "server and node")
#: How long a stopped process stays so, unless it was killed meanwhile.
STOPPED_S = 25.0
#: How long it may take until rows have tokens again.
AGAIN_S = 90.0


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def choose(cluster: RayCluster, what: str, dice: random.Random) -> tuple[list[psutil.Process], int | None]:
    """The processes to hit, and the number of the node where it is one. Nodes without a rank are left alone."""
    info, until = pools.status("killed"), time.monotonic() + 60
    while not any(n["replicas"] for n in info.nodes) and time.monotonic() < until:  # its server is being started again
        time.sleep(0.2)
        info = pools.status("killed")
    if what in ("raylet", "node", "server and node"):
        number = dice.choice([int(str(n["address"]).rpartition(".")[2]) - 2 for n in info.nodes if n["alive"] and n["replicas"]])
        server = cluster.named("ray::PoolServer") if what in SERVERS else []
        return [*server, *family(cluster.raylets[number])[: 1 if what == "raylet" else None]], number
    if what == "client":
        return [psutil.Process(info.pid)], None
    return [dice.choice(cluster.named(what))], None


def until_again(run: Any, at: float, before: PoolInfo, what: str) -> dict[str, float]:
    """How long the rows were without a rank: until they were handed to another one, and until they had tokens there. Empty: nothing moved."""
    until = time.monotonic() + AGAIN_S
    while time.monotonic() < until and not run.done:
        with contextlib.suppress(HolynbError):
            info = pools.status("killed")
            for move in info.moves:
                if what not in SERVERS and move["what"] == "lost" and move["at"] >= at and move["rows"] and "again_s" in move:
                    return {"handed on": move["at"] - at, "next token": move["at"] - at + move["again_s"]}
            anew = (info.tokens_out or 0) < (before.tokens_out or 0) if what in SERVERS else info.pid != before.pid
            if what in (*SERVERS, "client") and anew and info.state == "ready" and info.tokens_out:
                return {"next token": time.time() - at}
        time.sleep(0.05)
    return {}


def moment(cluster: RayCluster, what: str, number: int, dice: random.Random) -> dict[str, Any]:
    """One run, and one hit in the middle of it."""
    prompts = [f"row {i} " * 40 for i in range(ROWS)]
    run = holynb.infer(prompts, "pool/killed", max_tokens=TOKENS, cache=False, temperature=0, concurrency=ROWS)
    until = time.monotonic() + 60
    while (pools.status("killed").requests or 0) < ROWS // 2 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(dice.uniform(0.3, 3.0))
    hit, node = choose(cluster, what, dice)
    server = [cluster.raylets.index(p.pid) for one in cluster.named("ray::PoolServer") for p in one.parents() if p.pid in cluster.raylets]
    before, began, at = pools.status("killed"), time.monotonic(), time.time()
    for process in hit:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
    again = {} if number == signal.SIGCONT else until_again(run, at, before, what)
    with contextlib.suppress(TimeoutError):
        run.wait(max(0.1, began + STOPPED_S - time.monotonic()))
    for process in hit:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)
    run.wait(180)
    frame = run.frame()
    right = sum(str(text).startswith(f"row {i} ") for i, text in enumerate(frame["text"]))
    if node is not None and (number == signal.SIGKILL or not psutil.pid_exists(cluster.raylets[node])):
        cluster.do("remove", node=node)
        cluster.do("add")
    ends = Counter(e.row for e in run.journal.events() if isinstance(e, Ended))
    twice = len(frame) - len(set(frame.index)) + sum(n - 1 for n in ends.values())
    lost = ROWS - int((frame["status"] == "ok").sum())
    return {"lost": lost, "wrong": ROWS - right, "twice": twice, "server": server, "took": time.monotonic() - began, **again}


def tell(results: dict[str, list[dict[str, Any]]]) -> None:
    """Medians and longest, by what was hit."""
    for kind, those in results.items():
        figures = {key: values for key in ("handed on", "next token", "took") if (values := [r[key] for r in those if key in r])}
        words = [f"{k} {statistics.median(v):.1f} (longest {max(v):.1f}, of {len(v)})" for k, v in figures.items()]
        print(f"{kind:<28} {len(those)} times: {', '.join(words)}", flush=True)


def main(each: int = 5, seed: int = 1, *victims: str) -> int:
    dice = random.Random(seed)
    cluster = RayCluster(3, 2, **CLUSTER)
    sums: Counter[str] = Counter()
    results: dict[str, list[dict[str, Any]]] = {}
    try:
        model = byte_model(Path(HOME) / "bytes")
        pools.start(str(model), name="killed", on=cluster.on, dp=3)
        numbers = {what: (signal.SIGKILL, signal.SIGSTOP) if what in STOPPED else (signal.SIGKILL,) for what in victims or VICTIMS}
        hits = [(what, number) for what in numbers for number in numbers[what]] * each
        for what, number in [("client", signal.SIGCONT), *hits]:
            kind = "nothing" if number == signal.SIGCONT else f"{what} {signal.Signals(number).name}"
            result = moment(cluster, what, number, dice)
            results.setdefault(kind, []).append(result)
            sums.update({k: result[k] for k in ("lost", "wrong", "twice")})
            print(f"{kind:<28} { ({k: round(v, 2) if isinstance(v, float) else v for k, v in result.items()}) }", flush=True)
            until = time.monotonic() + 90
            while len(pools.status("killed").replicas) < 2 and time.monotonic() < until:
                time.sleep(0.2)
        tell(results)
        print(f"in all: {dict(sums)}", flush=True)
        pools.stop("killed")
        time.sleep(2)
        left = [p for word in ("ray::Seat", "ray::PoolServer", "holynb.pool.worker") for p in cluster.named(word)]
        print(f"left after pool stop: {len(left)} {[p.pid for p in left]}", flush=True)
        return int(bool(sums["lost"] or sums["twice"] or left))
    except KeyboardInterrupt:
        tell(results)  # whoever has no time for all of them
        raise
    finally:
        with contextlib.suppress(Exception):
            pools.stop("all")
        cluster.end()


if __name__ == "__main__":
    sys.exit(main(*(int(word) if word.isdigit() else word for word in sys.argv[1:])))  # type: ignore[arg-type]
