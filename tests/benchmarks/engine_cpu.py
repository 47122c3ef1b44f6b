"""The engine on CPU against transformers generate and llama.cpp, same weights, same prompts, one run. Tokens per CPU second, prefill included.

    python tests/benchmarks/engine_cpu.py FOLDER [--gguf FILE] [--batch 1,8,32] [--new 64] [--threads 1] [--rounds 2]

CPU seconds and not wall seconds, because this is measured on shared cores. Rounds alternate between them. FOLDER holds in float32 what
FILE, from which it was converted, holds in 4 bits: llama.cpp computes with the bits (by `pip install xllamacpp`, its newest build as a wheel).
"""

from __future__ import annotations

import argparse
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def prompts(batch: int, vocab: int) -> list[list[int]]:
    dice = random.Random(batch)
    return [[dice.randrange(100, vocab - 100) for _ in range(40)] for _ in range(batch)]


def ours(runner: Any, asked: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
    from holynb.pool.protocol import Job

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
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return time.process_time() - begin, out[:, ids.shape[1] :].tolist()


class LlamaCpp:
    """llama.cpp's server in this process, `batch` slots. It says text, no ids."""

    def __init__(self, file: Path, batch: int, length: int, threads: int) -> None:
        import xllamacpp

        asked = xllamacpp.CommonParams()
        asked.model.path, asked.n_parallel, asked.n_ctx, asked.n_gpu_layers, asked.verbosity = str(file), batch, batch * length, 0, -1
        asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(asked)

    def __call__(self, asked: list[list[int]], new: int) -> tuple[float, list[str]]:
        def one(ids: list[int]) -> str:
            said = self.server.handle_completions(
                {"prompt": ids, "max_tokens": new, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
            )
            assert said["usage"]["completion_tokens"] == new, said
            return str(said["choices"][0]["text"])

        begin = time.process_time()
        with ThreadPoolExecutor(len(asked)) as threads:
            texts = list(threads.map(one, asked))
        return time.process_time() - begin, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--rounds", type=int, default=2)
    said = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": said.threads, "OMP_WAIT_POLICY": "PASSIVE"}
    import torch
    from transformers import AutoModelForCausalLM

    from holynb.pool.engine.runner import Runner
    from holynb.pool.server.tokenizer import ChatTokenizer

    model = AutoModelForCausalLM.from_pretrained(said.folder, dtype=torch.float32).eval()
    runner = Runner(said.folder)
    torch.set_num_threads(int(said.threads))
    text = ChatTokenizer(said.folder)
    print(
        "| batch | transformers tok/CPU s | llama.cpp, 4 bits | ours | of transformers | rows equal: ours | llama.cpp |\n|---|---|---|---|---|---|---|"
    )
    for batch in map(int, said.batch.split(",")):
        asked = prompts(batch, runner.spec.vocab)
        ours(runner, asked[:1], 4)
        cpp = LlamaCpp(said.gguf, batch, len(asked[0]) + said.new + 16, int(said.threads)) if said.gguf else None
        best: dict[str, float] = {}
        cpp_text: list[str] = []
        for _ in range(said.rounds):
            b, their_text = theirs(model, asked, said.new)
            # Their blocks are forgotten, so that no round finds the one before.
            for block in range(runner.blocks.total):
                runner.blocks.unpublish(block)
            a, our_text = ours(runner, asked, said.new)
            best = {"ours": min(a, best.get("ours", a)), "theirs": min(b, best.get("theirs", b))} | {
                k: best[k] for k in ("cpp",) if k in best
            }
            if cpp is not None:
                c, cpp_text = cpp(asked, said.new)
                best["cpp"] = min(c, best.get("cpp", c))
        equal = sum(x == y for x, y in zip(our_text, their_text, strict=True))
        rate = {k: batch * said.new / v for k, v in best.items()}
        same = sum(x == text.decode(y) for x, y in zip(cpp_text, their_text, strict=False))
        del cpp
        print(
            f"| {batch} | {rate['theirs']:.1f} | {rate.get('cpp', 0):.1f} | {rate['ours']:.1f} | {rate['ours'] / rate['theirs']:.2f} "
            f"| {equal}/{batch} | {same}/{batch} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
