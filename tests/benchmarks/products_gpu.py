"""The four products of a dense layer on one GPU, by tile: 64 to 256 rows in bfloat16 and in FP8, beside what is taken today and the library.

    python tests/benchmarks/products_gpu.py [--dtypes bfloat16,fp8] [--rows 64,128,256] [--best 3]

Microseconds, matrices of 8B, several of them in a graph so that none is in a cache, each with the kernel that reads its result: `gate_up`
with SiLU · up and, in FP8, rounding; `out` and `down` with the residual addition and norm, which adds up split-K's parts. Every tile's
result is compared with float32's once.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

#: Of 8B: name, n (of gate_up: of each), k.
MATRICES = {"qkv": (6144, 4096), "out": (4096, 4096), "gate_up": (12288, 4096), "down": (4096, 12288)}
NORMED = ("out", "down")
EPS = 1e-6


def candidates(dtype: str, name: str, rows: int) -> list[tuple[int, ...]]:
    """m, n, k, stages, warps, split."""
    m = 64 if rows <= 64 else 128
    split = (1, 2, 4) if name in NORMED else (1,)
    if dtype == "fp8":
        if name == "gate_up":
            tiles = [(m, 64, 128, s, 4, 1) for s in (3, 4, 8)] + [(m, 96, 128, s, w, 1) for s in (4, 6) for w in (4, 8)]
            tiles += [(m, 128, 128, s, 8, 1) for s in (3, 4)]
            return tiles + ([(256, 64, 128, 4, 8, 1), (256, 96, 128, 3, 8, 1)] if rows > 128 else [])
        wide = [
            (m, n, k, s, w, p)
            for (n, k, s, w), p in itertools.product(((64, 256, 4, 4), (64, 128, 6, 4), (128, 128, 4, 4), (128, 128, 6, 8)), split)
        ]
        wide += [(m, 256, 128, 4, 8, p) for p in (4, 8)] if name in NORMED else []
        return wide + ([(256, n, 128, 4, 8, p) for n in (64, 128) for p in split] if rows > 128 else [])
    if name == "gate_up":
        tiles = [(m, 64, 64, s, w, 1) for s, w in ((3, 4), (4, 4), (6, 4), (4, 8))] + [(m, 96, 64, s, 8, 1) for s in (4, 5)]
        tiles += [(m, 128, 64, s, 8, 1) for s in (3, 4)]
        return tiles + ([(256, 64, 64, s, 8, 1) for s in (3, 4)] + [(256, 96, 64, 3, 8, 1)] if rows > 128 else [])
    wide = [
        (m, n, k, s, w, p)
        for (n, k, s, w), p in itertools.product(((64, 64, 5, 4), (64, 128, 3, 4), (128, 64, 4, 4), (128, 64, 6, 8)), split)
    ]
    wide += [(m, 256, 64, 4, 8, p) for p in (4, 8)] if name in NORMED else [(64, 128, 64, 5, 4, 1)]
    return wide + ([(256, n, 64, 4, 8, p) for n in (64, 128) for p in split] if rows > 128 else [])


def weight(dtype: str, name: str, device: str) -> Any:
    import torch

    from kernels_support.gpu.fp8_matrix import Fp8Matrix, quantize_matrix

    n, k = MATRICES[name]
    n *= 2 if name == "gate_up" else 1
    if device == "meta":
        if dtype == "fp8":
            return Fp8Matrix(torch.empty(n, k, dtype=torch.float8_e4m3fn, device=device), torch.empty(n, device=device))
        return torch.empty(n, k, dtype=torch.bfloat16, device=device)
    plain = torch.empty(n, k, dtype=torch.bfloat16, device=device).normal_(std=0.02)
    return quantize_matrix(plain) if dtype == "fp8" else plain


def product(dtype: str, name: str, x: Any, matrix: Any, tiles: tuple[int, ...]) -> Any:
    """By our kernel: (rows, n), or the parts of split-K."""
    import torch

    from kernels_support.gpu import gemm_fp8, gemm_wide

    n, gated = MATRICES[name][0], name == "gate_up"
    if dtype == "bfloat16":
        return gemm_wide.launch(x, matrix, None, gemm_wide.WideTiles(*tiles), gated=gated)
    rows, split = x.values.shape[0], tiles[5]
    like = {"dtype": torch.bfloat16 if split == 1 else torch.float32, "device": x.values.device}
    out = torch.empty(rows, n, **like) if split == 1 else torch.empty(split, rows, n, **like)
    return gemm_fp8.launch(x, matrix, None, out, gemm_fp8.Fp8Tiles(*tiles))


def compiled(case: tuple[str, str, int, tuple[int, ...]]) -> int:
    """In a process of its own: fills Triton's cache."""
    import torch

    from kernels_support.gpu.lang import record_launches
    from kernels_support.gpu.quantize_fp8 import FP8, Quantized

    dtype, name, rows, tiles = case
    k = MATRICES[name][1]
    x: Any = torch.empty(rows, k, dtype=torch.bfloat16, device="meta")
    if dtype == "fp8":
        x = Quantized(torch.empty(rows, k, dtype=FP8, device="meta"), torch.empty(rows, 1, device="meta"), torch.bfloat16)
    with record_launches() as recorded:
        product(dtype, name, x, weight(dtype, name, "meta"), tiles)
    try:
        for one in recorded.values():
            one.compile(load=False)
    except Exception:  # noqa: BLE001 - too much shared memory: it is left out below
        return 0
    return len(recorded)


