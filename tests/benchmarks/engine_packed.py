"""Packed matrices (GGUF's kinds, `--dtype int8`, AWQ's and GPTQ's experts) on one GPU: checks, products alone, experts alone, whole runs.

    python tests/benchmarks/engine_packed.py [--only check|products|experts|runs] [--rows 1,8,64,256,2048] [--kinds Q4_K,Q8_0] [--sweep]
    python tests/benchmarks/engine_packed.py --sweep-experts W4A16,Q4_K [--rows 64,256,2048]

Products: microseconds of 8B's matrices, ten in a graph so that none is in a cache, beside bfloat16 by torch, W widened first, and the bytes at
4.3 TB/s. `--sweep`, `--sweep-experts`: kinds of which other tiles are tried, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

#: Of 8B: name, n, k, whether it is gate and up, whether its reader takes parts.
MATRICES = (("qkv", 6144, 4096, False, False), ("out", 4096, 4096, False, True), ("gate_up", 24576, 4096, True, False))
MATRICES += (("down", 4096, 12288, False, True),)

#: Bits, columns that share a scale, the factors' type, what stands in the middle.
KINDS = {
    "Q4_0": (4, 32, "float32", 0),
    "Q4_1": (4, 32, "int32", 8),
    "Q4_K": (4, 32, "int64", 8),
    "AWQ": (4, 128, "int64", 8),
    "W4A16": (4, 128, "float32", 0),
    "Q8_0": (8, 32, "float32", 0),
    "Q5_K": (8, 32, "int64", 16),
    "Q6_K": (8, 16, "float32", 0),
}

#: Of few rows n, warps, stages, split; of more m, n, stages, warps, split.
FEW = [
    (32, 4, 4, 1),
    (32, 4, 3, 1),
    (32, 4, 6, 1),
    (16, 4, 4, 1),
    (16, 8, 4, 1),
    (32, 8, 3, 1),
    (64, 4, 3, 1),
    (32, 4, 3, 2),
    (16, 4, 4, 2),
]
MORE = [
    (64, 64, 3, 4, 1),
    (64, 64, 4, 4, 1),
    (64, 128, 3, 8, 1),
    (128, 128, 3, 8, 1),
    (128, 64, 3, 4, 1),
    (64, 64, 4, 4, 2),
    (128, 128, 3, 8, 2),
]
FEW_ROWS, MORE_ROWS = (1, 8), (64, 256)


def made(kind: str, n: int, k: int, device: str = "cuda") -> Any:
    """A matrix of a kind, of random numbers."""
    import torch

    from kernels_support.gpu.packed_matrix import PackedMatrix, pack

    bits, group, factor, centre = KINDS[kind]
    if device == "meta":
        each, piece = 16 // bits, min(group, 32)
        steps = -(-k // (each * piece))
        words = torch.empty(n, steps * piece, dtype=torch.int16, device="meta")
        factors = torch.empty(steps * each * piece // group, n, dtype=getattr(torch, factor), device="meta")
        return PackedMatrix(words, factors, bits, group, centre, k)
    values = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (n, k), dtype=torch.int8, device=device)
    scale, zero = ((torch.rand(n, k // group, device=device) + 0.5) * s / 2**bits for s in (0.1, 0.02))
    if factor == "int32":
        scale, zero = scale.half().float(), zero.half().float()
    # A zero of this size leaves the numbers around 0.
    return pack(
        values,
        scale,
        None if factor == "float32" else zero - centre * scale if factor == "int64" else -(8 * scale).half().float(),
        bits,
        centre,
    )


def wrong(ours: Any, exact: Any) -> float:
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


#: What is checked: every kind in bfloat16, some in the other types; a last step that is not full.
CHECKED = [(kind, "bfloat16", rows) for kind in KINDS for rows in (1, 16, 64, 300)]
CHECKED += [(kind, "float16", rows) for kind in ("Q4_K", "Q8_0") for rows in (3, 20)]
CHECKED += [(kind, "float32", rows) for kind in ("Q4_K", "Q8_0") for rows in (3, 20)]


def checked(kind: str, dtype: str, rows: int, device: str = "cuda") -> tuple[Any, Any, Any, list[Any]]:
    """A matrix, x and a bias, and what the kernels make of them."""
    import torch

    from kernels_support.gpu import gemm_packed, packed

    n, k = 208, 640 if KINDS[kind][1] == 128 else 704
    matrix = made(kind, n, k, device)
    x, bias = (torch.empty(*s, device=device, dtype=getattr(torch, dtype)) for s in ((rows, k), (n,)))
    if device != "meta":
        x, bias = x.normal_(), bias.normal_()
    ours = [packed.linear(x, matrix, bias, split_k=True), gemm_packed.widen(matrix, x.dtype)]
    return matrix, x, bias, [*ours, packed.swiglu(x, matrix, bias)] if rows <= packed.MAX_ROWS else ours


def check() -> None:
    """Against float64 of what the file says."""
    import torch

    from kernels_support.gpu import packed
    from kernels_support.gpu.packed_matrix import dequantize, rows_of

    torch.manual_seed(0)
    worst = dict[tuple[str, str], float]()
    for kind, dtype, rows in CHECKED:
        matrix, x, bias, (both, wide, *gated) = checked(kind, dtype, rows)
        exact = dequantize(matrix).double()
        product = x.double() @ exact.t() + bias.double()
        gate, up = product.chunk(2, 1)
        errors = [wrong(both.double().sum(0) if both.dim() == 3 else both, product), wrong(wide, exact)]
        errors += [wrong(one, torch.nn.functional.silu(gate) * up) / 2 for one in gated]
        assert all(e == e for e in errors), (kind, dtype, rows, errors)
        worst[kind, dtype] = max(worst.get((kind, dtype), 0.0), *errors)
        if dtype == "float32":
            ids = torch.tensor([1, 207], device="cuda")
            assert wrong(packed.lookup(ids, matrix), rows_of(matrix, ids)) < 1e-6
    print("largest relative errors: " + ", ".join(f"{kind} {dtype} {e:.1e}" for (kind, dtype), e in worst.items()), flush=True)
    for (kind, dtype), e in worst.items():
        assert e < {"bfloat16": 7e-3, "float16": 1e-3, "float32": 1e-5}[dtype], (kind, dtype, e)


def compiled(job: tuple[Any, ...]) -> int:
    """In a process of its own: fills Triton's cache."""
    import torch

    from kernels_support.gpu import experts, gemm_packed, gemm_packed_few, packed, routing
    from kernels_support.gpu.lang import record_launches

    (what, *more), new = job, torch.empty
    with record_launches() as recorded:
        if what == "check":
            checked(*more, device="meta")
        elif what == "grouped":
            kind, rows, gated, tiles = more
            layer = layer_of(kind, "meta")
            routes = routing.launch(
                new(rows, layer.count, device="meta"),
                new(layer.count, dtype=torch.int32, device="meta"),
                8,
                torch.bfloat16,
                renormalize=True,
            )
            x = new(*((rows, 2048) if gated else (rows * 8, 768)), dtype=torch.bfloat16, device="meta")
            grouped_launch(layer, x, routes, tiles, gated=gated)
        elif what == "experts":
            kind, rows = more
            layer = layer_of(kind, "meta")
            x = new(rows, layer.router.shape[1], dtype=torch.bfloat16, device="meta")
            logits = new(rows, layer.count, dtype=torch.bfloat16, device="meta")
            experts.launch(x, logits, layer, new(layer.count, dtype=torch.int32, device="meta"))
        else:
            kind, (_, n, k, gated, parts), rows, tiles = more
            x, matrix = new(rows, k, dtype=torch.bfloat16, device="meta"), made(kind, n, k, "meta")
            if tiles is None:
                _ = packed.swiglu(x, matrix) if gated else packed.linear(x, matrix, split_k=parts)
            elif len(tiles) == 4:
                gemm_packed_few.launch(x, matrix, None, gemm_packed_few.FewPackedTiles(*tiles), gated=gated)
            else:
                gemm_packed.launch(x, matrix, None, gemm_packed.PackedTiles(*tiles), gated=gated)
    for launch in recorded.values():
        try:
            launch.compile(load=False)
        except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
            print(job, type(exc).__name__, str(exc)[:80], flush=True)
    return len(recorded)


