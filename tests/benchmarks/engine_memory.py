"""What the planner says a pool's process takes, against what was counted.

    python tests/benchmarks/engine_memory.py FOLDER [--rows 64] [--prompt 300] [--new 40]
    python tests/benchmarks/engine_memory.py --gpu 0.6b,8b [--rows 256] [--prompt 1000] [--new 40]

On this CPU: resident bytes at their peak, by parts; the peak is the kernel's own high-water mark, set back before each part, and the cache's pages count
where they were written. On one GPU: what its driver says is used, beside what was used before this process began; random weights, bfloat16, every size of
batch captured, prompts that fill whole chunks.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def resident(word: str = "VmHWM") -> int:
    """Bytes of this process: the peak since `again`, or VmRSS for now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(word)).split()[1]) * 1024


def again() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Watch(threading.Thread):
    """The most that a GPU's driver counts as used from now on, looked at every few milliseconds."""

    def __init__(self, before: int) -> None:
        super().__init__(daemon=True)
        self.before, self.most, self.over = before, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.003):
            self.most = max(self.most, used() - self.before)


def used() -> int:
    """Bytes that the first GPU's driver counts, of all processes."""
    import pynvml

    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def gpu(size: str, rows: int, prompt: int, new: int) -> None:
    """One model on one GPU, in a process of its own."""
    before = used()
    watch = Watch(before)
    watch.start()
    import tempfile

    import torch
    from engine_gpu import folder

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit import plan
    from holynb.pool.fit.spec import read_spec
    from holynb.pool.protocol import Job

    path = folder(size, Path(tempfile.mkdtemp()))
    runner = Runner(path, device="cuda:0", max_len=2112, source=random_weights(read_spec(path), "cuda:0", torch.bfloat16))
    loaded = used() - before
    runner.warm()
    captured, dice = used() - before, random.Random(0)
    for i in range(rows):
        ids = tuple(dice.randrange(100, runner.spec.vocab - 100) for _ in range(prompt))
        runner.add(Job(i, ids, new, 0.9, top_k=50, seed=i, ignore_eos=True))
    while not runner.idle:
        runner.step()
    torch.cuda.synchronize()
    watch.over.set()
    watch.join()
    weights, work = plan.weights_bytes(runner.spec, runner.shard, 2), plan.work_bytes(runner.spec, runner.shard, runner.limits, 2)
    rest, cache = watch.most - weights - runner.kv_bytes, runner.kv_bytes
    print(
        f"{size}: planned {(weights + cache + work + plan.GPU_OVERHEAD_BYTES) / 1e9:.2f} GB, most {watch.most / 1e9:.2f} ({(weights + cache + work + plan.GPU_OVERHEAD_BYTES) / watch.most:.3f}); "
        f"weights {weights / 1e9:.2f}, cache {cache / 1e9:.2f}; beside them planned {(work + plan.GPU_OVERHEAD_BYTES) / 1e9:.2f} ({work / 1e9:.2f} of it a step's), counted {rest / 1e9:.2f}; "
        f"loaded {loaded / 1e9:.2f}, captured {captured / 1e9:.2f}; torch's peak {torch.cuda.max_memory_allocated() / 1e9:.2f}, kept {torch.cuda.max_memory_reserved() / 1e9:.2f}",
        flush=True,
    )
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--gpu", default="", metavar="SIZES")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    for name, default in (("rows", 64), ("prompt", 300), ("new", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    said = parser.parse_args()
    if said.child:
        gpu(said.child, said.rows, said.prompt, said.new)
    for size in filter(None, said.gpu.split(",")):
        numbers = [f"--rows={said.rows}", f"--prompt={said.prompt}", f"--new={said.new}"]
        subprocess.run([sys.executable, __file__, "--child", size, *numbers], check=True, timeout=200)
    if said.folder is None:
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit import plan
    from holynb.pool.protocol import Job

    x = torch.randn(64, 64)
    torch.nn.functional.linear(x, x)  # what the libraries take for themselves
    base = resident("VmRSS")
    again()
    runner = Runner(said.folder)
    loading, loaded = resident() - base, resident("VmRSS") - base
    spec, cut, limits = runner.spec, runner.shard, runner.limits
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
    work += plan.CPU_OVERHEAD_BYTES
    planned = weights + work + cache
    print("| part | planned MB | measured MB |\n|---|---|---|")
    print(f"| loaded (peak while loading {loading / 1e6:.0f}) | {weights / 1e6:.0f} | {loaded / 1e6:.0f} |")
    print(f"| cache of {most:,} tokens and a step's work | {(cache + work) / 1e6:.0f} | {(peak - loaded) / 1e6:.0f} |")
    print(f"| peak, {said.rows} rows of {said.prompt}/{said.new} | {planned / 1e6:.0f} | {peak / 1e6:.0f} ({planned / peak:.2f}) |")


if __name__ == "__main__":
    main()
