"""A cache of FP8 on one GPU: decode attention alone over the states of mixed work, by tile, then whole runs beside a plain cache.

    python tests/benchmarks/engine_kv_fp8.py [--only attention|runs] [--sizes 0.6b,8b]

Attention: TB/s of keys and values read, twelve layers in a graph, each with a cache of its own; the tiles that `paged.decode_tile` takes are
marked. A plain cache is measured beside it. Runs: `engine_gpu.py`'s mixed work; 0.6B in bfloat16, 8B with matrices of eight bits.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

LAYERS, KV, SIZE, PAGE = 12, 8, 128, 16

#: Rows of the batch, and tokens that the longest of them has behind its prompt: as the mixed work goes on.
STATES = ((256, 60), (196, 420), (142, 600), (106, 740), (64, 860), (32, 940), (8, 1000), (1, 1000))

#: Tokens of a tile, warps, stages.
TILES = (
    (32, 1, 3),
    (32, 1, 4),
    (64, 1, 3),
    (64, 2, 3),
    (64, 2, 4),
    (64, 4, 3),
    (64, 4, 4),
    (128, 2, 3),
    (128, 4, 2),
    (128, 4, 3),
    (128, 8, 3),
)


def lengths(rows: int, step: int) -> list[int]:
    dice = random.Random(rows)
    return sorted((dice.randint(100, 1024) + dice.randint(step // 2, step + 100) for _ in range(rows)), reverse=True)


def chain(rows: int, step: int, heads: int, kind: Any) -> tuple[Any, int]:
    """The launches of LAYERS layers, and the bytes that they read."""
    import torch

    from kernels_support.gpu.paged import Decode, splits

    counts = lengths(rows, step)
    width = max(-(-n // PAGE) for n in counts)
    blocks = sum(-(-n // PAGE) for n in counts)
    order, at = torch.randperm(blocks), 0
    table = torch.zeros(rows, width, dtype=torch.int32)
    for i, n in enumerate(counts):
        used = -(-n // PAGE)
        table[i, :used] = order[at : at + used]
        at += used
    table, tokens = table.cuda(), torch.tensor(counts, dtype=torch.int32, device="cuda")
    caches = [torch.randn(2, KV, blocks * PAGE, SIZE, device="cuda", dtype=torch.bfloat16).to(kind) for _ in range(LAYERS)]
    q, scales = torch.randn(rows, heads, SIZE, device="cuda", dtype=torch.bfloat16), torch.ones(2, KV, device="cuda")
    decode = Decode(table, tokens, PAGE, splits(rows, KV), torch.arange(rows, dtype=torch.int32, device="cuda"))

    def run() -> None:
        for keys, values in caches:
            decode(q, keys, values, scales)

    return run, LAYERS * 2 * KV * SIZE * kind.itemsize * sum(counts)


def timed(run: Any) -> float:
    """Seconds of one replay of a graph of it."""
    import torch

    for _ in range(2):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(2):
        graph.replay()
    begin.record()
    for _ in range(5):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 5e3


def compiled(tile: tuple[int, int, int]) -> int:
    """In a process of its own: fills Triton's cache."""
    import torch

    from kernels_support.gpu import paged
    from kernels_support.gpu.lang import record_launches
    from kernels_support.gpu.quantize_fp8 import FP8

    paged.decode_tile = lambda *_, **__: tile  # type: ignore[assignment]
    with record_launches() as recorded:
        for rows, _ in STATES:
            ints = torch.empty(rows, 128, dtype=torch.int32, device="meta")
            q = torch.empty(rows, 16, SIZE, dtype=torch.bfloat16, device="meta")
            cache = torch.empty(2, KV, 4096, SIZE, dtype=FP8, device="meta")
            scales = torch.empty(2, KV, dtype=torch.float32, device="meta")
            paged.Decode(ints, ints[:, 0].contiguous(), PAGE, paged.splits(rows, KV), ints[:, 0].contiguous())(q, *cache, scales)
    for launch in recorded.values():
        launch.compile(load=False)
    return len(recorded)


