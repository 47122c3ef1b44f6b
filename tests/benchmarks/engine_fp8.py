"""Matrices of eight bits on one GPU: products of few rows by tile, then whole decode steps of a random 8B, alone and by the profiler.

    python tests/benchmarks/engine_fp8.py [--only products|steps] [--without] [--rows 1,2,4,8,64,128,256]

Products: microseconds of 8B's matrices, ten of them in a graph so that none is in a cache: plain x by the kernel of few rows, and beside it
x put in eight bits by a kernel and multiplied by the next. Steps: milliseconds of one captured step on the device alone, contexts of 256
tokens, with the kernel of few rows or without; then where a step of one row goes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

#: Of 8B: name, n, k, whether it is gate and up.
MATRICES = (("qkv", 6144, 4096, False), ("out", 4096, 4096, False), ("gate_up", 24576, 4096, True), ("down", 4096, 12288, False))
ROWS = (1, 8)
#: n, k, warps, stages.
TILES = [(n, k, warps, stages) for n, k, warps, stages in itertools.product((16, 32), (128, 256), (4, 8), (1, 3)) if n * k < 8192]
TILES += [(16, 128, 8, 4), (16, 256, 8, 2), (32, 128, 8, 2), (32, 128, 16, 1), (16, 128, 16, 1)]


def launch(n: int, k: int, gated: bool, rows: int, tiles: tuple[int, ...], **device: Any) -> Any:
    import torch

    from kernels_support.gpu import gemm_fp8_few
    from kernels_support.gpu.fp8_matrix import Fp8Matrix

    matrix = Fp8Matrix(torch.empty(n, k, dtype=torch.float8_e4m3fn, **device), torch.empty(n, dtype=torch.float32, **device))
    x, out = (torch.empty(rows, width, dtype=torch.bfloat16, **device) for width in (k, n // 2 if gated else n))
    return gemm_fp8_few.launch(x, matrix, None, out, gemm_fp8_few.FewFp8Tiles(*tiles))


def compiled(tiles: tuple[int, ...]) -> int:
    """In a process of its own: fills Triton's cache."""
    from kernels_support.gpu.lang import record_launches

    with record_launches() as recorded:
        for (_, n, k, gated), rows in itertools.product(MATRICES, ROWS):
            if k % (tiles[1] * tiles[2]) == 0:
                launch(n, k, gated, rows, tiles, device="meta")
    for one in recorded.values():
        one.compile(load=False)
    return len(recorded)


def products() -> None:
    begin = time.perf_counter()
    with get_context("fork").Pool(14) as pool:  # before CUDA is begun here
        print("kernels compiled:", sum(pool.map(compiled, TILES, chunksize=1)), f"{time.perf_counter() - begin:.0f} s", flush=True)
    for matrix in MATRICES:
        product(*matrix)


def product(name: str, n: int, k: int, gated: bool) -> None:
    import torch

    from kernels_support.gpu import fp8
    from kernels_support.gpu.fp8_matrix import Fp8Matrix, dequantize, quantize_matrix

    eights = [quantize_matrix(torch.randn(n, k, device="cuda", dtype=torch.bfloat16)) for _ in range(10)]
    blocks = Fp8Matrix(eights[0].values, torch.rand(n // 128, k // 128, device="cuda") + 0.1)
    width = n // 2 if gated else n
    for kind, matrix in (("a scale a row", eights[0]), ("blocks", blocks)):
        x = torch.randn(3, k, device="cuda", dtype=torch.bfloat16)
        exact, ours = x.float() @ dequantize(matrix).t(), fp8.linear(x, matrix).float()
        print(f"{name}: {kind}, relative error {((ours - exact).norm() / exact.norm()).item():.1e}", flush=True)
    print(f"  {n * k / 4.3e6:.1f} µs of bytes", flush=True)
    for rows in ROWS:
        rates(rows, width, eights, gated=gated)


def rates(rows: int, width: int, eights: list[Any], *, gated: bool) -> None:
    """One line: the kernels that put x in eight bits, and the kernel of few rows with its tiles."""
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import fp8, gemm_fp8, gemm_fp8_few
    from kernels_support.gpu.quantize_fp8 import quantize_fp8

    k = eights[0].shape[1]
    x, out = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16), torch.empty(rows, width, device="cuda", dtype=torch.bfloat16)
    old, eight, times = gemm_fp8.pick_tiles(rows, width, k, gated=gated), quantize_fp8(x), {}
    assert old is not None
    alone = 1e5 * timed(lambda: [gemm_fp8.launch(eight, w, None, out, old) for w in eights])
    both = 1e5 * timed(lambda: [gemm_fp8.launch(quantize_fp8(x), w, None, out, old) for w in eights])
    taken = fp8.few_tiles(x, eights[0], gated=gated)
    for tiles in dict.fromkeys([taken, *(gemm_fp8_few.FewFp8Tiles(*t) for t in TILES if k % (t[1] * t[2]) == 0)]):
        if tiles is None:
            continue
        try:
            times[tiles] = 1e5 * timed(lambda tiles=tiles: [gemm_fp8_few.launch(x, w, None, out, tiles) for w in eights])
        except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
            print(tiles, type(exc).__name__, flush=True)
    best = sorted(times.items(), key=lambda item: item[1])[:6]
    shown = ", ".join(f"{'/'.join(map(str, astuple(t)))} {us:.1f}" for t, us in best)
    said = f"taken {'/'.join(map(str, astuple(taken)))} {times.get(taken, 0):.1f}" if taken else "none taken"
    print(f"  {rows:4} rows: eights {alone:.1f}, with x put in eights {both:.1f}; few rows, {said}; best {shown}", flush=True)


def steps(rows: list[int], *, without: bool) -> None:
    import torch
    from engine_gpu import folder, kernels, replay

    from holynb.pool.engine import model
    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec
    from kernels_support.gpu import fp8

    if without:
        fp8.few_tiles = model.few_tiles = lambda *_, **__: None
    with tempfile.TemporaryDirectory() as root:
        path = folder("8b", Path(root))
        runner = Runner(path, device="cuda:0", dtype="fp8", max_len=2112, source=random_weights(read_spec(path), "cuda:0", torch.bfloat16))
        with torch.inference_mode():
            print("8b fp8, ms a step:", {b: round(replay(runner, b, 256), 3) for b in rows}, flush=True)
            print(
                "kernels of a step of one row:", *(f"\n   {ms:8.3f} ms {n:4d} x {name}" for name, n, ms in kernels(runner, 1)), flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("products", "steps"))
    parser.add_argument("--rows", default="1,2,4,8,64,128,256")
    parser.add_argument("--without", action="store_true", help="steps as they are without the kernel of few rows")
    given = parser.parse_args()
    if given.only != "steps":
        products()
    if given.only != "products":
        steps([int(r) for r in given.rows.split(",")], without=given.without)


if __name__ == "__main__":
    main()
