"""Products of few rows with matrices of eight and of four bits say what plain torch says of the widened ones. Interpreted where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import dense, fp8_matrix, gemm_few, gemm_fp8_few, gemm_int4_few, gemm_wide, int4_matrix, lang  # noqa: E402
from kernels_support.gpu.fp8_matrix import Fp8Matrix, quantize_matrix  # noqa: E402
from kernels_support.gpu.gemm_few import FewRowsTiles  # noqa: E402
from kernels_support.gpu.gemm_fp8_few import FewFp8Tiles  # noqa: E402
from kernels_support.gpu.gemm_int4_few import FewInt4Tiles  # noqa: E402
from kernels_support.gpu.lang import record_launches  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
MOST = 1e-2 if DEVICE == "cuda" else 1e-5
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def expected(x: Any, wide: Any, bias: Any, *, gated: bool) -> Any:
    product = x.float() @ wide.t() + bias.float()
    if not gated:
        return product
    gate, up = product.chunk(2, 1)
    return torch.nn.functional.silu(gate) * up


def wrong(ours: Any, plain: Any) -> float:
    return float((ours.double() - plain.double()).norm() / plain.double().norm())


@pytest.mark.parametrize(
    ("rows", "n", "k", "gated", "blocks", "tiles"),
    [
        (1, 32, 256, False, False, FewFp8Tiles(32, 64, 2, 1)),  # the next piece of W is asked for before this one is multiplied
        (3, 256, 512, False, True, FewFp8Tiles(32, 128, 2, 2)),  # several blocks a warp, several rows of blocks
        (8, 128, 256, True, True, FewFp8Tiles(32, 128, 1, 1)),
        (5, 32, 256, True, False, FewFp8Tiles(16, 128, 2, 3)),
        (2, 32, 512, False, False, FewFp8Tiles(16, 128, 2, 3, ahead=4, dependents_last=True)),
    ],
)
def test_few_rows_by_eights(rows: int, n: int, k: int, gated: bool, blocks: bool, tiles: FewFp8Tiles) -> None:
    torch.manual_seed(rows)
    wide = n * (2 if gated else 1)
    matrix = quantize_matrix(torch.randn(wide, k, device=DEVICE))
    if blocks:
        matrix = Fp8Matrix(matrix.values, torch.rand(wide // 128, k // 128, device=DEVICE) * 1e-3 + 1e-3)
    x, bias = torch.randn(rows, k, device=DEVICE).to(DTYPE), torch.randn(wide, device=DEVICE).to(DTYPE)
    ours = gemm_fp8_few.launch(x, matrix, bias, torch.full((rows, n), torch.nan, device=DEVICE, dtype=DTYPE), tiles)
    assert wrong(ours, expected(x, fp8_matrix.dequantize(matrix), bias, gated=gated)) < MOST


def test_steps_are_blocks_where_there_are_blocks() -> None:
    """A step of two blocks would have the scale of one."""
    for k in (128, 384, 1024, 4096, 12288, 14336):
        tiles = gemm_fp8_few.pick_tiles(64, k)
        assert tiles is not None
        assert tiles.k == 128
        assert k % (tiles.warps * tiles.k) == 0
    assert gemm_fp8_few.pick_tiles(64, 96) is None
    assert gemm_fp8_few.pick_tiles(24, 128) is None


@pytest.mark.parametrize(
    ("rows", "n", "k", "gated", "tiles"),
    [
        (1, 32, 512, False, FewRowsTiles(16, 64, 2, 6)),
        (3, 16, 256, False, FewRowsTiles(16, 64, 4, 2, ahead=2)),
        (8, 64, 512, True, FewRowsTiles(16, 128, 4, 3, ahead=8, dependents_last=True)),
        (5, 64, 128, True, FewRowsTiles(32, 64, 1, 2)),
    ],
)
def test_few_rows_of_a_large_matrix(rows: int, n: int, k: int, gated: bool, tiles: FewRowsTiles) -> None:
    torch.manual_seed(rows)
    wide = n * (2 if gated else 1)
    weight, bias = (torch.randn(*shape, device=DEVICE).to(DTYPE) for shape in ((wide, k), (wide,)))
    x = torch.randn(rows, k, device=DEVICE).to(DTYPE)
    ours = gemm_few.launch(x, weight, bias, tiles, torch.full((rows, n), torch.nan, device=DEVICE, dtype=DTYPE), gated=gated)
    assert wrong(ours, expected(x, weight.float(), bias, gated=gated)) < MOST


def test_tiles_of_few_rows_divide_the_matrix() -> None:
    for n, k, gated in ((4096, 4096, False), (6144, 4096, False), (4096, 12288, False), (12288, 4096, True), (5120, 2560, False)):
        for rows, small in ((1, False), (8, False), (1, True), (8, True)):
            tiles = gemm_few.pick_tiles(rows, n, k, gated=gated, small=small)
            assert tiles is not None
            assert n % tiles.n == 0
            assert k % (tiles.k * tiles.warps) == 0
    assert gemm_few.pick_tiles(1, 4096, 4096 + 64) is None
    assert gemm_few.pick_tiles(1, 4100, 4096) is None
    assert gemm_few.pick_tiles(1, 151936, 4096) is None, "a vocabulary"


@pytest.mark.parametrize(
    ("rows", "n", "k", "gated", "group", "tiles"),
    [
        (1, 32, 256, False, 64, FewInt4Tiles(32, 2, 2)),
        (11, 32, 512, False, 128, FewInt4Tiles(32, 2, 2, 2)),
        (5, 32, 256, True, 128, FewInt4Tiles(32, 2, 2)),
    ],
)
def test_few_rows_by_fours(rows: int, n: int, k: int, gated: bool, group: int, tiles: FewInt4Tiles) -> None:
    torch.manual_seed(rows)
    wide = n * (2 if gated else 1)
    numbers, zeros = torch.randint(0, 16, (wide, k), device=DEVICE), torch.randint(0, 17, (k // group, wide), device=DEVICE)
    matrix = int4_matrix.pack(numbers, torch.rand(k // group, wide, device=DEVICE) * 0.1 + 0.01, zeros)
    x, bias = torch.randn(rows, k, device=DEVICE).to(DTYPE), torch.randn(wide, device=DEVICE).to(DTYPE)
    ours = gemm_int4_few.launch(x, matrix, bias, tiles, gated=gated)
    assert wrong(ours if ours.dim() == 2 else ours.sum(0), expected(x, int4_matrix.dequantize(matrix), bias, gated=gated)) < MOST


@pytest.mark.parametrize(
    ("rows", "n", "k", "gated", "kernel"),
    [
        (1, 4096, 4096, False, "_gemm_few"),
        (8, 12288, 4096, True, "_gemm_few"),
        (1, 1024, 2048, False, "_gemv"),
        (4, 1024, 2048, False, "_gemm_few"),
        (1, 3072, 1024, True, "_gemm_few"),
        (16, 6144, 4096, False, "_gemm_wide"),
        (64, 12288, 4096, True, "_gemm_wide"),
        (128, 12288, 4096, True, "_gemm_wide"),
        (64, 1024, 2048, False, "_gemm_small_m"),
        (1, 151936, 4096, False, None),
        (128, 6144, 4096, False, None),
    ],
)
def test_which_kernel_serves_which_rows(
    monkeypatch: pytest.MonkeyPatch, rows: int, n: int, k: int, gated: bool, kernel: str | None
) -> None:
    """On a GPU with programmatic dependent launch; None: torch's own. Over tensors that are not there."""
    monkeypatch.setattr(dense, "has_pdl", lambda: True)
    x, weight = (torch.empty(*shape, dtype=torch.bfloat16, device="meta") for shape in ((rows, k), (n * (2 if gated else 1), k)))
    with record_launches() as launched:
        out = dense.swiglu(x, weight) if gated else dense.linear(x, weight)
    assert isinstance(out, torch.Tensor)
    assert out.shape == (rows, n)
    assert [launch.kernel.__name__ for launch in launched.values()] == ([] if kernel is None else [kernel])


def test_a_smaller_gpu_has_fewer_loads_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card with 100 KB for a program; a Hopper has 228."""
    monkeypatch.setattr(lang, "_shared_memory", lambda: 94_000)
    for rows in (1, 16, 32, 64, 128):
        for n, k, gated in ((4096, 4096, False), (6144, 4096, False), (4096, 12288, False), (12288, 4096, True)):
            few, eights = gemm_few.pick_tiles(rows, n, k, gated=gated), gemm_fp8_few.pick_tiles(n, k, gated=gated)
            wide = gemm_wide.pick_tiles(rows, n, k, gated=gated, split_k=not gated)
            columns = 2 if gated else 1
            assert few is not None
            assert few.stages * 2 * few.warps * few.k * (columns * few.n + 8) <= 94_000
            assert eights is not None
            assert eights.stages * eights.warps * eights.k * (columns * eights.n + 16) <= 94_000
            assert wide is None or wide.stages * 2 * wide.k * (columns * wide.n + wide.m) <= 94_000