def attention() -> None:
    import torch

    from kernels_support.gpu import paged
    from kernels_support.gpu.quantize_fp8 import FP8

    begin, chosen = time.perf_counter(), paged.decode_tile
    with ProcessPoolExecutor(8, get_context("spawn")) as pool:
        print("kernels compiled:", sum(pool.map(compiled, TILES)), f"{time.perf_counter() - begin:.0f} s", flush=True)
    for rows, step in STATES:
        run, size = chain(rows, step, 16, FP8)
        rates, own = {}, chosen(rows * KV, paged.splits(rows, KV), 2 * SIZE, eights=True)
        for tile in dict.fromkeys((*TILES, own)):
            paged.decode_tile = lambda *_, tile=tile, **__: tile  # type: ignore[assignment]
            try:
                rates[tile] = size / timed(run) / 1e12
            except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
                print(tile, type(exc).__name__, flush=True)
        paged.decode_tile = chosen
        del run
        plain, bytes_of = chain(rows, step, 16, torch.bfloat16)
        best = sorted(rates.items(), key=lambda item: -item[1])[:4]
        shown = ", ".join(f"{t[0]}/{t[1]}/{t[2]} {r:.2f}" for t, r in best)
        print(
            f"{rows:4} rows, splits {paged.splits(rows, KV):2}: plain {bytes_of / timed(plain) / 1e12:.2f}; eights "
            f"{own[0]}/{own[1]}/{own[2]} (taken) {rates.get(own, 0):.2f}; best {shown}",
            flush=True,
        )
        del plain
        torch.cuda.empty_cache()
    prefill()


def prefill() -> None:
    """Attention of 16 prompts of 512 tokens, microseconds a layer: plain, eights."""
    import torch

    from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Prefill
    from kernels_support.gpu.quantize_fp8 import FP8

    rows, length = 16, 512
    tiles = torch.tensor([(r, t) for r in range(rows) for t in range(0, length, PREFILL_TILE_QUERIES)], dtype=torch.int32, device="cuda")
    spans = torch.tensor([(r * length, length, length) for r in range(rows)], dtype=torch.int32, device="cuda")
    table = torch.arange(rows * length // PAGE, dtype=torch.int32, device="cuda").view(rows, -1)
    attend, shown = Prefill(table, tiles, spans, PAGE), []
    for kind in (torch.bfloat16, FP8):
        cache = torch.randn(2, KV, rows * length, SIZE, device="cuda", dtype=torch.bfloat16).to(kind)
        q, scales = torch.randn(rows * length, 32, SIZE, device="cuda", dtype=torch.bfloat16), torch.ones(2, KV, device="cuda")
        shown.append(timed(lambda cache=cache, q=q, scales=scales: attend(q, *cache, scales)) * 1e6)
    print("prefill, µs a layer: plain {:.0f}, eights {:.0f}".format(*shown), flush=True)


def runs(sizes: list[str]) -> None:
    import torch
    from engine_gpu import errors, folder, rate
    from engine_gpu import lengths as pairs

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    with tempfile.TemporaryDirectory() as root:
        for size in sizes:
            path, dtype = folder(size, Path(root)), "bfloat16" if size == "0.6b" else "fp8"
            source = random_weights(read_spec(path), "cuda:0", torch.bfloat16)
            runner = Runner(path, device="cuda:0", dtype=dtype, max_len=2112, kv="fp8", source=source)
            runner.warm()
            print(size, dtype, "weights, fp8 cache; relative errors:", {k: f"{v:.1e}" for k, v in errors(runner).items()}, flush=True)
            rate(runner, [(p, min(n, 8)) for p, n in pairs("mixed")][:64], 1)
            for work in ("one", "mixed", "mixed"):
                print(size, work, {k: round(v, 3) for k, v in rate(runner, pairs(work), 2).items()}, flush=True)
            del runner, source
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("attention", "runs"))
    parser.add_argument("--sizes", default="0.6b,8b")
    given = parser.parse_args()
    if given.only != "runs":
        attention()
    if given.only != "attention":
        runs(given.sizes.split(","))


if __name__ == "__main__":
    main()
