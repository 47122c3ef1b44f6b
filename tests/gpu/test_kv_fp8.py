"""A cache of FP8: what is written, and attention over it, as the plain torch side has both. By Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import rotary  # noqa: E402
from kernels_support.gpu.attention import Span, attend_reference, causal, runs  # noqa: E402
from kernels_support.gpu.fp8_matrix import supports_fp8  # noqa: E402
from kernels_support.gpu.fp8_pairs import widened, widens_in_hardware  # noqa: E402
from kernels_support.gpu.lang import jit, tl  # noqa: E402
from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, MixedBatch, Prefill  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FP8 = torch.float8_e4m3fn
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(DEVICE == "cuda" and not supports_fp8("cuda:0"), reason="needs a GPU that has FP8 numbers"),
]
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
#: Of float16 for weights and queries, and of bfloat16 for the output.
MOST = 1e-2 if DEVICE == "cuda" else 1e-3


def wrong(ours: Any, plain: Any) -> float:
    return float((ours.double() - plain.double()).norm() / plain.double().norm())


def cache(lengths: list[int], kv: int, size: int) -> tuple[Any, Any, Any, Any, list[list[int]]]:
    """Keys, values, scales, table and blocks of 16 scattered slots; what nobody may read is NaN."""
    blocks, after = [], 3
    for n in lengths:
        blocks.append(list(range(after + -(-n // 16), after, -1)))
        after += -(-n // 16) + 1
    pages = [torch.full((kv, (after + 2) * 16, size), torch.nan, device=DEVICE).to(FP8) for _ in range(2)]
    for row, n in zip(blocks, lengths, strict=True):
        for first, last in runs(row, 16, n):
            for page in pages:
                page[:, first:last] = (torch.randn(kv, last - first, size, device=DEVICE) * 5).to(FP8)
    table = torch.zeros(len(lengths), 40, dtype=torch.int32, device=DEVICE)
    for i, row in enumerate(blocks):
        table[i, : len(row)] = torch.tensor(row, dtype=torch.int32)
    return *pages, torch.rand(2, kv, device=DEVICE) * 0.2 + 0.1, table, blocks


@jit
def _widen_all(bytes_ptr: tl.tensor, low_ptr: tl.tensor, high_ptr: tl.tensor, native: tl.constexpr) -> None:
    at = tl.arange(0, 256)
    low, high = widened(tl.load(bytes_ptr + at), native)
    tl.store(low_ptr + at, low)
    tl.store(high_ptr + at, high)


@pytest.mark.parametrize("parts", [1, 4])
def test_single_queries_over_eights(parts: int) -> None:
    lengths, heads, kv, size = [1, 130, 17, 0], 4, 2, 24
    keys, values, scales, table, blocks = cache(lengths, kv, size)
    q = torch.randn(4, heads, size, device=DEVICE, dtype=DTYPE)
    ours = Decode(table, torch.tensor(lengths, dtype=torch.int32, device=DEVICE), 16, parts)(q, keys, values, scales)
    spans = [Span(i, i + 1, runs(blocks[i], 16, n)) for i, n in enumerate(lengths) if n]
    assert wrong(ours[:3], attend_reference(q, keys, values, scales, spans=spans)[:3]) < MOST
    assert (ours[3] == 0).all(), "no row, no number"


def test_runs_of_queries_over_eights() -> None:
    """A whole prompt, and a chunk after what is cached already; also beside single queries in one step."""
    lengths, counts, kv = [66, 90], [66, 20], 1
    keys, values, scales, table, blocks = cache(lengths, kv, 16)
    starts = [0, counts[0]]
    q = torch.randn(sum(counts) + 7, 3, 16, device=DEVICE, dtype=DTYPE)
    tiles = [(r, t) for r in range(2) for t in range(0, counts[r], PREFILL_TILE_QUERIES)] + [(-1, 0)]
    where = torch.tensor(list(zip(starts, counts, lengths, strict=True)), dtype=torch.int32, device=DEVICE)
    prefill = Prefill(table, torch.tensor(tiles, dtype=torch.int32, device=DEVICE), where, 16)
    many = zip(starts, counts, lengths, blocks, strict=True)
    spans = [Span(s, s + c, runs(b, 16, n), causal(c, n, 3, DTYPE, DEVICE)) for s, c, n, b in many]
    plain = attend_reference(q, keys, values, scales, spans=spans)
    rows = Decode(table, torch.tensor(lengths, dtype=torch.int32, device=DEVICE), 16, 1)
    mixed = MixedBatch(rows, prefill)(torch.cat((q[:2], q)), keys, values, scales)
    assert wrong(mixed[2 : 2 + sum(counts)], plain[: sum(counts)]) < MOST
    assert wrong(mixed[:2], rows(q[:2], keys, values, scales)) < MOST


def test_a_query_beyond_float16_leaves_numbers() -> None:
    keys, values, scales, table, _ = cache([20], 1, 16)
    q = torch.full((1, 2, 16), 1e6, device=DEVICE, dtype=DTYPE)
    lengths = torch.tensor([20], dtype=torch.int32, device=DEVICE)
    assert Decode(table, lengths, 16, 1)(q, keys, values, scales).isfinite().all()


@pytest.mark.parametrize("normed", [True, False])
def test_what_is_written_is_over_its_heads_scale_and_cut_off(normed: bool) -> None:
    size, weights = 24, (torch.rand(24, device=DEVICE, dtype=DTYPE) + 0.5, torch.rand(24, device=DEVICE, dtype=DTYPE) + 0.5)
    scales = torch.tensor([[0.5, 2.0], [0.01, 4.0]], device=DEVICE)
    layout = rotary.Heads(4, 2, size, *(weights if normed else (None, None)), kv_scales=scales)
    qkv, angles = torch.randn(3, 8 * size, device=DEVICE, dtype=DTYPE) * 3, torch.rand(3, size // 2, device=DEVICE)
    rope, slots = torch.cat((angles.cos(), angles.sin()), -1), torch.tensor([7, -1, 0], device=DEVICE)
    pages = [[torch.zeros(2, 10, size, device=DEVICE).to(FP8) for _ in range(2)] for _ in range(2)]
    ours = rotary.launch(qkv, layout, rope, slots.int(), *pages[0])
    plain = rotary.rotate_and_store_reference(qkv, layout, rope, slots, *pages[1])
    assert wrong(ours, plain) < MOST
    for page, reference in zip(*pages, strict=True):
        # Triton's interpreter has half of what rounds up to a power of two, a twentieth of all. On a device the last bit of bfloat16 differs where
        # a norm or a turn is rounded once and not twice, and takes one number in some thirty over an edge of its eight bits: to its neighbour.
        apart = (page.float() - reference.float()).abs()
        assert (apart != 0).float().mean() < 0.1
        assert DEVICE == "cpu" or (apart <= reference.float().abs() / 8 + 2**-9).all()
        assert (page[:, 1:7].float() == 0).all(), "only the slots that were asked for are written"
    wide = qkv.view(3, 8, size)[:, 6:].float()[[2, 0]].transpose(0, 1) / scales[1, :, None, None]
    assert wide.abs().max() > 448
    assert wrong(pages[1][1][:, [0, 7]].float(), wide.clamp(-448, 448)) < 0.04
    assert pages[0][1].float().abs().max() == 448


def test_every_eight_is_widened_exactly() -> None:
    """All 256, in the low and in the high byte, by the device's own instruction where it has one."""
    every = torch.arange(256, device=DEVICE)
    pairs = (every + 256 * every.flip(0)).to(torch.int32).to(torch.int16)
    low, high = (torch.empty(256, dtype=torch.float16, device=DEVICE) for _ in range(2))
    _widen_all[(1,)](pairs, low, high, native=widens_in_hardware())
    exact = every.cpu().to(torch.uint8).view(FP8).float().half()  # on the CPU: what a device widens by itself is what is tried here
    said = {
        f"{name} {byte:#04x}": (ours, wanted)
        for name, numbers, wanteds in (("low", low, exact), ("high", high, exact.flip(0)))
        for byte, ours, wanted in zip(range(256) if name == "low" else range(255, -1, -1), numbers.tolist(), wanteds.tolist(), strict=True)
        if not (ours == wanted or (ours != ours and wanted != wanted))
        and not (DEVICE == "cpu" and byte & 127 == 127)  # the interpreter has numbers where E4M3 has none
    }
    assert not said
