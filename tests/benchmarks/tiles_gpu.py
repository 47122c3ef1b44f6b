"""Tiles of matrix products, searched within the whole decode step on one GPU: what is fastest alone need not be among its neighbours.

    python tests/benchmarks/tiles_gpu.py [--size 8b] [--dtype bfloat16|fp8] [--rows 1,8,64] [--context 256] [--seconds 120]

A kernel's programs take the places that the next one's wait for, and what it asks for ahead is taken from the one before. So each candidate
is put into the captured step of so many rows and the step is timed on the device; one that makes it faster twice is kept, and the next
matrix is searched with it. Random weights of the Qwen3 shapes. Prints each matrix' four best, and the layer before and after.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

#: Milliseconds by which a candidate must make a step faster: above what one measurement differs from the next.
GAIN_MS = 0.0015


def refined(now: Any) -> Iterator[Any]:
    """The same tiles with W asked for earlier or later, and the next kernel."""
    if hasattr(now, "ahead"):
        yield from (replace(now, ahead=lines) for lines in (0, 2, 4, 8, 16, 32) if lines != now.ahead)
        yield replace(now, dependents_last=not now.dependents_last)


def candidates(name: str, rows: int, dtype: str, now: Any) -> Iterator[Any]:
    """Tiles worth trying for this matrix, in eight bits from what is `now` there."""
    from kernels_support.gpu.gemm_few import FewRowsTiles
    from kernels_support.gpu.gemm_wide import WideTiles

    if dtype == "fp8":
        changes: list[dict[str, Any]] = [{"stages": n} for n in (2, 3, 4, 5)]
        changes += [{"n": n, "stages": s} for n in (16, 32, 64) for s in (2, 3, 4)] + [{"warps": n} for n in (2, 4, 8)]
        yield from (replace(now, **change) for change in changes)
        return
    if rows <= 8:
        for shape in ((16, 64, 4), (16, 64, 2), (16, 64, 8), (16, 128, 4), (16, 128, 2), (32, 64, 4), (32, 128, 4)):
            yield from (FewRowsTiles(*shape, stages) for stages in (2, 3, 4, 6))
        return
    m = max(16, 1 << (rows - 1).bit_length())
    if name == "gate_up":
        yield from (WideTiles(m, n, k, s, w) for n, w in ((64, 4), (96, 8)) for k, s in ((64, 3), (64, 4), (64, 5), (128, 2), (128, 3)))
        return
    for split in (1,) if name == "qkv" else (1, 2, 4, 8):
        yield from (WideTiles(m, n, k, s, w, split) for n, w in ((64, 4), (128, 8)) for k, s in ((64, 4), (64, 5), (64, 8), (128, 3)))


class Search:
    """The engine's products, some of them by other tiles. `tiles`: by rows of x and shape of W."""

    def __init__(self, runner: Any, dtype: str) -> None:
        from holynb.pool.engine import model
        from kernels_support.gpu import dense, gemm_few, gemm_fp8_few, gemm_wide

        self.runner, self.executor = runner, getattr(runner.executor, "kernels", runner.executor)
        self.tiles: dict[tuple[int, int, int], Any] = {}
        self._kept: list[Any] = []  # a graph's memory pool is another's, too
        runner.executor = self.executor
        pick, linear, split_k, swiglu = gemm_fp8_few.pick_tiles, dense.linear, dense.linear_split_k, dense.swiglu
        self.rows = 1
        if dtype == "fp8":
            gemm_fp8_few.pick_tiles = lambda n, k, *, gated=False: self.tiles.get((self.rows, n, k)) or pick(n, k, gated=gated)
            return

        def other(x: Any, weight: Any, bias: Any, out: Any = None, *, gated: bool = False) -> Any:
            columns = weight.shape[0] // (2 if gated else 1)
            tiles = self.tiles.get((x.shape[0], columns, weight.shape[1]))
            if tiles is None:
                return None
            by = gemm_few if isinstance(tiles, gemm_few.FewRowsTiles) else gemm_wide
            return by.launch(x, weight, bias, tiles, out, gated=gated)

        def or_else(found: Any, usual: Any) -> Any:
            return usual() if found is None else found

        model.linear = lambda x, w, b=None, out=None: or_else(other(x, w, b, out), lambda: linear(x, w, b, out))
        model.linear_split_k = lambda x, w, b=None: or_else(other(x, w, b), lambda: split_k(x, w, b))
        model.swiglu = lambda x, w, b=None, down=None, act="silu": or_else(
            other(x, w, b, gated=True), lambda: swiglu(x, w, b, down, act=act)
        )

    def ms(self, context: int) -> float:
        """A step on the device, captured anew; infinite where the tiles do not fit the device."""
        from engine_gpu import replay

        self._kept.append(dict(self.executor._graphs))
        self.executor._graphs.clear()
        try:
            return sorted(replay(self.runner, self.rows, context) for _ in range(5))[1]
        except Exception as exc:
            if "out of resource" not in str(exc) and "divi" not in str(exc):
                raise
            return float("inf")

    def layer(self) -> str:
        from layer_gpu import ends, table

        return table(ends(self.executor.graph(self.rows)))


