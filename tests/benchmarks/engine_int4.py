"""Matrices of four bits on one GPU: products of 8B's matrices alone, by tile, then whole runs of a random 8B in compressed-tensors' packing.

    python tests/benchmarks/engine_int4.py [--only products|runs]

Products: microseconds, ten matrices in a graph so that none is in a cache; beside them bfloat16 by torch and the bytes at 4.3 TB/s. The
tiles that `gemm_int4.pick_tiles` takes come first, then the best others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from dataclasses import replace
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


def products() -> None:
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import gemm_int4, int4
    from kernels_support.gpu.int4_matrix import Int4Matrix, dequantize

    for name, n, k, gated, parts in MATRICES:
        words = torch.randint(-(2**15), 2**15, (10, n, k // 4), dtype=torch.int16, device="cuda")
        scales, zeros = torch.rand(k // 128, n, device="cuda") * 0.01, torch.full((k // 128, n), 8.0, device="cuda")
        fours = [Int4Matrix(w, scales, zeros) for w in words]
        plain = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(10)]
        x = torch.randn(3, k, device="cuda", dtype=torch.bfloat16)
        exact = x.float() @ dequantize(fours[0]).t()
        ours = int4.linear(x, fours[0]).float()
        print(
            f"{name}: relative error {((ours - exact).norm() / exact.norm()).item():.1e}; {words[0].nbytes / 4.3e6:.1f} µs of bytes",
            flush=True,
        )
        for rows in (1, 16, 64, 128, 256, 2048):
            x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
            width = n // 2 if gated else n
            taken = gemm_int4.pick_tiles(rows, width, k // 128, 128, split_k=parts)
            wide = 1e5 * timed(lambda x=x, plain=plain: [torch.nn.functional.linear(x, w) for w in plain])
            unpacked = 1e5 * timed(lambda x=x, fours=fours: [torch.nn.functional.linear(x, gemm_int4.widen(w, x.dtype)) for w in fours])
            times: dict[Any, float] = {}
            base = taken or gemm_int4.Int4Tiles(128, 64, 3)
            others = [
                replace(base, m=m, stages=stages, warps=warps, split=split)
                for m, stages, warps, split in itertools.product(
                    dict.fromkeys((base.m, min(128, 2 * base.m))), (3, 5), (4, 8), (1, 2, 4) if parts else (1,)
                )
            ]
            for tiles in dict.fromkeys([base, *(others if rows in {1, 64, 128} else [])]):
                try:
                    times[tiles] = 1e5 * timed(
                        lambda x=x, fours=fours, tiles=tiles, gated=gated: [gemm_int4.launch(x, w, None, tiles, gated=gated) for w in fours]
                    )
                except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
                    print(tiles, type(exc).__name__, flush=True)
            best = sorted(times.items(), key=lambda item: item[1])[:3]
            shown = ", ".join(f"{t.m}/{t.stages}/{t.warps}/{t.split} {us:.1f}" for t, us in best)
            print(
                f"  {rows:4} rows: bfloat16 {wide:.1f}, widened first {unpacked:.1f}, "
                f"{'taken' if taken else 'not taken'} {base.m}/{base.stages}/{base.warps}/{base.split} {times.get(base, 0):.1f}; best {shown}",
                flush=True,
            )


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
    given = parser.parse_args()
    if given.only != "runs":
        products()
    if given.only != "products":
        runs()


if __name__ == "__main__":
    main()