def prepare(jobs: list[tuple[Any, ...]]) -> None:
    begin = time.perf_counter()
    with get_context("fork").Pool(14) as pool:  # before CUDA is begun here
        print("kernels compiled:", sum(pool.map(compiled, jobs, chunksize=1)), f"{time.perf_counter() - begin:.0f} s", flush=True)


def product(name: str, n: int, k: int, gated: bool, parts: bool, given: list[int], kinds: list[str], swept: list[str]) -> None:
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import gemm_packed, gemm_packed_few, int4, packed
    from kernels_support.gpu.int4_matrix import Int4Matrix

    def one(x: Any, w: Any) -> Any:
        return packed.swiglu(x, w) if gated else packed.linear(x, w, split_k=parts)

    plain = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(10)]
    wide = {}
    for rows in given:
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        wide[rows] = 1e5 * timed(lambda x=x: [torch.nn.functional.linear(x, w) for w in plain])
    print(f"{name}: bfloat16 " + ", ".join(f"{rows} {us:.1f}" for rows, us in wide.items()), flush=True)
    plain = []
    words, scales = (
        torch.randint(-(2**15), 2**15, (10, n, k // 4), dtype=torch.int16, device="cuda"),
        torch.rand(k // 128, n, device="cuda"),
    )
    fours = [Int4Matrix(w, scales, scales) for w in words]
    line = []
    for rows in (r for r in given if r <= 256):
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        us = 1e5 * timed(lambda x=x: [int4.swiglu(x, w) if gated else int4.linear(x, w, split_k=parts) for w in fours])
        line.append(f"{rows} {us:.1f}")
    print(f"  gemm_int4 (groups of 128): {', '.join(line)}", flush=True)
    words, fours = None, []
    for kind in kinds:
        many, line = [made(kind, n, k) for _ in range(10)], []
        for rows in given:
            x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
            us = 1e5 * timed(lambda x=x, many=many: [one(x, w) for w in many])
            said = f"{rows} {us:.1f}"
            if rows > 16:
                first = 1e5 * timed(lambda x=x, many=many: [torch.nn.functional.linear(x, gemm_packed.widen(w, x.dtype)) for w in many])
                said += f" (widened {first:.1f})"
            line.append(said)
        print(f"  {kind} ({many[0].nbytes / 4.3e6:.1f} of bytes): {', '.join(line)}", flush=True)
        for rows in given if kind in swept else ():
            if rows not in FEW_ROWS + MORE_ROWS:
                continue
            x, times = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16), {}
            module: Any = gemm_packed_few if rows in FEW_ROWS else gemm_packed
            for tiles in FEW if rows in FEW_ROWS else MORE:
                if tiles[-1] > 1 and not parts:
                    continue
                shape = module.FewPackedTiles(*tiles) if rows in FEW_ROWS else module.PackedTiles(*tiles)
                try:
                    times[shape] = 1e5 * timed(
                        lambda x=x, s=shape, m=module, many=many: [m.launch(x, w, None, s, gated=gated) for w in many]
                    )
                except Exception as exc:  # noqa: BLE001
                    print(tiles, type(exc).__name__, flush=True)
            best = sorted(times.items(), key=lambda item: item[1])[:4]
            print(f"    {rows} rows: " + ", ".join(f"{'/'.join(map(str, astuple(t)))} {us:.1f}" for t, us in best), flush=True)
        many = []


#: Kinds of a layer of 30B-A3B's experts (Q4_K: down in Q6_K), and gpt-oss-20b's in MXFP4.
LAYERS = ("bfloat16", "W4A16", "AWQ", "Q4_K", "Q8_0", "MXFP4")


def layer_of(kind: str, device: str = "cuda") -> Any:
    import torch

    from kernels_support.gpu.experts import Experts
    from kernels_support.gpu.mxfp4_matrix import Mxfp4Matrices
    from kernels_support.gpu.packed_matrix import stacked

    def new(*shape: int, dtype: Any = torch.bfloat16) -> Any:
        if dtype == torch.bfloat16:
            plain = torch.empty(*shape, device=device, dtype=dtype)
            return plain if device == "meta" else plain.normal_(std=shape[-1] ** -0.5)
        return (
            torch.empty(*shape, device=device, dtype=dtype)
            if device == "meta"
            else torch.randint(-(2**15), 2**15, shape, dtype=dtype, device=device)
        )

    if kind == "bfloat16":
        return Experts(new(128, 2048), new(128, 1536, 2048), new(128, 2048, 768), 8, renormalize=True)
    if kind == "MXFP4":
        scales = [torch.full((32, 23, n), 0x7A7A7A7A, dtype=torch.int32, device=device) for n in (5760, 2880)]
        both = [Mxfp4Matrices(new(32, n, 736, dtype=torch.int16), s, 2880) for n, s in zip((5760, 2880), scales, strict=True)]
        return Experts(new(32, 2880), *both, 4, renormalize=True)
    gate_up, down = (
        stacked(made(kind, 128 * 1536, 2048, device), 128),
        stacked(made("Q6_K" if kind == "Q4_K" else kind, 128 * 2048, 768, device), 128),
    )
    return Experts(new(128, 2048), gate_up, down, 8, renormalize=True)


def experts_alone(given: list[int]) -> None:
    """Microseconds of a layer, router and lists counted."""
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import experts

    for kind in LAYERS:
        layers, line = [layer_of(kind) for _ in range(3)], []
        for rows in given:
            x = torch.randn(rows, layers[0].router.shape[1], device="cuda", dtype=torch.bfloat16)

            def work(x: Any = x, layers: list[Any] = layers) -> None:
                counts = experts.fresh_counts(len(layers), layers[0].count, x)
                assert counts is not None
                for one, count in zip(layers, counts, strict=True):
                    experts.experts_mlp(x, one, count)

            line.append(f"{rows} {1e6 * timed(work) / len(layers):.1f}")
            if rows in (1, 64):
                counts = experts.fresh_counts(1, layers[0].count, x)
                assert counts is not None
                logits = experts.router_logits(x, layers[0].router)
                ours, whole = experts.launch(x, logits, layers[0], counts[0]), logits if logits.dim() == 2 else logits.sum(0).to(x.dtype)
                exact = experts.experts_reference(x, layers[0], whole)
                line[-1] += f" (error {wrong(ours if ours.dim() == 2 else ours.float().sum(0), exact):.1e})"
        print(f"experts, {kind}, µs a layer: {', '.join(line)}", flush=True)
        layers = []


#: Tiles of the grouped kernel that are tried: m, n, stages, warps; of gate and up, and of down.
GROUPED = (
    (
        *((16, 64, 4, 4), (16, 64, 3, 4), (16, 128, 3, 4), (16, 128, 3, 8), (32, 64, 3, 4), (32, 128, 3, 8)),
        *((64, 64, 3, 4), (64, 128, 3, 8), (128, 128, 3, 8), (128, 64, 3, 4), (128, 128, 2, 8)),
    ),
    (
        *((16, 64, 4, 4), (16, 128, 4, 4), (16, 256, 3, 8), (32, 128, 4, 4), (32, 256, 3, 8), (64, 128, 3, 4)),
        *((64, 256, 3, 8), (128, 128, 3, 4), (128, 128, 3, 8), (128, 256, 3, 8), (128, 64, 3, 4)),
    ),
)


def grouped_launch(layer: Any, x: Any, routes: Any, tiles: tuple[int, int, int, int], *, gated: bool) -> Any:
    """One product of the grouped kernel; of down x has a row a pair."""
    from kernels_support.gpu import experts_grouped_words
    from kernels_support.gpu.experts_grouped import GroupedTiles

    m, n, stages, warps = tiles
    shape = GroupedTiles(m, n, 128, stages, warps)
    if gated:
        return experts_grouped_words.launch_gate_up(x, routes, layer.gate_up, shape)
    return experts_grouped_words.launch_down(x, routes, layer.down, shape)


def experts_swept(kinds: list[str], given: list[int]) -> None:
    """The four fastest tiles of gate and up, and of down, µs; what is taken today first."""
    import torch
    from engine_kv_fp8 import timed

    from kernels_support.gpu import experts_grouped_words, routing

    for kind in kinds:
        layers = [layer_of(kind) for _ in range(3)]
        count, top = layers[0].count, layers[0].top
        for rows, gated in itertools.product(given, (True, False)):
            logits, counts = torch.randn(rows, count, device="cuda"), torch.zeros(count, dtype=torch.int32, device="cuda")
            routes = routing.launch(logits, counts, top, torch.bfloat16, renormalize=True)
            x = torch.randn(*((rows, 2048) if gated else (rows * top, 768)), device="cuda", dtype=torch.bfloat16)
            taken = experts_grouped_words.pick_packed_tiles(rows, top, count, 2, gated=gated)
            first, times = (taken.m, taken.n, taken.stages, taken.warps), {}
            for tiles in dict.fromkeys((first, *GROUPED[not gated])):
                try:
                    times[tiles] = (
                        1e6
                        / 3
                        * timed(lambda x=x, r=routes, t=tiles, g=gated, ls=layers: [grouped_launch(one, x, r, t, gated=g) for one in ls])
                    )
                except Exception as exc:  # noqa: BLE001 - too much shared memory: the others count
                    print(tiles, type(exc).__name__, flush=True)
            best = sorted(times.items(), key=lambda item: item[1])[:4]
            said = ", ".join(f"{'/'.join(map(str, t))} {us:.1f}" for t, us in best)
            print(
                f"{kind} {rows} rows, {'gate and up' if gated else 'down'}: taken {'/'.join(map(str, first))} {times.get(first, 0):.1f}; {said}",
                flush=True,
            )


def _quantized(spec: Any, plain: Any, how: str) -> Any:
    """Random matrices as a GGUF file's Q4_K (tables in Q6_K), or compressed-tensors' W4A16, have them; one rank's, so columns are all."""
    import torch

    q, kv, inner = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.experts.inner if spec.experts else spec.inner
    shapes = {"q_proj": (q, spec.hidden), "k_proj": (kv, spec.hidden), "v_proj": (kv, spec.hidden), "o_proj": (spec.hidden, q)}
    shapes |= {"gate_proj": (inner, spec.hidden), "up_proj": (inner, spec.hidden), "down_proj": (spec.hidden, inner)}
    if how == "Q4_K":
        shapes |= dict.fromkeys(("embed_tokens", "lm_head"), (spec.vocab, spec.hidden))

    def whole(low: int, high: int, shape: tuple[int, int], dtype: Any) -> Any:
        return torch.randint(low, high, shape, dtype=dtype, device="cuda:0")

    def read(name: str, rows: Any = None, columns: Any = None) -> Any:
        module, kind = name.rsplit(".", 1)
        if (last := module.rpartition(".")[2]) not in shapes:
            return plain(name, rows, columns)
        (n, k), six = shapes[last], not last.endswith("_proj")
        n = rows[1] - rows[0] if rows else n
        if how == "W4A16":
            if kind == "weight_scale":
                return torch.full((n, k // 128), 0.02 / 4.6, device="cuda:0")
            return whole(-(2**31), 2**31 - 1, (n, k // 8), torch.int32) if kind == "weight_packed" else None
        if kind == "weight":
            return whole(-32, 32, (n, k), torch.int8) if six else whole(0, 256, (n, k // 2), torch.uint8)
        if kind == "weight_scale":
            return torch.full((n, k // (16 if six else 32)), 0.02 / (18 if six else 4.6), device="cuda:0")
        return None if six or kind != "weight_zero" else torch.full((n, k // 32), -7.5 * 0.02 / 4.61, device="cuda:0")

    return read


def runs(which: list[str]) -> None:
    import torch
    from engine_gpu import folder, lengths, rate
    from engine_int4 import CONFIG

    from holynb.pool.engine.load import random_weights
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    bits = {"layers": 6, "tables": 10, "gpu_layers": 6, "gpu_tables": 10}
    added = {"8b Q4_K": {"quant_method": "gguf", "group_size": 32, "bits": bits}, "30b-a3b W4A16": CONFIG}
    for name in which:
        size, _, how = name.partition(" ")
        with tempfile.TemporaryDirectory() as root:
            path = folder(size, Path(root))
            config = json.loads((path / "config.json").read_text("utf-8"))
            if name in added:
                config |= {"quantization_config": added[name]}
            (path / "config.json").write_text(json.dumps(config), "utf-8")
            spec = read_spec(path)
            source = random_weights(spec, "cuda:0", torch.bfloat16)
            if name in added:
                source = _quantized(spec, source, how)
            begin = time.perf_counter()
            runner = Runner(path, device="cuda:0", dtype="int8" if how == "int8" else None, max_len=2112, source=source)
            runner.warm()
            rate(runner, [(p, min(n, 8)) for p, n in lengths("64")], 1)
            ready = time.perf_counter() - begin
            said = {work: rate(runner, lengths(work), 2) for work in ("one", "64", "256")}
            print(
                f"{name} ({runner.dtype}, {runner.weights_bytes / 1e9:.2f} GB, ready {ready:.0f} s): "
                + ", ".join(f"{work} {got['tok_s']:,.0f} tok/s ({got['ms_step']:.2f} ms)" for work, got in said.items()),
                flush=True,
            )
            del runner
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("check", "products", "experts", "runs"))
    parser.add_argument("--rows", default="1,8,64,256,2048")
    parser.add_argument("--kinds", default="Q4_K,Q4_1,AWQ,Q8_0,Q6_K")
    parser.add_argument("--sweep", default="", help="kinds whose tiles are tried")
    parser.add_argument("--sweep-experts", default="", help="kinds of a layer whose tiles are tried, and nothing else")
    parser.add_argument("--runs", default="8b Q4_K,8b int8,30b-a3b W4A16")
    given = parser.parse_args()
    rows, kinds = [int(r) for r in given.rows.split(",")], given.kinds.split(",")
    swept = [kind for kind in given.sweep.split(",") if kind]
    wanted = {one for one in ("check", "products", "experts") if given.only in (None, one)}
    jobs: list[tuple[Any, ...]] = [("check", *one) for one in CHECKED] if "check" in wanted else []
    if "products" in wanted:
        jobs += [("product", kind, matrix, r, None) for kind in kinds for matrix in MATRICES for r in rows]
        tried = [(r, tiles) for those, of in ((FEW_ROWS, FEW), (MORE_ROWS, MORE)) for r in those for tiles in of if r in rows]
        jobs += [("product", kind, m, r, tiles) for kind in swept for m in MATRICES for r, tiles in tried if m[4] or tiles[-1] == 1]
    if "experts" in wanted:
        jobs += [("experts", kind, r) for kind in LAYERS for r in rows]
    if given.sweep_experts:
        wanted, jobs = (
            {"swept"},
            [
                ("grouped", kind, 64, gated, tiles)
                for kind in given.sweep_experts.split(",")
                for gated in (True, False)
                for tiles in GROUPED[not gated]
            ],
        )
    if jobs:
        prepare(jobs)
    if "check" in wanted:
        check()
    if "products" in wanted:
        for matrix in MATRICES:
            product(*matrix, rows, kinds, swept)
    if "experts" in wanted:
        experts_alone(rows)
    if "swept" in wanted:
        experts_swept(given.sweep_experts.split(","), rows)
        return
    if given.only in (None, "runs"):
        runs(given.runs.split(","))


if __name__ == "__main__":
    main()
