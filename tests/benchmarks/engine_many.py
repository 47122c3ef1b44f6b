"""What parallelism brings on the GPUs that are there: checks, then one table, in one go of under nine minutes on four.

    python tests/benchmarks/engine_many.py [--gpus N] [--cpu] [--out FILE]

Random weights (8B: on disk; 32B and 70B: made in memory), bfloat16, temperature 0.6, end token ignored. A row whose GPUs are not there is named, not
left out. The floor of a decode step is the bytes of one rank's weights over the rate of a large copy, measured here first.
`--cpu` rehearses every line with a tiny shape over gloo: its figures mean nothing, that it ends does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_gpu import SIZES, folder, write
from engine_parallel import MADE, Way, run, total


@dataclass(frozen=True)
class Row:
    """A line of the table: `way` at `work`, against another way (`than`: way, work) or against the floor (`floor`: the share to reach)."""

    what: str
    size: str
    way: str
    work: str
    target: float
    than: tuple[str, str] | None = None
    seconds: float | None = None


ROWS = (
    Row("8B, dp 2: 512 x 128/128", "8b", "dp2", "256", 1.95, ("one", "256")),
    Row("8B, pp 2: 256 x 128/128", "8b", "pp2", "256", 1.6, ("one", "256")),
    Row("8B, dp 4: 1,024 x 128/128", "8b", "dp4", "256", 3.8, ("one", "256")),
    Row("8B, tp 4: 1 sequence 128/256", "8b", "tp4", "one", 1.5, ("tp2", "one")),
    Row("8B, tp 4: 256 x 128/128", "8b", "tp4", "256", 1.5, ("tp2", "256")),
    Row("8B, dp 2 x tp 2: 512 x 128/128", "8b", "dp2tp2", "256", 1.95, ("tp2", "256")),
    Row("8B, pp 4: 512 x 128/128", "8b", "pp4", "512", 3.0, ("one", "256")),
    Row("32B, tp 4: 64 x 128/128, a step", "32b", "tp4", "64", 0.7),
    Row("70B, tp 4: 1 sequence, a step", "70b", "tp4", "one", 0.7),
    Row("70B, tp 4: start to first token", "70b", "tp4", "one", 60.0, seconds=60.0),
)
AGREE = ("tp2", "pp2", "tp4", "pp4", "dp2tp2")


def copy_rate() -> float:
    """Bytes a second of a large copy on the first device, read and written counted."""
    import torch

    a = torch.empty(2**30, dtype=torch.uint8, device="cuda:0")
    b = torch.empty_like(a)
    for _ in range(3):
        b.copy_(a)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        b.copy_(a)
    torch.cuda.synchronize()
    rate = 20 * 2 * a.numel() / (time.perf_counter() - begin)
    del a, b
    torch.cuda.empty_cache()
    return rate


def weight_bytes(path: Path) -> int:
    """Of a whole model in bfloat16, its embedding table left out: a step reads one row of it for each token."""
    said = json.loads((path / "config.json").read_text())
    hidden, heads, kv, size = said["hidden_size"], said["num_attention_heads"], said["num_key_value_heads"], said["head_dim"]
    layer = hidden * size * (2 * heads + 2 * kv) + 3 * hidden * said["intermediate_size"]
    return 2 * (said["num_hidden_layers"] * layer + said["vocab_size"] * hidden)


def killed(dp: int, cpu: bool) -> str:
    """A rank killed in the middle of a pool's work (the embedded model): what became of the rows, and of the devices."""
    import psutil

    import holynb
    from holynb import pools

    with tempfile.TemporaryDirectory() as home:
        os.environ["HOLYNB_HOME"] = home
        info = pools.start(name="many", dp=dp)
        try:
            work = holynb.infer([f"Say something about {i}" for i in range(40 * dp)], "pool/many", max_tokens=64, cache=False)
            end = time.monotonic() + 60
            while sum(o is not None for o in work.rows()) < 4 and time.monotonic() < end:
                time.sleep(0.02)
            ranks = [p for p in psutil.Process(info.pid).children(recursive=True) if any("holynb.pool" in word for word in p.cmdline())]
            os.kill(ranks[-1].pid, signal.SIGKILL)
            frame = work.wait(120).frame()
        finally:
            pools.stop("many")
    listed = (
        subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"], capture_output=True, text=True, check=False
        ).stdout
        if not cpu
        else ""
    )
    left = set(listed.split()) - {str(os.getpid())}
    return f"{int((frame.status == 'ok').sum())} of {len(frame)} rows answered, {len(left)} processes left on a GPU"


