"""Matrices of four bits on one GPU: products of 8B's matrices alone, by tile, then whole runs of a random 8B in compressed-tensors' packing.

    python tests/benchmarks/engine_int4.py [--only products|runs] [--rows 1,8,16,64,128,256]

Products: microseconds, ten matrices in a graph so that none is in a cache; beside them bfloat16 by torch and the bytes at 4.3 TB/s. The
tiles that are taken come first (of few rows n / warps / stages / split, of more m / n / stages / warps / split), then the best others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import astuple, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

#: Of 8B: name, n, k, whether it is gate and up, whether its reader takes parts.
MATRICES = (("qkv", 6144, 4096, False, False), ("out", 4096, 4096, False, True), ("gate_up", 24576, 4096, True, False))
MATRICES += (("down", 4096, 12288, False, True),)

CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True, "dynamic": False},
        }
    },
}


#: Rows of x that the kernel of few rows is swept for, and its tiles.
FEW_ROWS = (1, 8, 16)
FEW = [(n, warps, stages, 1) for n, warps, stages in itertools.product((16, 32), (4, 8), (2, 3, 4))]
FEW += [(64, 8, 3, 1), (64, 4, 3, 1), (32, 8, 2, 2), (32, 4, 3, 2), (16, 8, 3, 2), (32, 2, 4, 1)]


def few_launch(n: int, k: int, gated: bool, rows: int, tiles: tuple[int, int, int, int], **device: Any) -> Any:
    """One product by the kernel of few rows, of matrices that hold nothing yet."""
    import torch

    from kernels_support.gpu import gemm_int4_few
    from kernels_support.gpu.int4_matrix import Int4Matrix

    scales = torch.empty(k // 128, n, dtype=torch.float32, **device)
    matrix = Int4Matrix(torch.empty(n, k // 4, dtype=torch.int16, **device), scales, torch.empty_like(scales))
    x = torch.empty(rows, k, dtype=torch.bfloat16, **device)
    return gemm_int4_few.launch(x, matrix, None, gemm_int4_few.FewInt4Tiles(*tiles), gated=gated)


def compiled(tiles: tuple[int, int, int, int]) -> int:
    """In a process of its own: fills Triton's cache."""
    from kernels_support.gpu.lang import record_launches

    with record_launches() as recorded:
        for (_, n, k, gated, parts), rows in itertools.product(MATRICES, FEW_ROWS):
            if parts or tiles[3] == 1:
                few_launch(n, k, gated, rows, tiles, device="meta")
    for launch in recorded.values():
        launch.compile(load=False)
    return len(recorded)


def products(rows: list[int]) -> None:
    begin = time.perf_counter()
    with get_context("fork").Pool(14) as pool:  # before CUDA is begun here
        print("kernels compiled:", sum(pool.map(compiled, FEW, chunksize=1)), f"{time.perf_counter() - begin:.0f} s", flush=True)
    for matrix in MATRICES:
        product(*matrix, rows)


def product(name: str, n: int, k: int, gated: bool, parts: bool, given: list[int]) -> None:
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import gemm_int4, gemm_int4_few, int4
    from kernels_support.gpu.int4_matrix import Int4Matrix, dequantize

    words = torch.randint(-(2**15), 2**15, (10, n, k // 4), dtype=torch.int16, device="cuda")
    scales, zeros = torch.rand(k // 128, n, device="cuda") * 0.01, torch.full((k // 128, n), 8.0, device="cuda")
    fours = [Int4Matrix(w, scales.clone(), zeros.clone()) for w in words]
    plain = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(10)]
    for rows in (3, 40):
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        exact, ours = x.float() @ dequantize(fours[0]).t(), int4.linear(x, fours[0]).float()
        print(f"{name}: {rows} rows, relative error {((ours - exact).norm() / exact.norm()).item():.1e}", flush=True)
    print(f"  {words[0].nbytes / 4.3e6:.1f} µs of bytes", flush=True)
    for rows in given:
        x, width, times = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16), n // 2 if gated else n, {}
        wide = 1e5 * timed(lambda x=x: [torch.nn.functional.linear(x, w) for w in plain])
        taken: Any = int4.few_tiles(x, fours[0], split_k=parts, gated=gated)
        taken = taken or gemm_int4.pick_tiles(rows, width, k // 128, 128, split_k=parts)
        others: list[Any] = []
        if rows in FEW_ROWS:
            others = [gemm_int4_few.FewInt4Tiles(*tiles) for tiles in FEW if parts or tiles[3] == 1]
        elif rows in {64, 128}:
            base, splits = taken or gemm_int4.Int4Tiles(64, 64, 3), (1, 2, 4) if parts else (1,)
            others = [
                replace(base, m=m, stages=stages, split=split) for m, stages, split in itertools.product((64, rows), (2, 3, 4), splits)
            ]
        unpacked = 1e5 * timed(lambda x=x: [torch.nn.functional.linear(x, gemm_int4.widen(w, x.dtype)) for w in fours]) if rows > 16 else 0
        for tiles in dict.fromkeys([taken, *others] if taken else others):
            module = gemm_int4_few if isinstance(tiles, gemm_int4_few.FewInt4Tiles) else gemm_int4
            try:
                times[tiles] = 1e5 * timed(
                    lambda x=x, tiles=tiles, module=module: [module.launch(x, w, None, tiles, gated=gated) for w in fours]
                )
            except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
                print(tiles, type(exc).__name__, flush=True)
        best = sorted(times.items(), key=lambda item: item[1])[: 5 if rows in FEW_ROWS else 3]
        shown = ", ".join(f"{'/'.join(map(str, astuple(t)))} {us:.1f}" for t, us in best)
        own = "none" if taken is None else f"{'/'.join(map(str, astuple(taken)))} {times.get(taken, 0):.1f}"
        print(f"  {rows:4} rows: bfloat16 {wide:.1f}, widened first {unpacked:.1f}, taken {own}; best {shown}", flush=True)


def runs() -> None:
    import torch
    from engine_gpu import folder, lengths, rate

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    with tempfile.TemporaryDirectory() as root:
        path = folder("8b", Path(root))
        config = json.loads((path / "config.json").read_text("utf-8"))
        (path / "config.json").write_text(json.dumps(config | {"quantization_config": CONFIG}), "utf-8")
        spec = read_spec(path)
        plain = random_weights(spec, "cuda:0", torch.bfloat16)

        def source(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Any:
            module, kind = name.rsplit(".", 1)
            if not module.endswith("_proj"):
                return plain(name, rows, columns)
            if kind not in {"weight_packed", "weight_scale"}:
                return None
            n, k = plain(f"{module}.weight", rows).shape  # type: ignore[union-attr]
            if kind == "weight_scale":
                return torch.full((n, k // 128), 0.02 / 4.6, device="cuda:0")
            return torch.randint(-(2**31), 2**31 - 1, (n, k // 8), dtype=torch.int32, device="cuda:0")

        runner = Runner(path, device="cuda:0", max_len=2112, source=source)
        runner.warm()
        rate(runner, [(p, min(n, 8)) for p, n in lengths("64")], 1)
        for work in ("one", "64", "256"):
            print("8b of four bits,", work, {k: round(v, 3) for k, v in rate(runner, lengths(work), 2).items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("products", "runs"))
    parser.add_argument("--rows", default="1,8,16,64,128,256")
    given = parser.parse_args()
    if given.only != "runs":
        products([int(r) for r in given.rows.split(",")])
    if given.only != "products":
        runs()


if __name__ == "__main__":
    main()
