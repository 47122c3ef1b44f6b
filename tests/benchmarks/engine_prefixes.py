"""Prompt tokens that a pool's engine puts through the model, rows in the input's order and in the order in which a run sends them.

`python tests/benchmarks/engine_prefixes.py FOLDER` (SmolLM2's): 8 documents of some 300 tokens, 6 questions each, whose rows take turns;
a KV cache of 1,440 tokens, which holds four documents; CPU.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.runner import Runner
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.protocol import Job
from holynb.run.prefix_order import order

WORDS = (
    "the",
    "river",
    "runs",
    "past",
    "old",
    "houses",
    "where",
    "people",
    "sell",
    "fruit",
    "and",
    "tell",
    "stories",
    "of",
    "ships",
    "that",
    "home",
)
DOCUMENTS, QUESTIONS, BLOCKS, AT_ONCE = 8, 6, 90, 4


def main(folder: Path) -> None:
    tokenizer, rng = Tokenizer.from_file(str(folder / "tokenizer.json")), random.Random(3)
    pages = [f"Document {d}. " + " ".join(rng.choices(WORDS, k=300)) for d in range(DOCUMENTS)]
    texts = [f"{page}\n\nQuestion {q}: what is sold?" for q in range(QUESTIONS) for page in pages]
    answers: list[dict[int, list[int]]] = []
    for name, rows in (("arranged", order(texts)), ("input order", list(range(len(texts))))):
        runner = Runner(folder, max_len=1024, memory=0.5)
        runner.blocks = BlockAllocator(BLOCKS, 16)
        scheduler = runner.scheduler = BatchScheduler(runner.blocks, runner.limits, 1, max_pending=runner.scheduler.max_pending)
        scheduler.batch_cap = AT_ONCE
        for row in rows:
            runner.add(Job(row, tuple(tokenizer.encode(texts[row]).ids), 4))
        out: dict[int, list[int]] = {}
        began = time.perf_counter()
        while not runner.idle:
            for emit in runner.step():
                out.setdefault(emit.id, []).extend(emit.tokens)
        answers.append(out)
        through = scheduler.tokens_in - scheduler.tokens_shared
        print(f"{name}: {through:,} of {scheduler.tokens_in:,} prompt tokens prefilled, {time.perf_counter() - began:.1f} s", flush=True)
    print("the same answers:", answers[0] == answers[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
