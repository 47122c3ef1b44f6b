"""The kernels of a mixture of experts say what plain torch says. On a GPU where there is one, else by Triton's interpreter."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import mxfp4_model
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import experts as module  # noqa: E402
from kernels_support.gpu import experts_few, experts_few_fp8, experts_grouped, experts_grouped_fp8, mxfp4_matrix, norms, routing  # noqa: E402
from kernels_support.gpu.experts import Experts  # noqa: E402
from kernels_support.gpu.experts_few import FewTiles  # noqa: E402
from kernels_support.gpu.experts_grouped import GroupedTiles  # noqa: E402
from kernels_support.gpu.fp8_matrix import Fp8Matrices, dequantize, quantize_matrix  # noqa: E402
from kernels_support.gpu.gated import Gating  # noqa: E402
from kernels_support.gpu.mxfp4_matrix import Mxfp4Matrices  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The interpreter computes in numpy, which warns where masked elements are infinite.
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = [torch.float32, torch.bfloat16] if torch.cuda.is_available() else [torch.float32]


def made(count: int, hidden: int, inner: int, top: int, dtype: Any, *, renormalize: bool = True) -> Experts:
    torch.manual_seed(3)

    def randn(*shape: int) -> Any:
        return (torch.randn(*shape, device=DEVICE) * shape[-1] ** -0.5).to(dtype)

    return Experts(randn(count, hidden) * 2, randn(count, 2 * inner, hidden), randn(count, hidden, inner), top, renormalize)


def rows_of(experts: Experts, rows: int, skew: str) -> Any:
    """Rows whose router spreads them, or sends them all to the same experts; those leave others without any."""
    x = torch.randn(rows, experts.router.shape[1], device=DEVICE).to(experts.router.dtype)
    return x if skew == "spread" else x * 0.1 + 2 * experts.router[1]


def close(ours: Any, plain: Any, dtype: Any) -> None:
    wrong = ((ours.double() - plain.double()).norm() / plain.double().norm()).item()
    assert wrong < (1e-5 if dtype == torch.float32 else 1e-2), wrong


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "top", "renormalize", "splits"), [(5, 2, True, 1), (16, 3, False, 4)])
def test_who_goes_where(count: int, top: int, renormalize: bool, splits: int, dtype: Any) -> None:
    rows = 9
    # Sums that are exact in any order and in bfloat16, and of no row two alike: what a last bit decides is nobody's to test.
    logits = torch.stack([torch.randperm(64)[:count] - 32 for _ in range(rows)]).to(DEVICE) / 8
    parts = torch.randint(-32, 32, (splits, rows, count), device=DEVICE) / 8
    parts[0] += logits - parts.sum(0)
    logits = logits.to(dtype)
    logits[4] = 1.0  # ties: the first ones are taken
    parts[:, 4] = 1.0 / splits
    lists = routing.launch(
        parts if splits > 1 else logits, torch.zeros(count, dtype=torch.int32, device=DEVICE), top, dtype, renormalize=renormalize
    )
    weights, chosen = routing.route_reference(logits, top, renormalize=renormalize)
    chosen[4] = torch.arange(top)
    torch.testing.assert_close(lists.weights, weights, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=0)
    for expert in range(count):
        own = lists.lists[expert, : lists.counts[expert]].tolist()
        assert sorted(own) == (chosen == expert).flatten().nonzero().flatten().tolist()


def test_a_row_that_is_no_number_names_experts_that_there_are() -> None:
    """A graph's padding may hold anything; an expert beyond the last would be read from somebody else's memory."""
    count, top = 5, 3
    logits = torch.full((2, count), float("nan"), device=DEVICE)
    lists = routing.launch(logits, torch.zeros(count, dtype=torch.int32, device=DEVICE), top, torch.float32, renormalize=True)
    assert int(lists.counts.sum()) == 2 * top
    assert int(lists.counts.max()) <= 2
    experts = made(count, 32, 16, top, torch.float32)
    _, chosen, _ = experts_few.launch_gate_up(torch.zeros(2, 32, device=DEVICE), logits, experts.gate_up, top, FewTiles(), renormalize=True)
    assert sorted(chosen[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "hidden", "inner", "top"), [(8, 64, 32, 2), (6, 40, 24, 3)])
@pytest.mark.parametrize("renormalize", [True, False])
def test_a_few_rows(count: int, hidden: int, inner: int, top: int, renormalize: bool, dtype: Any) -> None:
    experts = made(count, hidden, inner, top, dtype, renormalize=renormalize)
    x = rows_of(experts, 3, "spread")
    out = torch.empty_like(x)
    part = module.launch(x, torch.nn.functional.linear(x, experts.router), experts, torch.empty(0, dtype=torch.int32, device=DEVICE), out)
    assert part is out
    close(out, module.experts_reference(x, experts), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "hidden", "inner", "top", "rows", "skew", "tiles"),
    [
        (8, 64, 32, 2, 7, "spread", GroupedTiles(16, 16, 32, 2)),
        (6, 40, 24, 3, 20, "spread", GroupedTiles(16, 32, 16, 2)),  # nothing divides evenly
        (12, 64, 32, 2, 37, "one", GroupedTiles(16, 32, 32, 2)),  # an expert with several tiles, and many without a row
        (4, 32, 16, 4, 1, "spread", GroupedTiles(32, 16, 32, 2)),  # one token, to all of them
    ],
)
def test_many_rows(count: int, hidden: int, inner: int, top: int, rows: int, skew: str, tiles: GroupedTiles, dtype: Any) -> None:
    experts = made(count, hidden, inner, top, dtype)
    x = rows_of(experts, rows, skew)
    counts = torch.zeros(count, dtype=torch.int32, device=DEVICE)
    lists = routing.launch(torch.nn.functional.linear(x, experts.router), counts, top, dtype, renormalize=True)
    if skew == "one":
        assert int(counts.max()) == rows
        assert int(counts.min()) == 0
    product = experts_grouped.launch_gate_up(x, lists, experts.gate_up, tiles)
    parts = experts_grouped.launch_down(product, lists, experts.down, tiles)
    plain = module.experts_reference(x, experts)
    close(parts.float().sum(0), plain, dtype)
    # The norm that comes next adds them.
    residual, weight = torch.randn_like(x), torch.rand(hidden, device=DEVICE).to(dtype)
    for ours, wanted in zip(
        norms.launch(parts, residual, weight, 1e-6), norms.add_rms_norm_reference(plain, residual, weight, 1e-6), strict=True
    ):
        close(ours, wanted, dtype)


def in_eights(many: Any, blocks: bool) -> Fp8Matrices:
    """The same matrices in FP8, with a scale a row; or other ones, with a scale a block."""
    eights = [quantize_matrix(one) for one in many]
    values = torch.stack([one.values.view(torch.uint8) for one in eights]).view(torch.float8_e4m3fn)
    _, n, k = many.shape
    scales = torch.rand(len(eights), n // 128, k // 128, device=DEVICE) * 1e-3 + 1e-3 if blocks else torch.stack([e.scale for e in eights])
    return Fp8Matrices(values, scales)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "hidden", "inner", "blocks"), [(4, 48, 24, False), (3, 128, 128, True)])
def test_experts_in_eight_bits(count: int, hidden: int, inner: int, blocks: bool, dtype: Any) -> None:
    """A few rows are multiplied as they are, many in eight bits, too: exactly what the widened numbers give."""
    plain = made(count, hidden, inner, 2, dtype)
    eights = replace(plain, gate_up=in_eights(plain.gate_up, blocks), down=in_eights(plain.down, blocks))
    widened = [torch.stack([dequantize(many[e]) for e in range(count)]).to(dtype) for many in (eights.gate_up, eights.down)]
    x, tiles = rows_of(plain, 2, "spread"), FewTiles(n=32, down_n=32)
    logits = torch.nn.functional.linear(x, plain.router)
    product, chosen, weights = experts_few_fp8.launch_gate_up(x, logits, eights.gate_up, 2, tiles, renormalize=True)
    few = experts_few_fp8.launch_down(product, chosen, weights, eights.down, tiles)
    close(few, module.experts_reference(x, replace(plain, gate_up=widened[0], down=widened[1])), dtype)
    x, counts = rows_of(plain, 9, "spread"), torch.zeros(count, dtype=torch.int32, device=DEVICE)
    lists = routing.launch(torch.nn.functional.linear(x, plain.router), counts, 2, dtype, renormalize=True)
    product = experts_grouped_fp8.launch_gate_up(eights.gate_up.quantized(x), lists, eights.gate_up, GroupedTiles(16, 64, 128, 2))
    many = experts_grouped_fp8.launch_down(eights.down.quantized(product), lists, eights.down, GroupedTiles(16, 64, 128, 2)).float().sum(0)
    exact = module.experts_reference(x, eights)
    # The interpreter adds products in float32. Hopper's matrix unit keeps some 14 bits of a sum of eights' products (DeepSeek-V3, arXiv:2412.19437, 3.3.2),
    # and a last bit of bfloat16 takes one number in thirty of what lies between over an edge of its eight bits.
    most = 1e-5 if DEVICE == "cpu" else 2e-3 if dtype == torch.float32 else 0.03
    assert ((many - exact.float()).norm() / exact.float().norm()).item() < most


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_mxfp4", [False, True])
@pytest.mark.parametrize("rows", [1, 11])
def test_biases_and_a_limit(rows: int, in_mxfp4: bool, dtype: Any) -> None:
    """As gpt-oss has them; inner columns that fill no group, and fewer than a tile."""
    count, hidden, inner, top = 5, 160, 96, 3
    experts = made(count, hidden, inner, top, dtype)
    biases = [torch.randn(count, n, device=DEVICE).to(dtype) for n in (1, 2 * inner, hidden)]
    experts = replace(experts, router_bias=biases[0][:, 0], gate_up_bias=biases[1], down_bias=biases[2], gating=Gating(1.5, 1.702))
    if in_mxfp4:
        both = [mxfp4_model.quantized(matrices) for matrices in (experts.gate_up.cpu(), experts.down.cpu())]
        four = [mxfp4_matrix.packed(*one, k) for one, k in zip(both, (hidden, inner), strict=True)]
        four = [Mxfp4Matrices(words.to(DEVICE), scales.to(DEVICE), k) for (words, scales), k in zip(four, (hidden, inner), strict=True)]
        experts = replace(experts, gate_up=four[0], down=four[1])
    x = torch.randn(rows, hidden, device=DEVICE).to(dtype)
    logits = torch.nn.functional.linear(x, experts.router, experts.router_bias)
    part = module.launch(x, logits, experts, torch.zeros(8, dtype=torch.int32, device=DEVICE))
    close(part if rows == 1 else part.float().sum(0), module.experts_reference(x, experts, logits), dtype)


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 300])
@pytest.mark.parametrize(("top", "experts"), [(8, 128), (2, 8), (4, 4)])
def test_a_grid_has_room_for_any_routing(rows: int, top: int, experts: int) -> None:
    dice = random.Random(0)
    for favour in (0.0, 1.0, 5.0):
        liking = [dice.random() * favour for _ in range(experts)]
        counts = Counter(e for _ in range(rows) for e in sorted(range(experts), key=lambda e: -liking[e] - dice.random())[:top])
        for m in (1, 16, 32, 128):
            most = experts_grouped.most_tiles(rows, top, experts, m)
            assert sum(-(-count // m) for count in counts.values()) <= most <= rows * top


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 4, 5, 16, 64, 200, 256, 700, 3000])
@pytest.mark.parametrize("sizes", [(128, 2048, 768, 8), (8, 1024, 3584, 2), (128, 2048, 96, 8)])
def test_sizes_that_models_have(sizes: tuple[int, int, int, int], rows: int, dtype: Any) -> None:
    experts = made(*sizes, dtype)
    x = rows_of(experts, rows, "spread")
    counts = module.fresh_counts(2, experts.count, x)
    assert counts is not None
    logits = module.router_logits(x, experts.router)
    plain = module.experts_reference(x, experts, logits if logits.dim() == 2 else logits.sum(0).to(dtype))
    ours = module.experts_mlp(x, experts, counts[1])
    close(ours if ours.dim() == 2 else ours.float().sum(0), plain, dtype)
    out = torch.empty_like(x)
    assert module.experts_mlp(x, experts, counts[0], out) is out
    close(out, plain, dtype)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [2, 64, 700])
def test_the_same_rows_give_the_same_bits_in_a_graph(rows: int) -> None:
    experts = made(128, 2048, 768, 8, torch.bfloat16)
    x = rows_of(experts, rows, "spread")

    def work() -> Any:
        counts = module.fresh_counts(1, experts.count, x)
        assert counts is not None
        return module.experts_mlp(x, experts, counts[0])

    with torch.inference_mode():
        first = work().clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            again = work()
        for _ in range(3):
            graph.replay()
            assert torch.equal(first, again)
