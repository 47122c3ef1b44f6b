"""The experts' kernels alone on one GPU: which tiles are fastest for how many rows, beside torch._grouped_mm and a plain copy.

    python tests/benchmarks/experts_mxfp4_gpu.py [--shape gpt-oss-20b] [--rows 1,2,4,8,16,64,256,2048,8192] [--seconds 75] [--out FILE]

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kernels_support.gpu import experts, experts_few, experts_few_words, experts_grouped, experts_grouped_words, routing
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.experts_few import FewTiles
from kernels_support.gpu.experts_few_words import FewWordsTiles
from kernels_support.gpu.experts_grouped import GroupedTiles
from kernels_support.gpu.gated import SILU, Gating
from kernels_support.gpu.lang import record_launches
from kernels_support.gpu.mxfp4_matrix import Mxfp4Matrices

#: experts, of them a row's, hidden, inner of an expert.
SHAPES = {
    "30b-a3b": (128, 8, 2048, 768),
    "mixtral": (8, 2, 4096, 14336),
    "gpt-oss-20b": (32, 4, 2880, 2880),
    "tiny": (16, 2, 64, 32),
    "tiny-mxfp4": (16, 2, 96, 32),
}
#: Those whose experts lie in MXFP4, with biases.
IN_MXFP4 = ("gpt-oss-20b", "tiny-mxfp4")
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

FEW_MXFP4 = [
    FewWordsTiles(n, groups, warps, down_n, down_groups, down_warps)
    for (n, groups, warps), (down_n, down_groups, down_warps) in zip(
        [(8, 8, 4), (4, 8, 4), (4, 8, 8), (8, 8, 8), (2, 8, 2), (4, 4, 2), (16, 8, 8), (4, 16, 8), (2, 8, 4), (8, 4, 4)],
        [(4, 4, 4), (4, 8, 8), (2, 8, 4), (2, 4, 2), (2, 4, 4), (8, 4, 8), (4, 2, 2), (1, 8, 4), (2, 8, 8), (4, 8, 4)],
        strict=True,
    )
]

#: m: (n, k, stages, warps) of gate and up, and of down.
GROUPED_MXFP4: dict[int, tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]] = {
    16: (
        [(64, 128, 3, 4), (64, 128, 4, 4), (64, 128, 6, 4), (128, 128, 4, 4), (128, 128, 4, 8)],
        [(64, 128, 4, 4), (64, 128, 6, 4), (128, 128, 3, 4), (128, 128, 4, 4), (128, 128, 4, 8), (256, 128, 3, 8)],
    ),
    32: (
        [(64, 128, 3, 4), (64, 128, 4, 4), (64, 128, 5, 4), (128, 128, 3, 8), (128, 128, 4, 4)],
        [(64, 128, 4, 4), (128, 128, 3, 4), (128, 128, 4, 4), (128, 128, 4, 8), (256, 128, 3, 8)],
    ),
    64: (
        [(64, 128, 3, 4), (64, 128, 4, 4), (128, 128, 3, 8), (128, 128, 2, 8)],
        [(64, 128, 3, 4), (128, 128, 3, 4), (128, 128, 3, 8), (256, 128, 3, 8)],
    ),
    128: (
        [(128, 128, 3, 8), (128, 128, 2, 8), (64, 128, 3, 4), (64, 128, 3, 8)],
        [(128, 128, 3, 8), (128, 128, 4, 8), (128, 128, 3, 4), (256, 128, 3, 8)],
    ),
    256: ([(64, 128, 2, 8), (64, 128, 3, 8)], [(128, 128, 2, 8), (128, 128, 3, 8), (64, 128, 3, 4)]),
}

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


class Bench:
    """Layers of one shape on a device, and rows that are routed through them."""

    def __init__(self, shape: str, layers: int, device: str, dtype: torch.dtype) -> None:
        self.count, self.top, self.hidden, self.inner = SHAPES[shape]
        self.mxfp4 = shape in IN_MXFP4
        normal = lambda *shape: torch.empty(*shape, device=device, dtype=dtype).normal_(std=0.02)  # noqa: E731
        self.layers = [
            Experts(
                normal(self.count, self.hidden),
                matrices(self.count, 2 * self.inner, self.hidden, device)
                if self.mxfp4
                else normal(self.count, 2 * self.inner, self.hidden),
                matrices(self.count, self.hidden, self.inner, device) if self.mxfp4 else normal(self.count, self.hidden, self.inner),
                self.top,
                True,
                *([normal(self.count), normal(self.count, 2 * self.inner), normal(self.count, self.hidden)] if self.mxfp4 else [None] * 3),
                Gating(7.0, 1.702) if self.mxfp4 else SILU,
            )
            for _ in range(layers)
        ]
        self.few_kernels = experts_few_words if self.mxfp4 else experts_few
        self.grouped_kernels = experts_grouped_words if self.mxfp4 else experts_grouped
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
        if kind == "gate_up":

            def one(i: int) -> None:
                layer, how = self.layers[i], {"renormalize": True}
                self.few_kernels.launch_gate_up(
                    self.x, self.logits[i], layer.gate_up, self.top, tiles, layer.gate_up_bias, layer.gating, **how
                )

            return self.microseconds(one)
        return self.microseconds(
            lambda i: self.few_kernels.launch_down(
                self.product, picked[i], weights, self.layers[i].down, tiles, None, self.layers[i].down_bias
            )
        )

    def grouped(self, tiles: GroupedTiles, kind: str) -> float:
        if kind == "gate_up":

            def one(i: int) -> None:
                layer = self.layers[i]
                self.grouped_kernels.launch_gate_up(self.x, self.routes[i], layer.gate_up, tiles, layer.gate_up_bias, layer.gating)

            return self.microseconds(one)
        return self.microseconds(
            lambda i: self.grouped_kernels.launch_down(self.product, self.routes[i], self.layers[i].down, tiles, self.layers[i].down_bias)
        )

    def route(self) -> float:
        """The router's product, the choice and the lists; counts are zeroed beside it, as once a step."""
        counts = torch.zeros(len(self.layers), self.count, dtype=torch.int32, device=self.device)

        def one(i: int) -> None:
            if i == 0:
                counts.zero_()
            logits = experts.router_logits(self.x, self.layers[i].router, self.layers[i].router_bias)
            routing.launch(logits, counts[i], self.top, self.dtype, renormalize=True)

        return self.microseconds(one)

    def whole(self) -> float:
        """All of it, as the engine has it."""
        counts = torch.zeros(len(self.layers), self.count, dtype=torch.int32, device=self.device)

        def one(i: int) -> None:
            if i == 0:
                counts.zero_()
            experts.launch(
                self.x, experts.router_logits(self.x, self.layers[i].router, self.layers[i].router_bias), self.layers[i], counts[i]
            )

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
        logits = experts.router_logits(self.x, layer.router, layer.router_bias)
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
            * (17 / 32 if self.mxfp4 else self.dtype.itemsize)
        )

    def flops_of(self, kind: str) -> float:
        return 2.0 * self.x.shape[0] * self.top * self.hidden * self.inner * (2 if kind == "gate_up" else 1)


