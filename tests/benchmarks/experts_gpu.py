"""The experts' kernels alone on one GPU: which tiles are fastest for how many rows, beside torch._grouped_mm and a plain copy.

    python tests/benchmarks/experts_gpu.py [--shape 30b-a3b] [--dtype fp8] [--rows 1,2,4,8,16,64,256,2048,8192] [--seconds 75] [--out FILE]

Several layers, each with matrices and a router of its own, are captured in one CUDA graph, so that nothing is read from the L2 cache that a
model would read from memory; microseconds are of one layer. GB/s count the matrices of the experts that are hit, once; TFLOP/s what they are
multiplied by. What is best is printed as the tiles that `experts.py` should pick. Without a GPU: tiny sizes by Triton's interpreter, so that
the script itself can be tried (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from kernels_support.gpu import experts, experts_few_fp8, experts_grouped_fp8, routing
from kernels_support.gpu import experts_few as plain_few
from kernels_support.gpu import experts_grouped as plain_grouped
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.experts_few import FewTiles
from kernels_support.gpu.experts_grouped import GroupedTiles
from kernels_support.gpu.fp8_matrix import Fp8Matrices
from kernels_support.gpu.lang import record_launches
from kernels_support.gpu.quantize_fp8 import FP8, Quantized, quantize_fp8

#: experts, of them a row's, hidden, inner of an expert.
SHAPES = {"30b-a3b": (128, 8, 2048, 768), "mixtral": (8, 2, 4096, 14336), "tiny": (16, 2, 128, 128)}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SHARED_MEMORY = 225_000

FEW = [
    FewTiles(n, k, warps, down_n, down_k, down_warps)
    for (n, k, warps), (down_n, down_k, down_warps) in zip(
        [(4, 1024, 4), (4, 2048, 4), (2, 2048, 4), (2, 1024, 2), (8, 512, 4), (8, 1024, 8), (4, 1024, 8), (4, 512, 4)],
        [(4, 256, 4), (4, 128, 4), (2, 256, 4), (8, 128, 4), (8, 256, 8), (4, 256, 8), (2, 256, 2), (8, 64, 4)],
        strict=True,
    )
]

#: m: (n, k, stages, warps) of gate and up, and of down.
GROUPED: dict[int, tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]] = {
    16: (
        [
            (64, 64, 5, 4),
            (64, 64, 8, 4),
            (64, 128, 3, 4),
            (64, 128, 5, 4),
            (32, 128, 5, 4),
            (128, 64, 4, 8),
            (128, 64, 3, 4),
            (64, 256, 2, 4),
        ],
        [(64, 128, 4, 4), (64, 128, 6, 4), (128, 64, 4, 4), (128, 128, 3, 4), (128, 128, 4, 8), (64, 256, 3, 4), (256, 64, 3, 8)],
    ),
    32: (
        [(64, 64, 5, 4), (64, 128, 3, 4), (64, 128, 4, 4), (128, 64, 4, 8), (64, 64, 4, 8)],
        [(64, 128, 4, 4), (128, 64, 4, 4), (128, 128, 3, 8), (64, 256, 3, 4), (256, 64, 3, 8)],
    ),
    64: (
        [(64, 64, 4, 4), (64, 64, 4, 8), (128, 64, 3, 8), (64, 128, 3, 8)],
        [(64, 128, 4, 4), (128, 64, 4, 8), (128, 128, 3, 8), (256, 64, 3, 8)],
    ),
    128: (
        [(64, 64, 4, 4), (64, 64, 4, 8), (128, 64, 4, 8), (128, 64, 3, 8)],
        [(128, 64, 4, 4), (128, 64, 5, 8), (128, 128, 3, 8), (256, 64, 3, 8), (256, 64, 4, 8)],
    ),
}


def in_eights(many: torch.Tensor, blocks: bool) -> Fp8Matrices:
    """Experts' matrices in FP8, with a scale a row or a block."""
    experts, n, k = many.shape
    if many.is_meta:
        values = torch.empty(many.shape, dtype=FP8, device="meta")
    else:
        values = torch.stack([(one * 1000).clamp(-448, 448).to(FP8).view(torch.uint8) for one in many]).view(FP8)
    scale = (experts, n // 128, k // 128) if blocks else (experts, n)
    return Fp8Matrices(values, torch.full(scale, 1e-3, device=many.device))


#: n, stages and warps of gate and up, and of down, where both factors are in eight bits.
EIGHTS = ([(64, 4, 4), (64, 6, 4), (64, 3, 4), (128, 4, 8), (32, 6, 4)], [(128, 4, 4), (64, 6, 4), (128, 3, 8), (256, 3, 8), (128, 6, 4)])


class Bench:
    """Layers of one shape on a device, and rows that are routed through them. `scheme`: plain, fp8 (a scale a row) or fp8-blocks."""

    def __init__(self, shape: str, layers: int, device: str, dtype: torch.dtype, scheme: str = "plain") -> None:
        self.count, self.top, self.hidden, self.inner = SHAPES[shape]
        new = {"device": device, "dtype": dtype}
        self.layers = [
            Experts(
                torch.empty(self.count, self.hidden, **new).normal_(std=0.02),
                torch.empty(self.count, 2 * self.inner, self.hidden, **new).normal_(std=0.02),
                torch.empty(self.count, self.hidden, self.inner, **new).normal_(std=0.02),
                self.top,
                renormalize=True,
            )
            for _ in range(layers)
        ]
        self.eights, self.blocks = scheme != "plain", scheme == "fp8-blocks"
        if self.eights:
            self.layers = [
                replace(layer, gate_up=in_eights(layer.gate_up, self.blocks), down=in_eights(layer.down, self.blocks))
                for layer in self.layers
            ]
        self.device, self.dtype = device, dtype

    def rows(self, rows: int) -> None:
        """Take rows as a norm leaves them; what each layer makes of them is known once, so that each kernel can be run alone."""
        self.x = torch.randn(rows, self.hidden, device=self.device).to(self.dtype)
        self.logits = [torch.nn.functional.linear(self.x, layer.router) for layer in self.layers]
        self.counts = [torch.zeros(self.count, dtype=torch.int32, device=self.device) for _ in self.layers]
        self.routes = [
            routing.launch(logits, counts, self.top, self.dtype, renormalize=True)
            for logits, counts in zip(self.logits, self.counts, strict=True)
        ]
        self.hit = [int((counts > 0).sum()) for counts in self.counts]
        self.product = torch.randn(rows * self.top, self.inner, device=self.device).to(self.dtype)
        self.given = {"gate_up": self.x, "down": self.product}
        if self.eights:
            group = 128 if self.blocks else None
            self.given = {kind: quantize_fp8(x, group=group) for kind, x in self.given.items()}

    def microseconds(self, work: Callable[[int], Any]) -> float:
        """Of one layer. `work` is called with each layer's number."""
        if self.device == "cpu":
            begin = time.perf_counter()
            work(0)
            return (time.perf_counter() - begin) * 1e6
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            work(0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(len(self.layers)):
                work(i)
        for _ in range(2):
            graph.replay()
        best = float("inf")
        for _ in range(3):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(4):
                graph.replay()
            end.record()
            torch.cuda.synchronize()
            best = min(best, float(begin.elapsed_time(end)) * 1e3 / 4 / len(self.layers))
        return best

    def few(self, tiles: FewTiles, kind: str) -> float:
        rows = self.x.shape[0]
        picked = [torch.topk(logits.float(), self.top).indices.to(torch.int32) for logits in self.logits]
        weights = torch.rand(rows, self.top, device=self.device)
        experts_few = experts_few_fp8 if self.eights else plain_few
        if kind == "gate_up":
            return self.microseconds(
                lambda i: experts_few.launch_gate_up(self.x, self.logits[i], self.layers[i].gate_up, self.top, tiles, renormalize=True)
            )
        return self.microseconds(lambda i: experts_few.launch_down(self.product, picked[i], weights, self.layers[i].down, tiles))

    def grouped(self, tiles: GroupedTiles, kind: str) -> float:
        experts_grouped = experts_grouped_fp8 if self.eights else plain_grouped
        if kind == "gate_up":
            return self.microseconds(
                lambda i: experts_grouped.launch_gate_up(self.given[kind], self.routes[i], self.layers[i].gate_up, tiles)
            )
        return self.microseconds(lambda i: experts_grouped.launch_down(self.given[kind], self.routes[i], self.layers[i].down, tiles))

    def route(self) -> float:
        """The router's product, the choice and the lists; counts are zeroed beside it, as once a step."""
        counts = torch.zeros(len(self.layers), self.count, dtype=torch.int32, device=self.device)

        def one(i: int) -> None:
            if i == 0:
                counts.zero_()
            logits = experts.router_logits(self.x, self.layers[i].router)
            routing.launch(logits, counts[i], self.top, self.dtype, renormalize=True)

        return self.microseconds(one)

    def whole(self) -> float:
        """All of it, as the engine has it."""
        counts = torch.zeros(len(self.layers), self.count, dtype=torch.int32, device=self.device)

        def one(i: int) -> None:
            if i == 0:
                counts.zero_()
            experts.launch(self.x, experts.router_logits(self.x, self.layers[i].router), self.layers[i], counts[i])

        return self.microseconds(one)

    def library(self) -> float:
        """torch._grouped_mm's two products and SiLU · up between, over rows that are sorted already."""
        ends = [counts.cumsum(0).to(torch.int32) for counts in self.counts]
        inputs = self.x.repeat_interleave(self.top, 0)

        def one(i: int) -> None:
            both = torch._grouped_mm(inputs, self.layers[i].gate_up.transpose(-2, -1), offs=ends[i])
            gate, up = both.chunk(2, -1)
            torch._grouped_mm(torch.nn.functional.silu(gate) * up, self.layers[i].down.transpose(-2, -1), offs=ends[i])

        return self.microseconds(one)

    def error(self) -> float:
        """Of what the engine calls, against plain torch with the same choice of experts: the largest of the first rows' relative errors."""
        layer, few = self.layers[0], self.x[:64]
        logits = experts.router_logits(self.x, layer.router)
        ours = experts.launch(self.x, logits, layer, torch.zeros_like(self.counts[0]))
        logits = logits if logits.dim() == 2 else logits.sum(0).to(self.dtype)
        ours = (ours if ours.dim() == 2 else ours.float().sum(0))[:64].float()
        plain = experts.experts_reference(few, layer, logits[:64]).float()
        return float(((ours - plain).norm(dim=1) / plain.norm(dim=1)).max())

    def bytes_of(self, kind: str) -> float:
        return (
            sum(self.hit)
            / len(self.hit)
            * self.hidden
            * self.inner
            * (2 if kind == "gate_up" else 1)
            * (1 if self.eights else self.dtype.itemsize)
        )

    def flops_of(self, kind: str) -> float:
        return 2.0 * self.x.shape[0] * self.top * self.hidden * self.inner * (2 if kind == "gate_up" else 1)


def fits(m: int, n: int, k: int, stages: int, *, gated: bool, itemsize: int = 2) -> bool:
    return (n * (2 if gated else 1) + m) * k * stages * itemsize <= SHARED_MEMORY


def picked_tiles(rows: int, top: int, count: int, kind: str, scheme: str) -> GroupedTiles:
    if scheme == "plain":
        return plain_grouped.pick_tiles(rows, top, count, 2, gated=kind == "gate_up")
    return experts_grouped_fp8.pick_tiles(rows, top, count, gated=kind == "gate_up")


def candidates(rows: int, top: int, count: int, kind: str, scheme: str = "plain") -> list[GroupedTiles]:
    """Tiles about as high as an expert has rows, with what is picked today first."""
    each, gated = rows * top / count, kind == "gate_up"
    heights = [16] if each <= 6 else [16, 32] if each <= 12 else [16, 32, 64] if each <= 40 else [64, 128] if each <= 160 else [128]
    picked = picked_tiles(rows, top, count, kind, scheme)
    if scheme != "plain":  # steps of a block, more of them in flight
        tried = {
            (m, n, 128, stages, warps) for m in heights for n, stages, warps in EIGHTS[0 if gated else 1] if n <= 128 or scheme == "fp8"
        }
        found = [GroupedTiles(*t) for t in sorted(tried) if fits(*t[:4], gated=gated, itemsize=1)]
        return list(dict.fromkeys([picked, *found]))
    found = [picked] + [
        GroupedTiles(m, *rest) for m in heights for rest in GROUPED[m][0 if gated else 1] if fits(m, *rest[:3], gated=gated)
    ]
    return list(dict.fromkeys(found))


def compile_one(wanted: tuple[str, str, int, Any]) -> str:
    """In a process of its own: compile a kernel into Triton's cache on the disk."""
    scheme, shape, rows, tiles = wanted
    count, top, hidden, inner = SHAPES[shape]
    bf16 = {"dtype": torch.bfloat16, "device": "meta"}
    x, gate_up, down = (
        torch.empty(rows, hidden, **bf16),
        torch.empty(count, 2 * inner, hidden, **bf16),
        torch.empty(count, hidden, inner, **bf16),
    )
    product, ints = torch.empty(rows * top, inner, **bf16), {"dtype": torch.int32, "device": "meta"}
    routes = routing.ExpertLists(torch.empty(count, **ints), torch.empty(count, rows, **ints), torch.empty(rows, top, device="meta"))
    kind, tiles = tiles
    few, grouped, given = plain_few, plain_grouped, x if kind == "gate_up" else product
    if scheme != "plain":
        few, grouped, blocks = experts_few_fp8, experts_grouped_fp8, scheme == "fp8-blocks"
        gate_up, down = in_eights(gate_up, blocks), in_eights(down, blocks)
        scales = torch.empty(given.shape[0], given.shape[1] // 128 if blocks else 1, device="meta")
        given = Quantized(torch.empty(given.shape, dtype=FP8, device="meta"), scales, torch.bfloat16)
    with record_launches() as recorded:
        if isinstance(tiles, GroupedTiles):
            (grouped.launch_gate_up if kind == "gate_up" else grouped.launch_down)(
                given, routes, gate_up if kind == "gate_up" else down, tiles
            )
        elif kind == "gate_up":
            few.launch_gate_up(x, torch.empty(rows, count, **bf16), gate_up, top, tiles, renormalize=True)
        else:
            few.launch_down(product, torch.empty(rows, top, **ints), torch.empty(rows, top, device="meta"), down, tiles)
    for launch in recorded.values():
        try:
            launch.compile(load=False)
        except Exception as exc:  # noqa: BLE001 - the others can still be measured
            return f"{kind} {tiles}: {exc!r:.200}"
    return ""


def sweep(bench: Bench, kind: str, tried: list[Any], by: Callable[[Any, str], float], until: float) -> list[tuple[float, Any]]:
    """(microseconds, tiles), the fastest first; what was first in `tried` is measured whatever the clock says."""
    found = []
    for i, tiles in enumerate(tried):
        if i and time.perf_counter() > until:
            break
        try:
            found.append((by(tiles, kind), tiles))
        except Exception as exc:  # noqa: BLE001 - the others can still be measured
            print(f"   {kind} {tiles}: {exc!r:.160}", flush=True)
    return sorted(found, key=lambda one: one[0])


def show(bench: Bench, kind: str, found: list[tuple[float, Any]], default: Any) -> None:
    for us, tiles in found[:4] + [one for one in found[4:] if one[1] == default]:
        rate, work = bench.bytes_of(kind) / us / 1e3, bench.flops_of(kind) / us / 1e6
        print(
            f"   {kind:8s} {us:8.1f} us {rate:7.0f} GB/s {work:6.0f} TFLOP/s  {tiles}{'  <- as picked' if tiles == default else ''}",
            flush=True,
        )


def copy_rate(device: str) -> float:
    """GB/s of a copy, bytes read and written."""
    size = 1 << 31 if device != "cpu" else 1 << 20
    a, b = torch.empty(size, dtype=torch.uint8, device=device), torch.empty(size, dtype=torch.uint8, device=device)
    if device == "cpu":
        return 0.0
    b.copy_(a)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(5):
        b.copy_(a)
    end.record()
    torch.cuda.synchronize()
    return 5 * 2 * size / float(begin.elapsed_time(end)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny" if INTERPRETED else "30b-a3b")
    parser.add_argument("--dtype", choices=("plain", "fp8", "fp8-blocks"), default="plain")
    parser.add_argument("--rows", default="1,4,20" if INTERPRETED else "1,64,256,8192,8,2048,4,2,16")
    parser.add_argument("--layers", type=int, default=1 if INTERPRETED else 6)
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    begin, all_rows = time.perf_counter(), [int(r) for r in said.rows.split(",")]
    count, top, *_ = SHAPES[said.shape]
    wanted: dict[Any, tuple[str, str, int, Any]] = {}
    for rows in all_rows:
        for kind in ("gate_up", "down"):
            for tiles in (FEW if rows <= 16 else []) + (candidates(rows, top, count, kind, said.dtype) if rows > 1 else []):
                # Triton makes another kernel where a number is 1 or no multiple of 16.
                wanted.setdefault((kind, tiles, rows == 1, rows % 16 == 0), (said.dtype, said.shape, rows, (kind, tiles)))
    if not INTERPRETED:
        # By fork, and before CUDA is begun in this process: so many kernels one after the other would take all of the time there is.
        with multiprocessing.get_context("fork").Pool(min(14, os.cpu_count() or 1)) as pool:
            failed = [line for line in pool.imap_unordered(compile_one, wanted.values(), chunksize=1) if line]
        print(f"{len(wanted)} kernels compiled in {time.perf_counter() - begin:.1f} s", *failed, sep="\n   ", flush=True)
    device = "cpu" if INTERPRETED else "cuda:0"
    torch.manual_seed(0)
    bench = Bench(said.shape, said.layers, device, torch.float32 if INTERPRETED else torch.bfloat16, said.dtype)
    copy = copy_rate(device)
    until, found = begin + said.seconds, {"copy_gb_s": copy}
    name = "cpu" if INTERPRETED else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}: copy {copy:.0f} GB/s; {said.shape}, {said.layers} layers", flush=True)
    for place, rows in enumerate(all_rows):
        bench.rows(rows)
        part = until - (until - time.perf_counter()) * (1 - 1 / (len(all_rows) - place))
        us = {"route": bench.route(), "whole": bench.whole()}
        try:
            us |= {} if bench.eights else {"library": bench.library()}
        except (RuntimeError, AttributeError) as exc:
            print(f"   torch._grouped_mm: {exc!r:.160}", flush=True)
        bytes_both = bench.bytes_of("gate_up") + bench.bytes_of("down")
        floor = bytes_both / copy / 1e3 if copy else 0.0
        print(
            f"rows {rows}: {sum(bench.hit) / len(bench.hit):.0f} experts hit, floor {floor:.1f} us (or "
            f"{(bench.flops_of('gate_up') + bench.flops_of('down')) / 750e6:.1f} at 750 TFLOP/s); "
            + ", ".join(f"{k} {v:.1f}" for k, v in us.items())
            + f" us; error {bench.error():.1e}",
            flush=True,
        )
        best: dict[str, Any] = {}
        for kind in ("gate_up", "down"):
            if rows <= 16:
                best[f"few {kind}"] = sweep(bench, kind, FEW, bench.few, part)
                show(bench, kind, best[f"few {kind}"], experts_few_fp8.TILES if bench.eights else FewTiles())
            if rows > 1:
                picked = picked_tiles(rows, top, count, kind, said.dtype)
                best[f"grouped {kind}"] = sweep(bench, kind, candidates(rows, top, count, kind, said.dtype), bench.grouped, part)
                show(bench, kind, best[f"grouped {kind}"], picked)
        found[f"rows {rows}"] = us | {k: [(round(t, 2), asdict(tiles)) for t, tiles in v] for k, v in best.items()}
        if said.out:
            said.out.write_text(json.dumps(found, indent=1))
    print(f"{time.perf_counter() - begin:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
