"""What the planner says a pool's process takes on this CPU, against what the kernel counted: resident bytes at their peak, by parts.

    python tests/benchmarks/engine_memory.py FOLDER [--rows 64] [--prompt 300] [--new 40]

The peak is the kernel's own high-water mark, set back before each part. The cache's pages count where they were written.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def resident(word: str = "VmHWM") -> int:
    """Bytes of this process: the peak since `again`, or VmRSS for now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(word)).split()[1]) * 1024


def again() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("rows", 64), ("prompt", 300), ("new", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    said = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    from holynb.pool import plan
    from holynb.pool.runner import Job, Runner

    x = torch.randn(64, 64)
    torch.nn.functional.linear(x, x)  # what the libraries take for themselves
    base = resident("VmRSS")
    again()
    runner = Runner(said.folder)
    loading, loaded = resident() - base, resident("VmRSS") - base
    spec, cut, limits = runner.spec, runner.cut, runner.limits
    dice, most = random.Random(0), 0
    again()
    for i in range(said.rows):
        ids = tuple(dice.randrange(100, spec.vocab - 100) for _ in range(said.prompt))
        runner.add(Job(i, ids, said.new, 0.9, top_k=50, seed=i, ignore_eos=True))
    while not runner.idle:
        runner.step()
        most = max(most, runner.stats()["kv_used"])
    peak = resident() - base
    item = getattr(torch, runner.dtype).itemsize
    weights, work = plan.weights_bytes(spec, cut, item, cpu=True), plan.work_bytes(spec, cut, limits, item)
    cache = most * plan.kv_bytes(spec, cut, item)
    work += plan.CPU_OVERHEAD
    planned = weights + work + cache
    print("| part | planned MB | measured MB |\n|---|---|---|")
    print(f"| loaded (peak while loading {loading / 1e6:.0f}) | {weights / 1e6:.0f} | {loaded / 1e6:.0f} |")
    print(f"| cache of {most:,} tokens and a step's work | {(cache + work) / 1e6:.0f} | {(peak - loaded) / 1e6:.0f} |")
    print(f"| peak, {said.rows} rows of {said.prompt}/{said.new} | {planned / 1e6:.0f} | {peak / 1e6:.0f} ({planned / peak:.2f}) |")


if __name__ == "__main__":
    main()
