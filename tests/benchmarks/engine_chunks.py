"""How long a CPU's rows wait beside a long prompt, and what shorter chunks of it cost: a model of SmolLM2-135M's shape, random weights.

    python tests/benchmarks/engine_chunks.py [--chunks 1024,256,128] [--dtype int8] [--threads 1] [--rounds 2]

CPU seconds, as in `engine_cpu.py`; rounds alternate between the chunks, and the best of each counts. `prompts`: prompt tokens a second, of
two rows of 1,024 that write one token. `rows`: new tokens a second, of 16 rows of 64 that write 16. `gap`: the longest time between two
tokens of five rows of 33 beside one of 2,048; `five`: until all five have written 33.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def tokens(dice: random.Random, count: int) -> tuple[int, ...]:
    return tuple(dice.randrange(100, 49000) for _ in range(count))


def fresh(runner: Any, chunk: int) -> None:
    """The same runner with another chunk, its cache forgotten."""
    from holynb.pool.engine.scheduler import BatchScheduler

    for block in range(runner.blocks.total):
        runner.blocks.unpublish(block)
    runner.scheduler = BatchScheduler(runner.blocks, replace(runner.limits, chunk=chunk))


def rate(runner: Any, rows: int, prompt: int, new: int) -> float:
    """CPU seconds of so many rows."""
    from holynb.pool.protocol import Job

    dice, begin = random.Random(rows), time.process_time()
    for i in range(rows):
        runner.add(Job(i, tokens(dice, prompt), new, ignore_eos=True))
    while not runner.idle:
        runner.step()
    return time.process_time() - begin


def beside(runner: Any) -> tuple[float, float]:
    """(the longest gap, until the five have ended), in CPU seconds."""
    from holynb.pool.protocol import Job

    dice = random.Random(5)
    for i in range(5):
        runner.add(Job(i, tokens(dice, 33), 33, ignore_eos=True))
    runner.step()
    runner.add(Job(9, tokens(dice, 2048), 1, ignore_eos=True))
    begin = last = time.process_time()
    left, gap = 5, 0.0
    while left:
        ended = sum(e.finish is not None and e.id < 5 for e in runner.step())
        now = time.process_time()
        left, gap, last = left - ended, max(gap, now - last), now
    five = last - begin
    while not runner.idle:
        runner.step()
    return gap, five


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", default="1024,256,128")
    parser.add_argument("--dtype")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    said = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(said.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    import torch

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit import read_spec

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        source = random_weights(read_spec(Path(folder)), "cpu", torch.float32)
        runner = Runner(Path(folder), dtype=said.dtype, source=source)
    torch.set_num_threads(said.threads)
    chunks, best = [int(c) for c in said.chunks.split(",")], dict[int, list[float]]()
    for _ in range(said.rounds):
        for chunk in chunks:
            values = []
            for work in (lambda: (rate(runner, 2, 1024, 1),), lambda: (rate(runner, 16, 64, 16),), lambda: beside(runner)):
                fresh(runner, chunk)
                values += work()
            print(chunk, [round(v, 2) for v in values], flush=True)
            best[chunk] = [min(pair) for pair in zip(values, best.get(chunk, values), strict=True)]
    print("| chunk | prompts, tok/CPU s | rows, tok/CPU s | gap, CPU s | five, CPU s |\n|---|---|---|---|---|")
    for chunk, (prompts, rows, gap, five) in best.items():
        print(f"| {chunk} | {2 * 1024 / prompts:.0f} | {16 * 16 / rows:.0f} | {gap:.2f} | {five:.1f} |")


if __name__ == "__main__":
    main()
