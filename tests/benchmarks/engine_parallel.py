"""The engine on two GPUs: tensor, pipeline and data parallel beside one. Random weights of the Qwen3 8B shape on disk, bfloat16, temperature 0.6.

    python tests/benchmarks/engine_parallel.py [--size 8b] [--out FILE] [--how one,tp,pp,dp] [--work one,256,mixed]

Start is from the ranks' process start to the first token. Agreement: greedy tokens of the 0.6B shape in float32, against one GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from engine_gpu import folder, lengths, rate, write

#: name → ranks (tensor, pipe, micro), replicas, work where it is not what was asked for
HOW: dict[str, tuple[tuple[int, int, int], int, str]] = {
    "one": ((1, 1, 0), 1, "256"), "tp": ((2, 1, 0), 1, ""), "pp": ((1, 2, 2), 1, "256"), "pp4": ((1, 2, 4), 1, "256"), "dp": ((1, 1, 0), 2, "256"),
}  # fmt: skip


def child(path: str, shape: str, rank: int, device: int, address: str, work: str, begin: float) -> None:
    """One rank. The leader says JSON lines: ready, then one a work."""
    import faulthandler

    from holynb.pool.mesh import Mesh
    from holynb.pool.runner import Job, Runner

    faulthandler.dump_traceback_later(70)
    tensor, pipe, micro = map(int, shape.split(","))
    greedy = work == "greedy"
    runner = Runner(
        Path(path), device=f"cuda:{device}", max_len=2112, mesh=Mesh(tensor, pipe, rank, micro, address), dtype="float32" if greedy else None
    )
    if rank:
        runner.follow()
        os._exit(0)
    loaded = time.time() - begin
    runner.add(Job(0, tuple(range(5, 133)), 4, 0.6, ignore_eos=True))
    while not any(e.tokens for e in runner.step()):
        pass
    first = time.time() - begin
    while not runner.idle:
        runner.step()
    if not greedy:
        runner.warm()
    print(json.dumps({"loaded_s": loaded, "first_s": first, "kv_tokens": runner.stats()["kv_total"]}), flush=True)
    sys.stdin.readline()
    if greedy:
        said: dict[int, list[int]] = {i: [] for i in range(8)}
        for i in said:
            runner.add(Job(i, tuple(range(100 * i + 7, 100 * i + 60 + i)), 48, ignore_eos=True))
        while not runner.idle:
            for emit in runner.step():
                said[emit.id] += emit.tokens
        print(json.dumps(said), flush=True)
    else:
        for name in work.split(","):
            rate(runner, [(p, min(n, 8)) for p, n in lengths(name)][:64], 1)
            print(json.dumps({"work": name, "from": time.time(), **rate(runner, lengths(name), 2), "busy": runner.stats()["busy"]}), flush=True)
    runner.close()
    sys.stdout.flush()
    os._exit(0)


def run(name: str, path: Path, work: str, limit: float = 75) -> list[dict[str, Any]]:
    """The leaders' lines; what hangs is ended after `limit` seconds and shows where it stood."""
    (tensor, pipe, micro), replicas, only = HOW[name]
    ranks = tensor * pipe
    processes = []
    for replica in range(replicas):
        address = f"file://{tempfile.mkdtemp()}/meet"
        for rank in range(ranks):
            args = [str(path), f"{tensor},{pipe},{micro}", str(rank), str(replica * ranks + rank), address, work if work == "greedy" else only or work]
            env = os.environ | {"PYTHONPATH": "."}
            processes.append(
                subprocess.Popen([sys.executable, __file__, "--child", *args, str(time.time())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
            )
    timer = threading.Timer(limit, lambda: [p.kill() for p in processes])
    timer.start()
    leaders = processes[::ranks]
    found = [json.loads(next((line for line in p.stdout if line.startswith("{")), "{}")) for p in leaders]
    for leader in leaders:
        if leader.poll() is None:
            leader.stdin.write("go\n")
            leader.stdin.flush()
    for leader in leaders:
        found += [json.loads(line) for line in leader.stdout if line.startswith("{")]
    for process in processes:
        process.wait(timeout=60)
    timer.cancel()
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        path, shape, rank, device, address, work, begin = sys.argv[2:]
        child(path, shape, int(rank), int(device), address, work, float(begin))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--how", default="tp,pp4,dp,one,pp")
    parser.add_argument("--agree", default="one,tp,pp", help="ways whose greedy tokens are compared first; the first one is the reference")
    parser.add_argument("--work", default="one,64,256,mixed")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        small = folder("0.6b", Path(root))
        write(small)
        answers = {}
        for name in said.agree.split(",") if said.agree else ():
            answers[name] = run(name, small, "greedy")[-1]
            print(name, "answered", len(answers[name]), flush=True)
            equal = sum(answers[name].get(k) == v for k, v in answers["one"].items())
            found[f"greedy {name}"] = f"{equal} of {len(answers['one'])} rows of 48 tokens equal one GPU's"
            print(name, found[f"greedy {name}"], flush=True)
        path = folder(said.size, Path(root))
        begin = time.time()
        write(path)
        print(f"weights written in {time.time() - begin:.0f} s", flush=True)
        for name in said.how.split(","):
            found[name] = run(name, path, said.work)
            for line in found[name]:
                print(name, {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
            if said.out:
                said.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
