"""A model that mixes sliding and global layers on one GPU: its cache in groups, and in one group as if nothing slid. Random weights.

    python tests/benchmarks/engine_windows.py [--layers 12] [--seconds 40] [--memory 0.35]

The shape is Gemma 3 12B's with fewer layers (two global ones of twelve), so that both fit beside each other in time. First greedy tokens of
both are compared; then rates at 256 rows of mixed lengths, at the same memory: a cache that holds less preempts more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

GEMMA_3_12B = {
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 262208,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "max_position_embeddings": 131072,
    "query_pre_attn_scalar": 256,
    "dtype": "bfloat16",
    "eos_token_id": 1,
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
MAX_LEN = 8192


def made(folder: Path, groups: int, memory: float) -> Any:
    import torch

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    module: Any = importlib.import_module("holynb.pool.fit.cache_groups")
    module.MAX_GROUPS = groups
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    source = random_weights(read_spec(folder), device, torch.bfloat16)
    return Runner(folder, device=device, max_len=MAX_LEN, memory=memory, source=source)


def work(kind: str) -> list[tuple[int, int]]:
    """(prompt tokens, new tokens) of each row."""
    dice = random.Random(0)
    if kind == "mixed":
        return [(dice.randint(100, 1024), dice.randint(100, 1024)) for _ in range(256)]
    return [(dice.randint(4000, 7000), 64) for _ in range(64)]


def rate(runner: Any, pairs: list[tuple[int, int]]) -> dict[str, float]:
    from holynb.pool.protocol import Job

    dice, before = random.Random(1), (runner.scheduler.tokens_out, runner.scheduler.preempted)
    for i, (prompt, new) in enumerate(pairs):
        ids = tuple(dice.randrange(5, runner.spec.vocab) for _ in range(prompt))
        runner.add(Job(i, ids, new, 0.6, seed=i, ignore_eos=True))
    begin, host, most, steps = time.perf_counter(), 0.0, 0, 0
    while not runner.idle:
        at = time.process_time()
        runner.step()
        host, steps, most = host + time.process_time() - at, steps + 1, max(most, len(runner.scheduler.running))
    wall, new = time.perf_counter() - begin, runner.scheduler.tokens_out - before[0]
    assert new == sum(n for _, n in pairs), "every token, once"
    figures = {
        "tok_s": new / wall,
        "ms_step": wall / steps * 1e3,
        "rows at once": most,
        "preempted": runner.scheduler.preempted - before[1],
    }
    return {**figures, "host CPU ms a step": host / steps * 1e3}


def greedy(runner: Any) -> list[list[int]]:
    """Tokens of prompts beyond the window: whole, in chunks beside others, and shared."""
    from holynb.pool.protocol import Job

    dice = random.Random(2)
    head = [dice.randrange(5, runner.spec.vocab) for _ in range(2500)]
    said: dict[int, list[int]] = {i: [] for i in range(6)}
    for i in said:
        runner.add(Job(i, (*head[: 400 * i + 500], i + 7), 48, ignore_eos=True))
    while not runner.idle:
        for emit in runner.step():
            said[emit.id] += emit.tokens
    return list(said.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--memory", type=float, default=0.35)
    parser.add_argument("--tiny", action="store_true", help="a shape for a CPU, to try the script")
    given = parser.parse_args()
    import torch

    begin, tokens = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        (folder / "config.json").write_text(json.dumps(GEMMA_3_12B | (TINY if given.tiny else {}) | {"num_hidden_layers": given.layers}))
        for groups in (8, 1):
            runner = made(folder, groups, given.memory)
            held = f"{runner.blocks.groups} groups, {runner.kv_bytes / 1e9:.1f} GB hold {runner.blocks.total:,} blocks"
            print(f"{held}, one row at most {runner.blocks.capacity:,} tokens; {time.perf_counter() - begin:.1f} s", flush=True)
            tokens[groups] = greedy(runner)
            runner.warm()
            for kind in ("mixed", "long"):
                if time.perf_counter() - begin < given.seconds:
                    figures = rate(runner, work(kind))
                    print(groups, kind, {k: round(v, 3) for k, v in figures.items()}, f"{time.perf_counter() - begin:.1f} s", flush=True)
            del runner
            torch.cuda.empty_cache()
    same = sum(a == b for one, other in zip(tokens[8], tokens[1], strict=True) for a, b in zip(one, other, strict=True))
    print(f"greedy tokens alike in groups and in one: {same} of {sum(map(len, tokens[1]))}")


if __name__ == "__main__":
    main()
