"""A quantized GGUF file on a GPU: how often its next token is float32's, and what a row costs. The folder is what `pool start FILE.gguf` made of it.

    python tests/benchmarks/quantised_gpu.py FOLDER [--tokens 1024] [--every 4] [--device cuda:0]

Each engine is asked for the most likely token after every fourth prefix of the README; float32 is the same folder with `--dtype float32`,
which widens what is quantized. Then one row of 40/256 and 64 rows of 40/128 are timed, once each after a run that compiles.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


def answers(runner: object, jobs: list[tuple[tuple[int, ...], int]]) -> list[list[int]]:
    """The greedy tokens after each prompt, so many as are asked."""
    from holynb.pool.engine.runner import Runner
    from holynb.pool.protocol import Job

    assert isinstance(runner, Runner)
    said: list[list[int]] = [[] for _ in jobs]
    for i, (ids, new) in enumerate(jobs):
        runner.add(Job(i, ids, new, ignore_eos=True))
    while not runner.idle:
        for emit in runner.step():
            said[emit.id].extend(emit.tokens)
    return said


def rate(runner: object, rows: int, new: int) -> float:
    """Tokens a second of so many rows of 40 random ids; the second time, when all is compiled."""
    dice = random.Random(rows)
    for _ in range(2):
        jobs = [(tuple(dice.randrange(100, 48_000) for _ in range(40)), new) for _ in range(rows)]
        begin = time.perf_counter()
        answers(runner, jobs)
    return rows * new / (time.perf_counter() - begin)


def main() -> None:
    """Print a table, a line for each way of computing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--ways", default="float32,auto,float16", help="float32 first; auto: what a pool takes by itself")
    given = parser.parse_args()

    from tokenizers import Tokenizer

    from holynb.pool.engine.runner import Runner

    text = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
    ids = Tokenizer.from_file(str(given.folder / "tokenizer.json")).encode(text).ids[: given.tokens]
    jobs = [(tuple(ids[:end]), 1) for end in range(8, len(ids), given.every)]
    print(f"| {len(jobs)} prefixes of the README | top-1 as float32 | one row, tok/s | 64 rows |\n|---|---|---|---|")
    exact: list[list[int]] = []
    for way in given.ways.split(","):
        runner = Runner(given.folder, device=given.device, dtype=None if way == "auto" else way, memory=0.2, max_len=given.tokens + 256)
        said = answers(runner, jobs)
        exact = exact or said
        same = sum(a == b for a, b in zip(said, exact, strict=True)) / len(jobs)
        print(f"| {way}: {runner.dtype} | {same:.4f} | {rate(runner, 1, 256):,.0f} | {rate(runner, 64, 128):,.0f} |", flush=True)
        runner.close()


if __name__ == "__main__":
    main()
