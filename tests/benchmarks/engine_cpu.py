"""The engine on CPU against transformers generate, same weights, same prompts, one run. Tokens per CPU second, prefill included.

    python tests/benchmarks/engine_cpu.py FOLDER [--batch 1,8,32] [--new 64] [--threads 1] [--rounds 2]

CPU seconds and not wall seconds, because this is measured on shared cores. Rounds alternate between the two.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path
from typing import Any


def prompts(batch: int, vocab: int) -> list[list[int]]:
    dice = random.Random(batch)
    return [[dice.randrange(100, vocab - 100) for _ in range(40)] for _ in range(batch)]


def ours(runner: Any, asked: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
    from holynb.pool.runner import Job

    begin = time.process_time()
    for i, ids in enumerate(asked):
        runner.add(Job(i, tuple(ids), new, ignore_eos=True))
    said: list[list[int]] = [[] for _ in asked]
    while not runner.idle:
        for emit in runner.step():
            said[emit.id] += emit.tokens
    return time.process_time() - begin, said


def theirs(model: Any, asked: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
    import torch

    ids = torch.tensor(asked)
    begin = time.process_time()
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return time.process_time() - begin, out[:, ids.shape[1] :].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--rounds", type=int, default=2)
    said = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": said.threads, "OMP_WAIT_POLICY": "PASSIVE"}
    import torch
    from transformers import AutoModelForCausalLM

    from holynb.pool.runner import Runner

    model = AutoModelForCausalLM.from_pretrained(said.folder, dtype=torch.float32).eval()
    runner = Runner(said.folder)
    torch.set_num_threads(int(said.threads))
    print("| batch | transformers tok/CPU s | ours | ratio | rows equal |\n|---|---|---|---|---|")
    for batch in map(int, said.batch.split(",")):
        asked = prompts(batch, runner.spec.vocab)
        ours(runner, asked[:1], 4)
        best: dict[str, float] = {}
        for _ in range(said.rounds):
            b, their_text = theirs(model, asked, said.new)
            # Their blocks are forgotten, so that no round finds the one before.
            for block in range(runner.blocks.total):
                runner.blocks.forget(block)
            a, our_text = ours(runner, asked, said.new)
            best = {"ours": min(a, best.get("ours", a)), "theirs": min(b, best.get("theirs", b))}
        equal = sum(x == y for x, y in zip(our_text, their_text, strict=True))
        rate = {k: batch * said.new / v for k, v in best.items()}
        print(f"| {batch} | {rate['theirs']:.1f} | {rate['ours']:.1f} | {rate['ours'] / rate['theirs']:.2f} | {equal}/{batch} |", flush=True)


if __name__ == "__main__":
    main()