def search(found: Search, shapes: dict[str, tuple[int, int]], rows: int, context: int, dtype: str, until: float) -> None:
    """One number of rows: each matrix in turn."""
    from kernels_support.gpu import gemm_fp8_few

    found.tiles.clear()
    found.rows = rows
    best = min(found.ms(context), found.ms(context))
    print(f"{rows} rows: {best:.4f} ms, {found.layer()}", flush=True)
    for name, (n, k) in shapes.items():
        key, tried = (rows, n, k), []

        def now(name: str = name, n: int = n, k: int = k) -> Any:
            picked = gemm_fp8_few.pick_tiles(n, k, gated=name == "gate_up") if dtype == "fp8" else None
            return found.tiles.get((rows, n, k), picked)

        for tiles in chain(candidates(name, rows, dtype, now()), (t for _ in range(2) for t in refined(now()))):
            share = tiles.k * (getattr(tiles, "split", 1) if rows > 8 and dtype != "fp8" else tiles.warps)
            if time.monotonic() > until or k % share or n % tiles.n:
                continue
            before, found.tiles[key] = found.tiles.get(key), tiles
            ms = found.ms(context)
            tried.append((ms, str(tiles)))
            if ms < best - GAIN_MS and (again := found.ms(context)) < best - GAIN_MS:
                best = min(ms, again)
            elif before is None:
                del found.tiles[key]
            else:
                found.tiles[key] = before
        print(f"{rows} rows, {name}: {best:.4f} ms with {found.tiles.get(key)}; tried {len(tried)}, best {sorted(tried)[:4]}", flush=True)
    print(f"{rows} rows now: {found.ms(context):.4f} ms, {found.layer()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--dtype", choices=("bfloat16", "fp8"), default="bfloat16")
    parser.add_argument("--rows", default="1,8,64", help="in eight bits up to 8")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=120)
    given = parser.parse_args()
    import torch
    from engine_gpu import folder

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    until = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as root, torch.inference_mode():
        path = folder(given.size, Path(root))
        spec = read_spec(path)
        source = random_weights(spec, "cuda:0", torch.bfloat16)
        found = Search(Runner(path, device="cuda:0", dtype=given.dtype, max_len=2112, source=source), given.dtype)
        queries, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        shapes = {
            "gate_up": (spec.inner, spec.hidden),
            "down": (spec.hidden, spec.inner),
            "qkv": (queries + 2 * kv, spec.hidden),
            "out": (spec.hidden, queries),
        }
        for rows in given.rows.split(","):
            search(found, shapes, int(rows), given.context, given.dtype, until)


if __name__ == "__main__":
    main()
