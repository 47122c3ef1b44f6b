"""Each Triton kernel says what its plain torch side says. On a GPU where there is one, else by Triton's interpreter where it is installed."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import (  # noqa: E402
    allreduce_norm,
    fp8,
    gelu_mul,
    gemm_fp8,
    gemm_small_m,
    gemm_wide,
    gemv,
    masking,
    norms,
    nucleus,
    rotary,
    sampler,
    silu_mul,
)
from kernels_support.gpu import quantize_fp8 as eight  # noqa: E402
from kernels_support.gpu.attention import AttentionKind, Span, attend_reference, causal, runs  # noqa: E402
from kernels_support.gpu.feeding import DecodeInputs, feed, feed_reference  # noqa: E402
from kernels_support.gpu.feeding_groups import GroupInputs, feed_groups, feed_groups_reference  # noqa: E402
from kernels_support.gpu.fp8_matrix import Fp8Matrix, dequantize, quantize_matrix  # noqa: E402
from kernels_support.gpu.lang import launch_kernel  # noqa: E402
from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, Prefill, fills_device, splits  # noqa: E402
from kernels_support.gpu.paged_splits import combine_splits, combine_splits_fp8  # noqa: E402
from kernels_support.gpu.sampling import (  # noqa: E402
    NOT_FINITE,
    PIECE_TOKENS,
    SamplingParams,
    philox,
    piece_gumbel_noise,
    sample_reference,
    threshold_reference,
    token_gumbel_noise,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The interpreter computes in numpy, which warns where hashes wrap and masked elements are infinite.
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = [torch.float32, torch.bfloat16] if torch.cuda.is_available() else [torch.float32]


def close(a: Any, b: Any, dtype: Any) -> None:
    wrong = ((a.double() - b.double()).norm() / b.double().norm()).item()
    assert wrong < (1e-5 if dtype == torch.float32 else 1e-2), wrong


def randn(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(*shape, device=DEVICE).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 100])
def test_norms(width: int, dtype: Any) -> None:
    x, residual, weight = randn(5, width, dtype=dtype), randn(5, width, dtype=dtype), randn(width, dtype=dtype)
    for with_residual in (residual, None):
        for ours, plain in zip(
            norms.launch(x, with_residual, weight, 1e-6), norms.add_rms_norm_reference(x, with_residual, weight, 1e-6), strict=True
        ):
            close(ours, plain, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("world", "me", "rows", "width"), [(2, 0, 3, 64), (4, 2, 5, 100), (2, 1, allreduce_norm._MAX_PROGRAMS + 7, 48)])
@pytest.mark.parametrize("streamed", [True, False])
def test_sums_of_peers(world: int, me: int, rows: int, width: int, dtype: Any, streamed: bool) -> None:
    """One rank of several on one device: the others' parts lie there, and they have said so. A pair on two devices is in test_sums.py."""
    offset = 4 * allreduce_norm.FLAG_COUNT + 64
    memory = [torch.zeros(offset + rows * width * dtype.itemsize, dtype=torch.uint8, device=DEVICE) for _ in range(world)]
    parts, flags = (
        [m[offset:].view(dtype).view(rows, width) for m in memory],
        [m[: 4 * allreduce_norm.FLAG_COUNT].view(torch.int32) for m in memory],
    )
    for part in parts:
        part.copy_(randn(rows, width))
    programs = min(rows, allreduce_norm._MAX_PROGRAMS)
    for program in range(programs):
        for other in set(range(world)) - {me}:
            flags[me][program * world + other] = 1
    residual, weight = randn(rows, width, dtype=dtype) if streamed else None, randn(width, dtype=dtype)
    peers = allreduce_norm.Peers(torch.tensor([m.data_ptr() for m in memory], device=DEVICE), me, world)
    for ours, plain in zip(
        allreduce_norm.allreduce_rms_norm(parts[me], offset, peers, residual, weight, 1e-6),
        allreduce_norm.allreduce_rms_norm_reference(parts, residual, weight, 1e-6),
        strict=True,
    ):
        close(ours, plain, dtype)
    assert not flags[me].any(), "what was said to us is taken down"
    assert all(int(flags[o].sum()) == programs and flags[o][:me].sum() == 0 for o in set(range(world)) - {me}), "everybody else was told"


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_mul(dtype: Any) -> None:
    both = randn(3, 2 * 1100, dtype=dtype)
    close(silu_mul.launch(both), silu_mul.silu_mul_reference(both), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "n", "k"), [(1, 10, 64), (4, 70, 1500), pytest.param(3, 2050, 100, marks=pytest.mark.slow)])
def test_gemv(rows: int, n: int, k: int, dtype: Any) -> None:
    x, weight, bias = randn(rows, k, dtype=dtype), randn(n, k, dtype=dtype), randn(n, dtype=dtype)
    for b in (None, bias):
        close(gemv.launch(x, weight, b), torch.nn.functional.linear(x, weight, b), dtype)
        into = torch.full((rows, n), float("nan"), device=DEVICE, dtype=dtype)
        assert gemv.launch(x, weight, b, into) is into
        close(into, torch.nn.functional.linear(x, weight, b), dtype)


