"""What Ray costs: a row of a pool on Ray against the local pool's, tokens a CPU second of three raylets against one, start on a running cluster.

    python tests/benchmarks/ray_figures.py [ROWS] [MODEL]

Seconds of the processor, not of the clock: all processes of a pool (client's end, server, ranks), and this one. MODEL: a folder for the second
part (without one it is left out; with 0 ROWS the first is). The fake runner's rows write TOKENS tokens each, one a step.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
HOME = tempfile.mkdtemp(prefix="holynb-figures-")
FAKE = "fake_runner:Runner"
os.environ |= {"HOLYNB_HOME": HOME, "PYTHONPATH": str(HERE.parent), "HOLYNB_FAKE_STEP": "0"}

import psutil  # noqa: E402 - the paths above come first
from pool_fake import byte_model  # noqa: E402
from ray_cluster import RayCluster  # noqa: E402

import holynb  # noqa: E402
from holynb import pools  # noqa: E402

TOKENS = 24


def cpu(cluster: RayCluster | None, words: tuple[str, ...] = ("holynb-pool", "ray::PoolServer", "ray::Seat")) -> float:
    """Processor seconds so far of all processes of pools."""
    total = 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line, env = " ".join(process.cmdline()), process.environ()
            ours = env.get("HOLYNB_HOME", "").startswith((HOME, HOME if cluster is None else str(cluster.home)))
            if ours and any(word in line for word in words):
                total += sum(process.cpu_times()[:2])
    return total


def rows(name: str, count: int, tokens: int, prompt: str = "row {} ") -> dict[str, Any]:
    """A run of so many rows."""
    began, own = time.monotonic(), time.process_time()
    run = holynb.infer([prompt.format(i) * 8 for i in range(count)], f"pool/{name}", max_tokens=tokens, cache=False, temperature=0)
    assert run.wait(600)
    frame = run.frame()
    assert (frame["status"] == "ok").all()
    took = time.monotonic() - began
    return {"rows_s": count / took, "own": (time.process_time() - own) / count, "tokens": int(frame["tokens_out"].sum())}


def overhead(cluster: RayCluster, count: int) -> None:
    """The same rows in a local pool and in one on Ray, in turn, five times."""
    os.environ["HOLYNB_POOL_RUNNER"] = FAKE
    model = str(byte_model(Path(HOME) / "bytes"))
    began = time.monotonic()
    pools.start(model, name="local", devices="cpu")
    local_s = time.monotonic() - began
    began = time.monotonic()
    pools.start(model, name="onray", on=cluster.on)
    print(f"start to ready, no weights: local {local_s:.1f} s, on a running cluster {time.monotonic() - began:.1f} s", flush=True)
    spent: dict[str, list[tuple[float, float]]] = {"local": [], "onray": []}
    for name in ("local", "onray") * 5:
        before = cpu(cluster)
        result = rows(name, count, TOKENS)
        spent[name].append((1e3 * (cpu(cluster) - before) / count, 1e3 * result["own"]))
    for name, pairs in spent.items():
        pool, own = (sorted(each) for each in zip(*pairs, strict=True))
        words = f"pool {statistics.median(pool):.2f} ({pool[0]:.2f} to {pool[-1]:.2f}), this process {statistics.median(own):.2f}"
        print(f"{name:<6} ms of the processor a row: {words} ({own[0]:.2f} to {own[-1]:.2f})", flush=True)
    pools.stop("all")


def scaling(cluster: RayCluster, model: str) -> None:
    """Tokens a processor second of the ranks, of one raylet and of three, in turn, three times; as many rows a rank in both.

    Answers are long: of short ones a third is over before all rows have begun, where clients, servers and ranks share two cores.
    """
    os.environ.pop("HOLYNB_POOL_RUNNER", None)
    figures: dict[int, list[float]] = {1: [], 3: []}
    for dp in (1, 3) * 3:
        began = time.monotonic()
        pools.start(model, name="real", on=cluster.on, dp=dp, max_len=512)
        start_s = time.monotonic() - began
        rows("real", 6 * dp, 8, "Tell me about {}. ")  # warm
        before = cpu(cluster, ("holynb.pool.worker",))
        result = rows("real", 48 * dp, 96, "Tell me about {}. ")
        spent = cpu(cluster, ("holynb.pool.worker",)) - before
        figures[dp].append(result["tokens"] / spent)
        nodes = [node["address"] for node in pools.status("real").nodes]
        print(f"dp {dp} on {len(nodes)} nodes: {figures[dp][-1]:.1f} tokens a processor second, ready in {start_s:.1f} s", flush=True)
        pools.stop("real")
    one, three = (statistics.median(figures[dp]) for dp in (1, 3))
    print(f"medians: one {one:.1f}, three {three:.1f}: {three / one:.2f} of one", flush=True)


def main(count: int = 600, model: str = "") -> None:
    cluster = RayCluster(3, 1, HOLYNB_FAKE_STEP="0")
    try:
        if count:
            overhead(cluster, count)
        if model:
            scaling(cluster, model)
    finally:
        pools.stop("all")
        cluster.end()


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))  # type: ignore[arg-type]