def agreement(root: Path, gpus: int, cpu: bool) -> dict[str, str]:
    """Greedy tokens of every way that fits against one device: 8B's shape with two layers, float32."""
    SIZES["8b-2"] = SIZES["8b"] | {"num_hidden_layers": 4}
    path = folder("tiny" if cpu else "8b-2", root)
    write(path, "cpu" if cpu else "cuda:0")
    alone, out = run("one", path, "greedy", cpu=cpu)[-1], {}
    for name in AGREE:
        if Way.of(name).devices > gpus:
            out[name] = f"not run: needs {Way.of(name).devices} GPUs"
            continue
        way = Way.of(name)
        said = run(name, path, "greedy", cpu=cpu)[way.replicas :]
        equal = [sum(one.get(k) == v for k, v in alone.items()) for one in said]
        out[name] = f"{equal} of {len(alone)} rows equal" if len(said) == way.replicas else "did not answer"
    return out


def measured(root: Path, gpus: int, cpu: bool) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(size, way) → the leaders' lines, each way started once with all that is asked of it."""
    asked: dict[tuple[str, str], list[str]] = {}
    for row in ROWS:
        for way, work in ((row.way, row.work), *([row.than] if row.than else [])):
            if Way.of(row.way).devices <= gpus and work not in asked.setdefault((row.size, way), []):
                asked[row.size, way].append(work)
    found = {}
    for size in dict.fromkeys(size for size, way in asked):
        path = folder("tiny" if cpu else size, root / size)
        if cpu or size not in MADE:
            write(path, "cpu" if cpu else "cuda:0")
        for (of, way), works in asked.items():
            if of == size and works:
                found[size, way] = run(way, path, ",".join(works), cpu=cpu)
                print(size, way, found[size, way], flush=True)
    return found


def line(row: Row, found: dict[tuple[str, str], list[dict[str, Any]]], gpus: int, rate: float | None, root: Path) -> str:
    """One line of the table in Markdown."""
    needs = Way.of(row.way).devices
    if needs > gpus:
        return f"| {row.what} | {row.target:g} | not run: needs {needs} GPUs |"
    lines = found.get((row.size, row.way), [])
    got = total(lines, row.work)
    if not got:
        return f"| {row.what} | {row.target:g} | failed |"
    if row.seconds is not None:
        return f"| {row.what} | <= {row.seconds:g} s | {max(x['first_s'] for x in lines if 'first_s' in x):.1f} s |"
    if row.than is not None:
        base = total(found.get((row.size, row.than[0]), []), row.than[1])
        return (
            f"| {row.what} | >= {row.target:g} x {row.than[0]} | {got['tok_s']:,.0f} tok/s = {got['tok_s'] / base['tok_s']:.2f} x |"
            if base
            else f"| {row.what} | | no base |"
        )
    if rate is None:
        return f"| {row.what} | >= {row.target:.0%} of the floor | {got['ms_step']:.2f} ms |"
    floor = weight_bytes(folder(row.size, root / row.size)) / Way.of(row.way).tensor / rate * 1e3
    return f"| {row.what} | >= {row.target:.0%} of the floor | {got['ms_step']:.2f} ms, {floor / got['ms_step']:.0%} of {floor:.2f} ms |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    if said.cpu:
        gpus, device, rate = said.gpus or 4, "CPU, gloo, a tiny shape: a rehearsal", None
    else:
        import torch

        gpus, device, rate = said.gpus or torch.cuda.device_count(), torch.cuda.get_device_name(), copy_rate()
    print(f"{gpus} x {device}", f"copy {rate / 1e12:.2f} TB/s" if rate else "", flush=True)
    with tempfile.TemporaryDirectory() as named:
        root = Path(named)
        agreed = agreement(root, gpus, said.cpu)
        print(agreed, flush=True)
        found = measured(root, gpus, said.cpu)
        table = ["| work | target | came |", "|---|---|---|", *(line(row, found, gpus, rate, root) for row in ROWS)]
        table.append(
            f"| embedded model, dp {gpus}: a rank killed in the middle | every row answered, nothing left | {killed(gpus, said.cpu)} |"
        )
        table += [f"| greedy tokens, float32, {name} | equal to one GPU | {what} |" for name, what in agreed.items()]
        print("\n".join(table), flush=True)
        if said.out:
            said.out.write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    sys.exit(main())