def same_eights(ours: Any, plain: Any) -> None:
    """Equal but for ties that a sum in another order tips over, and for a zero's sign; Triton's interpreter rounds a twentieth otherwise than torch."""
    torch.testing.assert_close(ours.scales, plain.scales, rtol=2e-2 if ours.dtype == torch.bfloat16 else 1e-5, atol=0)
    differ = (ours.values.float() != plain.values.float()).float().mean()
    assert differ < (0.02 if DEVICE == "cuda" else 0.12), differ


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", [{}, {"group": 128}, {"scale": 0.01}, {"most": 1.5}])
def test_eight_bits_of_rows(how: dict[str, Any], dtype: Any) -> None:
    x = randn(3, 384, dtype=dtype)
    x[1] = 0
    how = how | ({"scale": torch.tensor([how["scale"]], device=DEVICE)} if "scale" in how else {})
    same_eights(eight.launch(x, **how), eight.quantize_fp8_reference(x, **how))
    if not how:
        gated = eight.silu_mul_fp8(torch.cat((x, x), 1))
        same_eights(gated, eight.quantize_fp8_reference(silu_mul.silu_mul_reference(torch.cat((x, x), 1))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [None, 128])
def test_norms_in_eight_bits(group: int | None, dtype: Any) -> None:
    x, residual, weight = randn(5, 384, dtype=dtype), randn(5, 384, dtype=dtype), randn(384, dtype=dtype)
    values, scales, total = norms.launch(x, residual, weight, 1e-6, group=group or 384)
    normed, whole = norms.add_rms_norm_reference(x, residual, weight, 1e-6)
    same_eights(eight.Quantized(values, scales, dtype), eight.quantize_fp8_reference(normed, group=group))
    close(total, whole, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("rows", [1, 20, pytest.param(150, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.slow)])
def test_products_of_eight_bits(rows: int, blocks: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reference multiplies the same eights, with biases; and SwiGLU of the halves."""
    if rows > gemm_fp8.MAX_ROWS and not blocks and (dtype == torch.float32 or DEVICE == "cpu"):
        pytest.skip("torch's own product, which rounds to bfloat16")
    monkeypatch.setattr(fp8, "on_device", lambda _: True)
    matrix = quantize_matrix(randn(256, 256))
    matrix = Fp8Matrix(matrix.values, torch.rand(2, 2, device=DEVICE) * 0.01) if blocks else matrix
    x, bias = eight.quantize_fp8_reference(randn(rows, 256, dtype=dtype), group=matrix.group), randn(256, dtype=dtype)
    wide = x.values.float() * x.scales.repeat_interleave(256 // x.scales.shape[1], 1)
    exact = wide @ dequantize(matrix).t()
    # A matrix unit keeps fourteen bits of a sum of eights.
    most = 1e-2 if dtype == torch.bfloat16 else 1e-3 if DEVICE == "cuda" else 1e-5
    for ours, plain in ((fp8.linear(x, matrix), exact), (fp8.linear(x, matrix, bias), exact + bias.float())):
        assert ((ours.double() - plain.double()).norm() / plain.double().norm()).item() < most
    gate, up = exact.chunk(2, 1)
    product = fp8.swiglu(x, matrix)
    assert isinstance(product, torch.Tensor)
    wrong = ((product.double() - (torch.nn.functional.silu(gate) * up).double()).norm() / (gate * up).double().norm()).item()
    assert wrong < 2 * most, wrong


@pytest.mark.parametrize(
    ("rows", "n", "gated", "tiles"),
    [
        (20, 192, True, gemm_fp8.Fp8Tiles(32, 96, 128, 2)),  # 64 columns of each, and 32 of each in one tile
        (20, 128, False, gemm_fp8.Fp8Tiles(16, 64, 128, 2, 4, 2)),  # several tiles of rows, and of the inner dimension
    ],
)
def test_tiles_of_eight_bits(rows: int, n: int, gated: bool, tiles: gemm_fp8.Fp8Tiles) -> None:
    wide = n * (2 if gated else 1)
    matrix, bias = quantize_matrix(randn(wide, 256)), randn(wide, dtype=torch.float32)
    x = eight.quantize_fp8_reference(randn(rows, 256, dtype=torch.float32))
    out = torch.full((rows, n) if tiles.split == 1 else (tiles.split, rows, n), torch.nan, device=DEVICE)
    ours = gemm_fp8.launch(x, matrix, bias, out, tiles)
    plain = (x.values.float() * x.scales) @ dequantize(matrix).t() + bias
    plain = silu_mul.silu_mul_reference(plain) if gated else plain
    assert ((ours if ours.dim() == 2 else ours.sum(0)) - plain).norm() / plain.norm() < (1e-3 if DEVICE == "cuda" else 1e-5)


@pytest.mark.parametrize(
    ("rows", "n", "gated", "tiles"),
    [(20, 192, True, gemm_wide.WideTiles(32, 96, 64, 2)), (20, 128, False, gemm_wide.WideTiles(16, 64, 64, 2, 4, 2))],
)
def test_tiles_of_large_matrices(rows: int, n: int, gated: bool, tiles: gemm_wide.WideTiles) -> None:
    wide, dtype = n * (2 if gated else 1), torch.bfloat16 if DEVICE == "cuda" else torch.float32
    weight, bias, x = randn(wide, 256, dtype=dtype), randn(wide, dtype=dtype), randn(rows, 256, dtype=dtype)
    ours = gemm_wide.launch(x, weight, bias, tiles, gated=gated)
    plain = x.float() @ weight.float().t() + bias.float()
    plain = silu_mul.silu_mul_reference(plain) if gated else plain
    assert ((ours if ours.dim() == 2 else ours.sum(0)) - plain).norm() / plain.norm() < (1e-2 if DEVICE == "cuda" else 1e-5)


@pytest.mark.parametrize("rows", [9, 16, 33, 64, 65, 128, 129, 256])
def test_tiles_of_wide_products_fit(rows: int) -> None:
    """8B's matrices: what is taken covers all rows with one tile, and divides the matrix and the inner dimension."""
    for n, k, gated, split_k in (
        (4096, 4096, False, True),
        (6144, 4096, False, False),
        (4096, 12288, False, True),
        (12288, 4096, True, False),
    ):
        tiles = gemm_wide.pick_tiles(rows, n, k, gated=gated, split_k=split_k)
        assert (tiles is None) == (rows > (gemm_wide.MAX_GATED_ROWS if gated else gemm_wide.MAX_ROWS))
        if tiles is not None:
            assert rows <= tiles.m <= 2 * max(rows, 8)
            assert n % tiles.n == 0
            assert k % (tiles.k * tiles.split) == 0
            assert split_k or tiles.split == 1
    assert gemm_wide.pick_tiles(rows, 1024, 4096) is None, "too few programs for a large GPU"
    assert gemm_wide.pick_tiles(8, 6144, 4096) is None, "few rows have another kernel"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("size", [16, 24])
def test_rotary(size: int, normed: bool, dtype: Any) -> None:
    weights = (randn(size, dtype=dtype), randn(size, dtype=dtype)) if normed else (None, None)
    how = rotary.Heads(4, 2, size, *weights)
    qkv, angles = randn(3, 8 * size, dtype=dtype), torch.rand(3, size // 2, device=DEVICE)
    rope, slots = torch.cat((angles.cos(), angles.sin()), -1), torch.tensor([7, -1, 0], device=DEVICE)
    pages = [[torch.zeros(2, 10, size, device=DEVICE, dtype=dtype) for _ in range(2)] for _ in range(2)]
    close(rotary.launch(qkv, how, rope, slots.int(), *pages[0]), rotary.rotate_and_store_reference(qkv, how, rope, slots, *pages[1]), dtype)
    for ours, plain in zip(*pages, strict=True):
        close(ours, plain, dtype)
        assert (ours[:, 1:7] == 0).all(), "only the slots that were asked for are written"


def paged(lengths: list[int], page: int, heads: int, kv: int, size: int, dtype: Any) -> tuple[Any, Any, Any, list[list[int]]]:
    """A cache with scattered blocks; what nobody may read is NaN."""
    order = torch.randperm(sum(-(-n // page) for n in lengths) + 3).tolist()
    blocks = [[order.pop() for _ in range(-(-n // page))] for n in lengths]
    keys, values = (
        torch.full((kv, (max(map(max, [[0], *[b for b in blocks if b]])) + 4) * page, size), torch.nan, device=DEVICE, dtype=dtype)
        for _ in range(2)
    )
    for row, n in zip(blocks, lengths, strict=True):
        for first, last in runs(row, page, n):
            for pages in (keys, values):
                pages[:, first:last] = randn(kv, last - first, size, dtype=dtype)
    table = torch.zeros(len(lengths), 40, dtype=torch.int32, device=DEVICE)
    for i, row in enumerate(blocks):
        table[i, : len(row)] = torch.tensor(row, dtype=torch.int32)
    return keys, values, table, blocks


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv", "size"), [(4, 2, 16), (6, 2, 24), (3, 3, 64)])
@pytest.mark.parametrize("parts", [1, 4])
def test_decode_attention(parts: int, heads: int, kv: int, size: int, dtype: Any) -> None:
    lengths = [1, 130, 64, 17, 0]
    keys, values, table, blocks = paged(lengths, 16, heads, kv, size, dtype)
    q = randn(5, heads, size, dtype=dtype)
    said = Decode(table, torch.tensor(lengths, dtype=torch.int32, device=DEVICE), 16, parts)(q, keys, values)
    spans = [Span(i, i + 1, runs(blocks[i], 16, n)) for i, n in enumerate(lengths) if n]
    close(said[:4], attend_reference(q, keys, values, spans=spans)[:4], dtype)
    assert (said[4] == 0).all(), "no row, no number"
    order = torch.tensor([1, 2, 3, 0, 4], dtype=torch.int32, device=DEVICE)
    again = Decode(table, torch.tensor(lengths, dtype=torch.int32, device=DEVICE), 16, parts, order)(q, keys, values)
    assert torch.equal(again, said), "whatever comes first"


def test_splits_in_eight_bits() -> None:
    """All heads of a row put together by one program and rounded, as by one program a head and another kernel."""
    partial, lse, like = randn(2, 3, 2, 24, dtype=torch.float32), randn(2, 3, 2, dtype=torch.float32), randn(1, dtype=torch.float32)
    lse[0, 1] = float("-inf")  # no keys at all
    plain, values = torch.empty(2, 3, 24, device=DEVICE), torch.empty(2, 72, dtype=eight.FP8, device=DEVICE)
    scales, shape = torch.empty(2, 1, device=DEVICE), {"size": 24, "size_padded": 32, "splits": 2, "window": 0, "tile": 32}
    lengths = torch.tensor([64, 17], dtype=torch.int32, device=DEVICE)
    partial[1, :, 1] = lse[1, :, 1] = float("nan")  # of the second row one split has keys, and the other is never written
    launch_kernel(combine_splits, (2, 3), partial, lse, lengths, plain, **shape)
    launch_kernel(combine_splits_fp8, (2,), partial, lse, lengths, like, values, scales, heads=3, heads_padded=4, **shape)
    assert torch.equal(plain[1], partial[1, :, 0]), "one split is the whole"
    same_eights(eight.Quantized(values, scales, torch.float32), eight.quantize_fp8_reference(plain.view(2, 72)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv", "size"), [(4, 2, 16), (3, 1, 24)])
def test_prefill_attention(heads: int, kv: int, size: int, dtype: Any) -> None:
    lengths, counts = [70, 150, 5, 33], [70, 90, 1, 20]  # whole prompts, and chunks after what is cached already
    keys, values, table, blocks = paged(lengths, 16, heads, kv, size, dtype)
    q = randn(sum(counts) + 7, heads, size, dtype=dtype)
    starts = [sum(counts[:i]) for i in range(4)]
    tiles = [(r, t) for r in range(4) for t in range(0, counts[r], PREFILL_TILE_QUERIES)] + [(-1, 0)] * 3
    spans = torch.tensor(list(zip(starts, counts, lengths, strict=True)), dtype=torch.int32, device=DEVICE)
    said = Prefill(table, torch.tensor(tiles, dtype=torch.int32, device=DEVICE), spans, 16)(q, keys, values)
    plain = attend_reference(
        q,
        keys,
        values,
        spans=[
            Span(s, s + c, runs(b, 16, n), causal(c, n, heads // kv, dtype, DEVICE))
            for s, c, n, b in zip(starts, counts, lengths, blocks, strict=True)
        ],
    )
    close(said[: sum(counts)], plain[: sum(counts)], dtype)


#: Attention that is not plain: a window that ends within a tile and one that does not, a cap, a scale, and all of them; and sinks, of which
#: one outweighs every key and one none.
SINKS = torch.tensor([0.5, -1.0, 30.0, -30.0], device=DEVICE)
KINDS = [
    AttentionKind(window=50),
    AttentionKind(window=128),
    AttentionKind(scale=0.3, cap=2.0),
    AttentionKind(scale=0.3, cap=2.0, window=33),
    AttentionKind(sinks=SINKS),
    AttentionKind(scale=0.3, cap=2.0, window=33, sinks=SINKS),
]


def outside(window: int, first: int, blocks: list[int], page: int, pages: tuple[Any, Any]) -> None:
    """Before what the first query sees lies another row's by now: nobody may read it."""
    for start, stop in runs(blocks, page, max(0, first + 1 - window) // page * page) if window else []:
        for cache in pages:
            cache[:, start:stop] = torch.nan


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("parts", [1, 4])
def test_decode_attention_of_other_kinds(parts: int, kind: AttentionKind) -> None:
    lengths = [1, 200, 64, 0]
    keys, values, table, blocks = paged(lengths, 16, 4, 2, 24, torch.float32)
    for n, row in zip(lengths, blocks, strict=True):
        outside(kind.window, n - 1, row, 16, (keys, values))
    q = randn(4, 4, 24, dtype=torch.float32)
    said = Decode(table, torch.tensor(lengths, dtype=torch.int32, device=DEVICE), 16, parts)(q, keys, values, None, kind)
    starts = [max(0, n - kind.window) if kind.window else 0 for n in lengths]
    spans = [Span(i, i + 1, runs(blocks[i], 16, n, start)) for i, (n, start) in enumerate(zip(lengths, starts, strict=True)) if n]
    close(said[:3], attend_reference(q, keys, values, None, kind, spans=spans)[:3], torch.float32)
    assert (said[3] == 0).all(), "no row, no number"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_prefill_attention_of_other_kinds(kind: AttentionKind) -> None:
    lengths, counts = [70, 230, 5], [70, 90, 1]
    keys, values, table, blocks = paged(lengths, 16, 4, 2, 24, torch.float32)
    firsts = [n - c for n, c in zip(lengths, counts, strict=True)]
    for first, row in zip(firsts, blocks, strict=True):
        outside(kind.window, first, row, 16, (keys, values))
    q, starts = randn(sum(counts), 4, 24, dtype=torch.float32), [0, 70, 160]
    tiles = [(r, t) for r in range(3) for t in range(0, counts[r], PREFILL_TILE_QUERIES)]
    spans = torch.tensor(list(zip(starts, counts, lengths, strict=True)), dtype=torch.int32, device=DEVICE)
    said = Prefill(table, torch.tensor(tiles, dtype=torch.int32, device=DEVICE), spans, 16)(q, keys, values, None, kind)
    plain = []
    for s, c, n, b in zip(starts, counts, lengths, blocks, strict=True):
        low = max(0, n - c + 1 - kind.window) if kind.window else 0
        plain.append(Span(s, s + c, runs(b, 16, n, low), causal(c, n - low, 2, torch.float32, DEVICE, kind.window)))
    close(said, attend_reference(q, keys, values, None, kind, spans=plain), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("split", [True, False])
def test_norms_of_what_joins_the_stream(split: bool, weighted: bool, dtype: Any) -> None:
    x = randn(2, 5, 96, dtype=torch.float32) if split else randn(5, 96, dtype=dtype)
    residual, weight = randn(5, 96, dtype=dtype), randn(96, dtype=torch.float32) if weighted else None
    for way in (norms.Joining(randn(96, dtype=torch.float32)), norms.Joining(None, 0.3), norms.Joining(randn(96, dtype=dtype), 0.7)):
        ours, plain = (f(x, residual, weight, 1e-6, way=way) for f in (norms.launch, norms.add_rms_norm_reference))
        for one, other in zip(ours, plain, strict=True):
            assert one.dtype == other.dtype == dtype
            close(one, other, dtype)


@pytest.mark.parametrize("rotary_size", [0, 8, 12])
def test_a_part_of_a_head_is_rotated(rotary_size: int) -> None:
    weights = randn(16, dtype=torch.float32), randn(16, dtype=torch.float32)
    how = rotary.Heads(4, 2, 16, *weights, rotary=rotary_size)
    qkv, rope = randn(3, 8 * 16, dtype=torch.float32), torch.rand(3, 12, device=DEVICE)
    slots = torch.tensor([7, -1, 0], device=DEVICE)
    pages = [[torch.zeros(2, 10, 16, device=DEVICE) for _ in range(2)] for _ in range(2)]
    said = rotary.launch(qkv, how, rope, slots.int(), *pages[0])
    close(said, rotary.rotate_and_store_reference(qkv, how, rope, slots, *pages[1]), torch.float32)
    for ours, plain in zip(*pages, strict=True):
        close(ours, plain, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_mul(dtype: Any) -> None:
    x = randn(3, 2 * 1100, dtype=dtype) * 3
    close(gelu_mul.launch(x), gelu_mul.gelu_mul_reference(x), dtype)


def test_few_sequences_are_split_and_many_are_not() -> None:
    assert [splits(rows, 8) for rows in (1, 16, 32, 64, 96, 256)] == [32, 8, 4, 1, 1, 1]
    assert [fills_device(rows, 8) for rows in (1, 16, 32, 256, 8192)] == [False, False, True, True, True]


def choice(rows: int, **more: Any) -> SamplingParams:
    said = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 0, "position": 9} | more
    kinds = {"temperature": torch.float32, "top_k": torch.int32, "top_p": torch.float32, "seed": torch.int64, "position": torch.int32}
    columns = {k: torch.as_tensor(v, dtype=kinds[k], device=DEVICE).expand(rows).contiguous() for k, v in said.items()}
    if "seed" not in more:
        columns["seed"] = torch.arange(rows, device=DEVICE) * 0x123456789ABC + 5
    return SamplingParams(**columns)


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.0},
        {},
        {"top_k": 5},
        {"top_p": 0.7},
        {"top_k": 40, "top_p": 0.5},
        {"top_k": 1},
        {"top_p": 1e-6},
        {"temperature": 1.7, "top_k": 10**6},
    ],
)
def test_sampling(how: dict[str, Any]) -> None:
    logits = randn(6, 5000) * 3
    said = sampler.sample(logits, choice(6, **how))
    plain = sample_reference(logits, choice(6, **how))
    # Rounding of a logarithm may tip a near tie; more than one row in six would be a mistake.
    assert (said.long() == plain).sum() >= 5
    if how.get("top_k") == 1 or how.get("top_p") == 1e-6 or how.get("temperature") == 0.0:
        assert (said.long() == logits.argmax(-1)).all()


@pytest.mark.parametrize("max_candidates", [1024, 4096])
@pytest.mark.parametrize("spread", [0.0, 3.0, 12.0])
def test_logit_thresholds(max_candidates: int, spread: float) -> None:
    """Sharp rows, whose candidates fit into the buffer, and flat ones, whose do not; with much that is forbidden, and much that is equal."""
    how = [(k, p) for k in (0, 1, 20, 700) for p in (0.2, 0.95, 1.0)] + [(10**6, 0.9), (0, 1e-6)]
    logits = randn(len(how), 3001) * spread
    logits[::3, 5::2] = -torch.inf
    logits[1::4, 900:1500] = logits[1::4, 1500:2100]
    temperature = torch.linspace(0.4, 1.5, len(how), device=DEVICE)
    top_k, top_p = torch.tensor([k for k, _ in how], dtype=torch.int32, device=DEVICE), torch.tensor([p for _, p in how], device=DEVICE)
    said = nucleus.logit_thresholds(logits, temperature, top_k, top_p, max_candidates)
    scaled = logits * (1.0 / temperature)[:, None]
    plain = threshold_reference(scaled, top_k, top_p, logits.shape[1])
    for row, (k, p) in enumerate(how):
        kept, wanted = int((scaled[row] >= said[row]).sum()), int((scaled[row] >= plain[row]).sum())
        if k == 0 and p == 1.0:
            assert said[row] == -torch.inf
        elif p == 1.0:
            assert kept == wanted, (k, p)
        else:  # a sum in another order may tip one value at the edge, and all that equal it
            ordered = scaled[row].sort(descending=True).values
            assert abs(kept - wanted) <= (ordered == ordered[max(kept, wanted) - 1]).sum(), (k, p, kept, wanted)


def test_greedy_rows_have_no_logit_threshold() -> None:
    zeros = torch.zeros(2, device=DEVICE)
    said = nucleus.logit_thresholds(randn(2, 100), zeros, torch.ones(2, dtype=torch.int32, device=DEVICE), zeros + 0.5)
    assert (said == -torch.inf).all()


@pytest.mark.parametrize("max_candidates", [1024, 4096])
def test_the_threshold_search_ends_on_nan_and_infinite_logits(max_candidates: int) -> None:
    """A look that never ended would take the device with it."""
    nan, inf = torch.nan, torch.inf
    kinds = [(nan, nan), (-nan, -nan), (-inf, -inf), (inf, inf), (nan, 1.0), (-nan, -inf), (inf, nan), (-inf, 1.0), (0.0, -0.0)]
    logits = torch.stack([torch.tensor(pair, device=DEVICE).repeat(1100) for pair in kinds])
    rows = len(kinds)
    for k, p in ((20, 1.0), (20, 0.9), (0, 0.9), (2000, 0.5)):
        top_k, top_p = torch.full((rows,), k, dtype=torch.int32, device=DEVICE), torch.full((rows,), p, device=DEVICE)
        said = nucleus.logit_thresholds(logits, torch.ones(rows, device=DEVICE), top_k, top_p, max_candidates)
        assert (said[-2:].cpu() <= torch.tensor([1.0, 0.0])).all(), "what is a number stays in"
        if max_candidates == nucleus.MAX_CANDIDATES:  # the sampler's own: one look at it is enough
            assert sampler.sample(logits, choice(rows, top_k=k, top_p=p)).max() < logits.shape[1]


def test_sampling_follows_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125], device=DEVICE)).expand(4000, 4).contiguous()
    for pick in (sample_reference, sampler.sample) if DEVICE == "cuda" else (sample_reference,):
        seen = torch.bincount(pick(logits, choice(4000, temperature=1.0)).long(), minlength=4) / 4000
        assert (seen.cpu() - torch.tensor([0.5, 0.25, 0.125, 0.125])).abs().max() < 0.03


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
def test_a_threshold_is_the_same_by_the_head_as_by_all(spread: float) -> None:
    """Flat logits want more than the first look, sharp ones do not; top-k may be larger than it, or than the vocabulary."""
    how = [(k, p) for k in (0, 1, 5, 256, 300, 5000, 10**6) for p in (1e-6, 0.3, 0.9, 0.999, 1.0)]
    top_k, top_p = torch.tensor([k for k, _ in how]), torch.tensor([p for _, p in how])
    scaled = torch.randn(len(how), 9000, generator=torch.Generator().manual_seed(1)) * spread
    scaled[::3, 40:] = -torch.inf  # as a grammar leaves them
    found, whole = threshold_reference(scaled, top_k, top_p), threshold_reference(scaled, top_k, top_p, 9000)
    for row, (k, p) in enumerate(how):
        kept = (scaled[row] >= found[row]).sum()
        # Sums in another order may tip one token at the edge.
        assert abs(kept - (scaled[row] >= whole[row]).sum()) <= 1, (k, p)
        ordered = scaled[row].sort(descending=True).values[: k or 9000]
        mass = ordered.double().softmax(-1).cumsum(-1)
        if p < 1:
            assert kept >= 1 + (mass[:-1] < p - 1e-4).sum() or ordered[-1] == -torch.inf
            assert kept <= 1 + (mass < p + 1e-4).sum()


@pytest.mark.parametrize(
    ("counter", "key", "said"),
    [
        ((0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A)),
    ],
)
def test_philox_says_what_its_authors_say(counter: tuple[int, ...], key: tuple[int, int], said: tuple[int, ...]) -> None:
    """The answers that come with Random123, for philox4x32 of 7 rounds."""
    words = [torch.tensor([x]) for x in counter]
    assert tuple(int(x) for x in philox(tuple(words), (torch.tensor([key[0]]), torch.tensor([key[1]])))) == said


def test_noise_is_as_likely_to_choose_one_token_as_another() -> None:
    """Equal logits over three pieces and a bit: every eighth of them comes as often as it should, and neighbours in seed or position say nothing of each other."""
    vocab, rows = 3 * PIECE_TOKENS + 100, 16000
    how = choice(rows, temperature=1.0, seed=torch.arange(rows) // 40, position=torch.arange(rows) % 40)
    for pick in (sample_reference, sampler.sample) if DEVICE == "cuda" else (sample_reference,):
        few = 250  # at a time: a row's noise is its own, and so little of it stays in a processor's cache
        zeros = torch.zeros(few, vocab, device=DEVICE)
        parts = [SamplingParams(*(getattr(how, f.name)[i : i + few] for f in fields(how))) for i in range(0, rows, few)]
        drawn = torch.cat([pick(zeros, part).cpu() for part in parts])
        seen = torch.bincount(drawn * 8 // vocab, minlength=8).float()
        assert ((seen - rows / 8) ** 2 / (rows / 8)).sum() < 24.3  # chi-square, 7 degrees of freedom: one time in a thousand
        inside = torch.bincount(drawn[drawn < PIECE_TOKENS] // (PIECE_TOKENS // 8), minlength=8).float()
        assert ((inside - inside.mean()) ** 2 / inside.mean()).sum() < 24.3
        for apart in (1, 40):
            with_it = torch.corrcoef(torch.stack((drawn[:-apart].float(), drawn[apart:].float())))[0, 1]
            assert abs(with_it) < 3.3 / rows**0.5


def test_pieces_are_drawn_by_what_they_weigh_and_tokens_by_their_share() -> None:
    """Two heavy tokens in pieces of nothing much, and a broad piece as heavy as either: each comes as often as softmax says."""
    rows, vocab = 6000, 2 * PIECE_TOKENS + 700
    logits = torch.full((rows, vocab), -30.0, device=DEVICE)
    logits[:, 5], logits[:, PIECE_TOKENS + 9] = math.log(0.5), math.log(0.25)
    logits[:, 2 * PIECE_TOKENS + 100 : 2 * PIECE_TOKENS + 600] = math.log(0.25 / 500)
    how = choice(rows, temperature=1.0)
    for pick in (sample_reference, sampler.sample) if DEVICE == "cuda" else (sample_reference,):
        drawn = pick(logits, how)
        seen = (
            torch.tensor(
                [
                    (drawn == 5).sum(),
                    (drawn == PIECE_TOKENS + 9).sum(),
                    ((drawn >= 2 * PIECE_TOKENS + 100) & (drawn < 2 * PIECE_TOKENS + 600)).sum(),
                ]
            )
            / rows
        )
        assert (seen - torch.tensor([0.5, 0.25, 0.25])).abs().max() < 0.025
        broad = drawn[drawn > 2 * PIECE_TOKENS]
        assert broad.unique().numel() > 400  # of 1,500 draws among 500: 475 are expected


def test_noise_belongs_to_a_row_and_a_token_whatever_else_is_asked() -> None:
    how = choice(5, position=torch.arange(5))
    pieces = torch.tensor([0, 3, 1, 0, 7], device=DEVICE)
    many = token_gumbel_noise(how.seed, how.position, pieces)
    assert many.shape == (5, PIECE_TOKENS)
    assert torch.equal(token_gumbel_noise(how.seed[2:4], how.position[2:4], pieces[2:4]), many[2:4])
    assert torch.equal(piece_gumbel_noise(how.seed, how.position, 9)[:, :4], piece_gumbel_noise(how.seed, how.position, 4))
    assert (
        not torch.isclose(
            piece_gumbel_noise(how.seed, how.position, PIECE_TOKENS // 4),
            token_gumbel_noise(how.seed, how.position, pieces * 0)[:, : PIECE_TOKENS // 4],
        )
        .all(1)
        .any()
    )


@pytest.mark.parametrize("what", [torch.nan, torch.inf, -torch.inf])
def test_rows_without_a_number_choose_no_token_and_others_theirs(what: float) -> None:
    vocab = 2 * PIECE_TOKENS + 904
    logits = torch.full((4, vocab), what, device=DEVICE)
    logits[1, 5:] = logits[3, :] = 0.5
    for pick in (sample_reference, sampler.sample):
        for how in ({"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 20, "top_p": 0.9}):
            chosen = pick(logits, choice(4, **how)).tolist()
            assert all(NOT_FINITE <= token < vocab for token in chosen)
            assert chosen[3] >= 0
            if what == torch.inf:
                assert 0 <= chosen[1] < 5
                assert min(chosen) >= 0
            else:
                assert chosen[0] == chosen[2] == NOT_FINITE
            if what == -torch.inf:
                assert chosen[1] >= 5


def test_feeding() -> None:
    rows = [[2, -1, 0, -1, 1], [0, 55, 0, 9, 0], [16, 5, 15, -1, 7], [7, -1, -1, -1, -1]]
    said = torch.tensor(rows, dtype=torch.int32, device=DEVICE)
    made = []
    for run in (feed, feed_reference):
        table = torch.arange(15, dtype=torch.int32, device=DEVICE).view(5, 3).contiguous()
        outs = [torch.full((5,), 99, dtype=torch.int32, device=DEVICE) for _ in range(5)]
        # The second token is none (`sampling.NOT_FINITE`), and nothing is read outside of the embedding for it.
        run(DecodeInputs(said, torch.tensor([10, NOT_FINITE, 12], dtype=torch.int32, device=DEVICE), table, *outs, 16))
        made.append([table, *outs])
    for ours, plain in zip(*made, strict=True):
        assert torch.equal(ours, plain)
    assert made[0][1].tolist() == [12, 55, 10, 0, 0]
    assert made[0][3].tolist() == [7 * 16, 3 * 16 + 5, 6 * 16 + 15, -1, 12 * 16 + 7]


def test_feeding_of_further_groups() -> None:
    """Rows with and without a new block, an empty one, and rows behind the batch, which stay as they are."""
    ints = partial(torch.tensor, dtype=torch.int32, device=DEVICE)
    made = []
    for run in (feed_groups, feed_groups_reference):
        tables, slots = torch.arange(36, dtype=torch.int32, device=DEVICE).view(3, 4, 3).contiguous(), ints([[99] * 4] * 3)
        run(
            GroupInputs(
                ints([[9, 9, 9], [9, 9, 9], [16, 5, -1], [9, 9, 9]]), ints([[7, -1, -1], [40, -1, -1], [2, -1, 6]]), tables, slots, 16
            )
        )
        made.append((tables, slots))
    for ours, plain in zip(*made, strict=True):
        assert torch.equal(ours, plain)
    assert made[0][1].tolist() == [[112, 53, -1, 99], [640, 245, -1, 99], [32, 437, -1, 99]]
    assert made[0][0][:, 0, 1].tolist() == [7, 40, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [64, 320, 5003])
def test_masks(vocab: int, dtype: Any) -> None:
    """Rows without a mask stay as they are; a vocabulary that ends inside a word ends there."""
    logits = randn(6, vocab, dtype=dtype)
    rows = torch.tensor([4, 0, 3], dtype=torch.int32, device=DEVICE)
    words = torch.randint(-(2**31), 2**31 - 1, (3, -(-vocab // 32)), dtype=torch.int32, device=DEVICE)
    words[1] = -1
    plain, fast = logits.clone(), logits.clone()
    masking.mask_reference(plain, rows, words)
    masking.launch(fast, rows, words)
    assert torch.equal(plain, fast)
    assert torch.equal(plain[[0, 1, 2, 5]], logits[[0, 1, 2, 5]])
    at = 37
    assert (plain[4, at] == -torch.inf) == (((int(words[0, at // 32]) >> (at % 32)) & 1) == 0)


@pytest.mark.parametrize("k", [0, 5])
def test_what_is_masked_is_never_chosen(k: int) -> None:
    """Also where fewer tokens are left than top-k takes."""
    logits = randn(4, 3000)
    words = torch.zeros(4, -(-3000 // 32), dtype=torch.int32, device=DEVICE)
    words[:, 80] = 0b1010
    masking.launch(logits, torch.arange(4, dtype=torch.int32, device=DEVICE), words)
    how = SamplingParams(
        torch.tensor([0.0, 0.7, 5.0, 1.0], device=DEVICE),
        torch.full((4,), k, dtype=torch.int32, device=DEVICE),
        torch.tensor([1.0, 1.0, 1.0, 0.5], device=DEVICE),
        torch.arange(4, device=DEVICE),
        torch.arange(4, dtype=torch.int32, device=DEVICE),
    )
    chosen = sampler.sample(logits, how).tolist()
    assert set(chosen) <= {80 * 32 + 1, 80 * 32 + 3}
    assert chosen == sample_reference(logits, how).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "n", "k"), [(5, 64, 128), (16, 128, 1024), (33, 192, 2048), (70, 128, 256), (200, 64, 1024)])
@pytest.mark.parametrize("gated", [False, True])
def test_gemm_small_m(rows: int, n: int, k: int, gated: bool, dtype: Any) -> None:
    x, weight, bias = randn(rows, k, dtype=dtype), randn((1 + gated) * n, k, dtype=dtype), randn((1 + gated) * n, dtype=dtype)
    for with_bias in (bias, None):
        plain = torch.nn.functional.linear(x.float(), weight.float(), None if with_bias is None else with_bias.float())
        plain = silu_mul.silu_mul_reference(plain) if gated else plain
        for summed in (False, not gated):
            how = gemm_small_m.pick_tiles(rows, n, k, gated=gated, split_k=summed)
            assert how is not None
            ours = gemm_small_m.launch(x, weight, with_bias, how, gated=gated)
            assert ours.shape == ((how.split, rows, n) if how.split > 1 else (rows, n))
            close(ours.sum(0) if ours.dim() == 3 else ours, plain, dtype)
            into = torch.empty(rows, n, device=DEVICE, dtype=dtype)
            assert how.split > 1 or gemm_small_m.launch(x, weight, with_bias, how, into, gated=gated) is into


def test_gemm_small_m_is_for_few_rows_and_even_sizes() -> None:
    assert gemm_small_m.pick_tiles(257, 128, 1024) is None
    assert gemm_small_m.pick_tiles(8, 96, 1024) is None
    assert gemm_small_m.pick_tiles(8, 128, 576) is None
    whole, shared = gemm_small_m.pick_tiles(64, 1024, 2048), gemm_small_m.pick_tiles(64, 1024, 2048, split_k=True)
    assert whole is not None
    assert shared is not None
    assert (whole.split, shared.split) == (1, 2), "more programs, where the sum is welcome in parts"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("streamed", [True, False])
def test_norms_add_parts(streamed: bool, dtype: Any) -> None:
    parts, weight, stream = randn(3, 5, 100), randn(100, dtype=dtype), randn(5, 100, dtype=dtype) if streamed else None
    for ours, plain in zip(
        norms.launch(parts, stream, weight, 1e-6), norms.add_rms_norm_reference(parts, stream, weight, 1e-6), strict=True
    ):
        close(ours, plain, dtype)