def matrices(count: int, n: int, k: int, device: str) -> Mxfp4Matrices:
    """Random numbers of about 0.02; on the meta device none."""
    groups = -(-k // 128)
    if device == "meta":
        words = torch.empty(count, n, groups * 32, dtype=torch.int16, device=device)
        return Mxfp4Matrices(words, torch.empty(count, groups, n, dtype=torch.int32, device=device), k)
    words = torch.randint(-(1 << 15), 1 << 15, (count, n, groups * 32), dtype=torch.int16, device=device)
    if k % 128:  # what is filled up is zero: the number of a word's upper blocks
        words[..., (k // 128) * 32 :] &= _words_of(k % 128 // 32)
    return Mxfp4Matrices(words, torch.full((count, groups, n), 0x78787878, dtype=torch.int32, device=device), k)


def _words_of(blocks: int) -> int:
    """The bits of a word that hold the numbers of its first blocks."""
    bits = [0x81C0, 0x1038, 0x0207, 0x6C00]
    mask = sum(bits[:blocks])
    return mask - (1 << 16) if mask >> 15 else mask


def fits(m: int, n: int, k: int, stages: int, *, gated: bool) -> bool:
    return (n * (2 if gated else 1) + m) * k * stages * 2 <= SHARED_MEMORY


def candidates(rows: int, top: int, count: int, kind: str, *, mxfp4: bool = False) -> list[GroupedTiles]:
    """Tiles about as high as an expert has rows, with what is picked today first."""
    each, gated = rows * top / count, kind == "gate_up"
    if mxfp4:
        heights = (
            [16] if each <= 6 else [16, 32] if each <= 12 else [16, 32, 64] if each <= 40 else [64, 128] if each <= 160 else [128, 256]
        )
        picked = experts_grouped_words.pick_tiles(rows, top, count, 2, gated=gated)
        return list(dict.fromkeys([picked] + [GroupedTiles(m, *rest) for m in heights for rest in GROUPED_MXFP4[m][0 if gated else 1]]))
    heights = [16] if each <= 6 else [16, 32] if each <= 12 else [16, 32, 64] if each <= 40 else [64, 128] if each <= 160 else [128]
    picked = experts_grouped.pick_tiles(rows, top, count, 2, gated=gated)
    found = [picked] + [
        GroupedTiles(m, *rest) for m in heights for rest in GROUPED[m][0 if gated else 1] if fits(m, *rest[:3], gated=gated)
    ]
    return list(dict.fromkeys(found))


def compile_one(wanted: tuple[str, int, Any]) -> str:
    """In a process of its own: compile a kernel into Triton's cache on the disk."""
    shape, rows, tiles = wanted
    count, top, hidden, inner = SHAPES[shape]
    kind, tiles = tiles
    bf16, ints = {"dtype": torch.bfloat16, "device": "meta"}, {"dtype": torch.int32, "device": "meta"}
    x, product, mxfp4 = torch.empty(rows, hidden, **bf16), torch.empty(rows * top, inner, **bf16), shape in IN_MXFP4
    gate_up: Any = matrices(count, 2 * inner, hidden, "meta") if mxfp4 else torch.empty(count, 2 * inner, hidden, **bf16)
    down: Any = matrices(count, hidden, inner, "meta") if mxfp4 else torch.empty(count, hidden, inner, **bf16)
    wide, narrow = (torch.empty(count, n, **bf16) if mxfp4 else None for n in (2 * inner, hidden))
    gating = Gating(7.0, 1.702) if mxfp4 else SILU
    few, grouped = (experts_few_words, experts_grouped_words) if mxfp4 else (experts_few, experts_grouped)
    routes = routing.ExpertLists(torch.empty(count, **ints), torch.empty(count, rows, **ints), torch.empty(rows, top, device="meta"))
    with record_launches() as recorded:
        if isinstance(tiles, GroupedTiles) and kind == "gate_up":
            grouped.launch_gate_up(x, routes, gate_up, tiles, wide, gating)
        elif isinstance(tiles, GroupedTiles):
            grouped.launch_down(product, routes, down, tiles, narrow)
        elif kind == "gate_up":
            few.launch_gate_up(x, torch.empty(rows, count, **bf16), gate_up, top, tiles, wide, gating, renormalize=True)
        else:
            few.launch_down(product, torch.empty(rows, top, **ints), torch.empty(rows, top, device="meta"), down, tiles, None, narrow)
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
    parser.add_argument("--rows", default="1,4,20" if INTERPRETED else "1,64,256,8192,8,2048,4,2,16")
    parser.add_argument("--layers", type=int, default=1 if INTERPRETED else 6)
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    begin, all_rows = time.perf_counter(), [int(r) for r in said.rows.split(",")]
    count, top, *_ = SHAPES[said.shape]
    mxfp4 = said.shape in IN_MXFP4
    all_few, picked_few = (FEW_MXFP4, FewWordsTiles()) if mxfp4 else (FEW, FewTiles())
    pick_tiles = (experts_grouped_words if mxfp4 else experts_grouped).pick_tiles
    wanted: dict[Any, tuple[str, int, Any]] = {}
    for rows in all_rows:
        for kind in ("gate_up", "down"):
            for tiles in (all_few if rows <= 16 else []) + (candidates(rows, top, count, kind, mxfp4=mxfp4) if rows > 1 else []):
                # Triton makes another kernel where a number is 1 or no multiple of 16.
                wanted.setdefault((kind, tiles, rows == 1, rows % 16 == 0), (said.shape, rows, (kind, tiles)))
    if not INTERPRETED:
        # By fork, and before CUDA is begun in this process: so many kernels one after the other would take all of the time there is.
        with multiprocessing.get_context("fork").Pool(min(14, os.cpu_count() or 1)) as pool:
            failed = [line for line in pool.imap_unordered(compile_one, wanted.values(), chunksize=1) if line]
        print(f"{len(wanted)} kernels compiled in {time.perf_counter() - begin:.1f} s", *failed, sep="\n   ", flush=True)
    device = "cpu" if INTERPRETED else "cuda:0"
    torch.manual_seed(0)
    bench = Bench(said.shape, said.layers, device, torch.float32 if INTERPRETED else torch.bfloat16)
    copy = copy_rate(device)
    until, found = begin + said.seconds, {"copy_gb_s": copy}
    name = "cpu" if INTERPRETED else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}: copy {copy:.0f} GB/s; {said.shape}, {said.layers} layers", flush=True)
    for place, rows in enumerate(all_rows):
        bench.rows(rows)
        part = until - (until - time.perf_counter()) * (1 - 1 / (len(all_rows) - place))
        us = {"route": bench.route(), "whole": bench.whole()}
        try:
            if not mxfp4:
                us["library"] = bench.library()
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
                best[f"few {kind}"] = sweep(bench, kind, all_few, bench.few, part)
                show(bench, f"{kind}", best[f"few {kind}"], picked_few)
            if rows > 1:
                picked = pick_tiles(rows, top, count, 2, gated=kind == "gate_up")
                best[f"grouped {kind}"] = sweep(bench, kind, candidates(rows, top, count, kind, mxfp4=mxfp4), bench.grouped, part)
                show(bench, kind, best[f"grouped {kind}"], picked)
        found[f"rows {rows}"] = us | {k: [(round(t, 2), asdict(tiles)) for t, tiles in v] for k, v in best.items()}
        if said.out:
            said.out.write_text(json.dumps(found, indent=1))
    print(f"{time.perf_counter() - begin:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
