"""Where a step goes on one GPU: the kernels of an average layer in their order, and what a step has besides. Random weights of an 8B.

    python tests/benchmarks/layer_gpu.py [--dtypes bfloat16,fp8] [--rows 1,64,128,256] [--context 192] [--prompts 8192]

A kernel's microseconds are those by which it ends after the one before: kernels overlap (programmatic dependent launch), and so they add
up to the step. `--rows`: decode rows; `--prompts`: tokens of a step of prompts alone, blank ones, so that attention does nothing.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]


def ends(graph: Any) -> list[tuple[str, float]]:
    """(kernel, microseconds by which it ends after the one before), in order."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    graph()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        graph()
        torch.cuda.synchronize()
    found = sorted(
        ((e.time_range.end, e.time_range.start, e.name) for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA),
    )
    before, each = found[0][1], []
    for end, _, name in found:
        each.append((name, end - before))
        before = end
    return each


def short(name: str) -> str:
    name = name.split("(", maxsplit=1)[0].split("<", maxsplit=1)[0].rsplit("::", maxsplit=1)[-1].replace("void ", "")
    return name.lstrip("_")[:34]


def table(each: list[tuple[str, float]]) -> str:
    """An average layer, from one rotation to the next, and the rest."""
    marks = [i for i, (name, _) in enumerate(each) if "_rotate_and_store" in name]
    spans = list(pairwise(marks))
    length = Counter(b - a for a, b in spans).most_common(1)[0][0]
    spans = [(a, b) for a, b in spans if b - a == length]
    layer = [(short(each[spans[0][0] + i][0]), sum(each[a + i][1] for a, _ in spans) / len(spans)) for i in range(length)]
    whole, layers = sum(us for _, us in each), len(marks)
    one = sum(us for _, us in layer)
    return f"{one:.1f} µs a layer, {whole - layers * one:.0f} besides: " + ", ".join(f"{name} {us:.1f}" for name, us in layer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--dtypes", default="bfloat16,fp8")
    parser.add_argument("--rows", default="1,64,128,256")
    parser.add_argument("--only-replay", default="", help="further rows, of which only the step's time is said")
    parser.add_argument("--context", type=int, default=192)
    parser.add_argument("--prompts", type=int, default=8192)
    given = parser.parse_args()
    import torch
    from engine_gpu import folder, replay

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    for dtype in given.dtypes.split(","):
        with tempfile.TemporaryDirectory() as root, torch.inference_mode():
            path = folder(given.size, Path(root))
            source = random_weights(read_spec(path), "cuda:0", torch.bfloat16)
            runner = Runner(path, device="cuda:0", dtype=dtype, max_len=2112, source=source)
            runner.executor = getattr(runner.executor, "kernels", runner.executor)
            rows = [int(r) for r in given.rows.split(",")]
            more = [int(r) for r in given.only_replay.split(",") if r]
            print(dtype, "ms a step:", {r: round(replay(runner, r, given.context), 3) for r in sorted({*rows, *more})}, flush=True)
            for r in rows:
                replay(runner, r, given.context)
                print(f"{dtype} {r} rows: {table(ends(runner.executor.graph(r)))}", flush=True)
            if given.prompts:
                graph = runner.executor.graph(0, given.prompts)
                print(f"{dtype} {given.prompts} prompt tokens: {table(ends(graph))}", flush=True)
            del runner, source
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
