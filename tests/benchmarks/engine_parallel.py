"""The engine on several GPUs: tensor, pipeline and data parallel beside one. Random weights of the Qwen3 8B shape on disk, bfloat16, temperature 0.6.

    python tests/benchmarks/engine_parallel.py [--size 8b] [--out FILE] [--how one,tp2,pp2,dp2tp2] [--work one,256,mixed] [--cpu]

A way is dpD, tpT, ppP or several of them in a row; mM sets a pipeline's batches in flight (pp2m4). Start is from the ranks' process start to
the first token. Agreement: greedy tokens of the 0.6B shape in float32, against one GPU. `--cpu` rehearses all of it with a small shape over gloo.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_gpu import SIZES, folder, lengths, rate, write

#: The shapes that this script adds, with random weights made in memory: their files would take longer than all the rest.
SIZES["32b"] = {
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "tie_word_embeddings": False,
}
SIZES["70b"] = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "tie_word_embeddings": False,
}
SIZES["tiny"] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "tie_word_embeddings": False,
    "head_dim": 16,
    "vocab_size": 1024,
}
MADE = ("32b", "70b")


@dataclass(frozen=True)
class Way:
    """How one model is spread: replicas of tensor × pipe ranks."""

    replicas: int = 1
    tensor: int = 1
    pipe: int = 1
    micro: int = 0

    @classmethod
    def of(cls, name: str) -> Way:
        """`one`, `tp2`, `dp2tp2`, `pp4m8`."""
        said = {key: int(n) for key, n in re.findall(r"(dp|tp|pp|m)(\d+)", name)}
        pipe = said.get("pp", 1)
        return cls(said.get("dp", 1), said.get("tp", 1), pipe, said.get("m", pipe if pipe > 1 else 0))

    @property
    def devices(self) -> int:
        return self.replicas * self.tensor * self.pipe


def child(path: str, shape: str, rank: int, device: str, address: str, work: str, begin: float) -> None:
    """One rank. The leader says JSON lines: ready, then one a work."""
    import faulthandler

    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.mesh import Mesh
    from holynb.pool.protocol import Job

    faulthandler.dump_traceback_later(110)
    tensor, pipe, micro = map(int, shape.split(","))
    greedy = work == "greedy"
    runner = Runner(
        Path(path),
        device=device,
        max_len=2112,
        mesh=Mesh(tensor, pipe, rank, micro, address),
        dtype="float32" if greedy else None,
        source=made(Path(path), device),
    )
    if rank:
        runner.follow()
        os._exit(0)
    loaded = time.time() - begin
    short = device == "cpu"
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
            rate(runner, [(p, min(n, 8)) for p, n in amount(name, short)][:64], 1)
            print(
                json.dumps({"work": name, "from": time.time(), **rate(runner, amount(name, short), 2), "busy": runner.stats()["busy"]}),
                flush=True,
            )
    runner.close()
    sys.stdout.flush()
    os._exit(0)


def amount(work: str, short: bool) -> list[tuple[int, int]]:
    """What to answer; `short` is a thirty-second of it, for a rehearsal. 1024: as many rows of 128/128."""
    pairs = [(128, 128)] * 1024 if work == "1024" else lengths(work)
    return [(p, max(4, n // 32)) for p, n in pairs[: max(1, len(pairs) // 32)]] if short else pairs


def made(path: Path, device: str) -> Any:
    """Random weights made where they are used, for a folder that holds none; None: they are on disk."""
    if (path / "model.safetensors").exists():
        return None
    import torch

    from holynb.pool.engine.load import random_weights
    from holynb.pool.fit.spec import read_spec

    return random_weights(read_spec(path), device, torch.float32 if device == "cpu" else torch.bfloat16)


def run(name: str, path: Path, work: str, *, cpu: bool = False, limit: float = 110) -> list[dict[str, Any]]:
    """The leaders' lines; what hangs is ended after `limit` seconds and shows where it stood."""
    way, processes = Way.of(name), []
    ranks = way.tensor * way.pipe
    for replica in range(way.replicas):
        address = f"file://{tempfile.mkdtemp()}/meet"
        for rank in range(ranks):
            device = "cpu" if cpu else f"cuda:{replica * ranks + rank}"
            args = [str(path), f"{way.tensor},{way.pipe},{way.micro}", str(rank), device, address, work]
            env = os.environ | {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
            processes.append(
                subprocess.Popen(
                    [sys.executable, __file__, "--child", *args, str(time.time())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=env,
                    text=True,
                )
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


def total(found: list[dict[str, Any]], work: str) -> dict[str, float]:
    """One way's answers to one work: tokens a second of all replicas over the time from the first's start to the last's end; steps of the slowest."""
    lines = [line for line in found if line.get("work") == work]
    if not lines:
        return {}
    tokens = sum(line["tok_s"] * line["wall_s"] for line in lines)
    wall = max(line["from"] + line["wall_s"] for line in lines) - min(line["from"] for line in lines)
    return {"tok_s": tokens / wall, "ms_step": max(line["ms_step"] for line in lines)}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        path, shape, rank, device, address, work, begin = sys.argv[2:]
        child(path, shape, int(rank), device, address, work, float(begin))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--how", default="tp2,dp2,one,pp2")
    parser.add_argument(
        "--agree", default="one,tp2,pp2", help="ways whose greedy tokens are compared first; the first one is the reference"
    )
    parser.add_argument("--work", default="one,64,256,mixed")
    parser.add_argument("--cpu", action="store_true", help="rehearse with a tiny shape over gloo")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        small = folder("tiny" if said.cpu else "0.6b", Path(root))
        write(small, "cpu" if said.cpu else "cuda:0")
        answers = {}
        for name in said.agree.split(",") if said.agree else ():
            answers[name] = run(name, small, "greedy", cpu=said.cpu)[-1]
            print(name, "answered", len(answers[name]), flush=True)
            equal = sum(answers[name].get(k) == v for k, v in answers["one"].items())
            found[f"greedy {name}"] = f"{equal} of {len(answers['one'])} rows of 48 tokens equal one GPU's"
            print(name, found[f"greedy {name}"], flush=True)
        path = small if said.cpu else folder(said.size, Path(root))
        begin = time.time()
        if said.size not in MADE and not said.cpu:
            write(path)
        print(f"weights written in {time.time() - begin:.0f} s", flush=True)
        for name in said.how.split(","):
            found[name] = run(name, path, said.work, cpu=said.cpu)
            for line in found[name]:
                print(name, {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
            if said.out:
                said.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