def line(dtype: str, name: str, rows: int, best: int) -> None:
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import dense
    from kernels_support.gpu.fp8_matrix import dequantize
    from kernels_support.gpu.norms import add_rms_norm, add_rms_norm_fp8
    from kernels_support.gpu.quantize_fp8 import quantize_fp8

    k, eight = MATRICES[name][1], dtype == "fp8"
    matrices = [weight(dtype, name, "cuda") for _ in range(6)]
    plain = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    x: Any = quantize_fp8(plain) if eight else plain
    residual, norm = torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16), torch.ones(4096, device="cuda", dtype=torch.bfloat16)
    wide = dequantize(matrices[0]) if eight else matrices[0].float()
    exact = (x.values.float() * x.scales if eight else x.float()) @ wide.t()
    if name == "gate_up":
        gate, up = exact.chunk(2, 1)
        exact = torch.nn.functional.silu(gate) * up

    def then(result: Any) -> Any:
        if name in NORMED:
            return add_rms_norm_fp8(result, residual, norm, EPS, None) if eight else add_rms_norm(result, residual, norm, EPS)
        return quantize_fp8(result) if eight and name == "gate_up" and isinstance(result, torch.Tensor) else result

    def today(matrix: Any) -> Any:
        if name == "gate_up":
            return dense.swiglu(x, matrix, None, matrices[0])
        return dense.linear_split_k(x, matrix) if name in NORMED else dense.linear(x, matrix)

    def micros(work: Callable[[Any], Any]) -> float:
        return timed(lambda: [then(work(matrix)) for matrix in matrices]) * 1e6 / len(matrices)

    before, times, wrong = micros(today), {}, []
    for tiles in candidates(dtype, name, rows):
        try:
            ours = product(dtype, name, x, matrices[0], tiles)
            ours = ours if ours.dim() == 2 else ours.sum(0)
            error = float((ours.float() - exact).norm() / exact.norm())
            if not error < 1e-2:
                wrong.append((tiles, error))
            times[tiles] = micros(lambda matrix, tiles=tiles: product(dtype, name, x, matrix, tiles))
        except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
            if "shared" not in str(exc).lower() and "resource" not in str(exc).lower():
                wrong.append((tiles, f"{type(exc).__name__} {exc}"[:80]))
    shown = ", ".join(f"{'/'.join(map(str, t))} {us:.1f}" for t, us in sorted(times.items(), key=lambda item: item[1])[:best])
    floor = sum(m.nbytes for m in matrices) / len(matrices) / 4.3e6
    print(f"{dtype} {rows:4} {name:8} floor {floor:5.1f} today {before:5.1f}; {shown}", *wrong[:3], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", default="bfloat16,fp8")
    parser.add_argument("--rows", default="64,128,256")
    parser.add_argument("--only", default=",".join(MATRICES))
    parser.add_argument("--best", type=int, default=3)
    given = parser.parse_args()
    dtypes, rows = given.dtypes.split(","), [int(r) for r in given.rows.split(",")]
    names = given.only.split(",")
    cases = [(d, name, r, t) for d, name, r in itertools.product(dtypes, names, rows) for t in candidates(d, name, r)]
    # One of those that share a compilation: only SwiGLU is another kernel.
    cases = list({(d, name == "gate_up", t): (d, name, r, t) for d, name, r, t in cases}.values())
    begin = time.perf_counter()
    with get_context("fork").Pool(15) as pool:  # before CUDA is begun here
        print("kernels compiled:", sum(pool.map(compiled, cases, chunksize=1)), f"{time.perf_counter() - begin:.0f} s", flush=True)
    for dtype, r, name in itertools.product(dtypes, rows, names):
        line(dtype, name, r, given.best)


if __name__ == "__main__":
    main()
