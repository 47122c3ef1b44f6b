"""Products of few rows with matrices of eight and of four bits say what plain torch says of the widened ones. Interpreted where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import fp8_matrix, gemm_fp8_few, gemm_int4_few, int4_matrix  # noqa: E402
from kernels_support.gpu.fp8_matrix import Fp8Matrix, quantize_matrix  # noqa: E402
from kernels_support.gpu.gemm_fp8_few import FewFp8Tiles  # noqa: E402
from kernels_support.gpu.gemm_int4_few import FewInt4Tiles  # noqa: E402

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
