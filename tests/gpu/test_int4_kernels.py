"""Products of matrices of four bits say what plain torch says of the widened ones. By Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import dense, gemm_int4, int4  # noqa: E402
from kernels_support.gpu.int4_matrix import Int4Matrix, dequantize, pack  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = [torch.bfloat16, torch.float16] if DEVICE == "cuda" else [torch.float32]


def random(n: int, k: int, group: int, order: Any = None) -> Int4Matrix:
    numbers, zeros = torch.randint(0, 16, (n, k), device=DEVICE), torch.randint(0, 17, (k // group, n), device=DEVICE)
    return pack(numbers, torch.rand(k // group, n, device=DEVICE) * 0.1 + 0.01, zeros, order)


def test_numbers_come_back_as_they_were_packed() -> None:
    numbers, zeros = torch.randint(0, 16, (24, 256)), torch.randint(0, 17, (4, 24))
    scales, order = torch.rand(4, 24), torch.randperm(256)
    exact = (numbers - zeros.t().repeat_interleave(64, 1)) * scales.t().repeat_interleave(64, 1)
    assert torch.equal(dequantize(pack(numbers, scales, zeros)), exact)
    assert torch.equal(dequantize(pack(numbers, scales, zeros, order))[:, order], exact)
    assert pack(numbers, scales, zeros).shape == (24, 256)
    assert pack(numbers, scales, zeros).nbytes == 24 * 128 + 4 * 24 * 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "group", "ordered"), [(1, 128, False), (20, 64, True), pytest.param(200, 128, True)])
def test_products_of_fours(rows: int, group: int, ordered: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows in one kernel, many from W widened; with biases, into a buffer, with act-order, and SwiGLU of the halves."""
    monkeypatch.setattr(int4, "on_device", lambda _: True)
    n, k = 128, 256
    matrix = random(n, k, group, torch.randperm(k, device=DEVICE) if ordered else None)
    x, bias = torch.randn(rows, k, device=DEVICE).to(dtype), torch.randn(n, device=DEVICE).to(dtype)
    exact, most = x.float() @ dequantize(matrix).t(), 1e-5 if dtype == torch.float32 else 5e-3

    def wrong(ours: Any, plain: Any) -> float:
        return float((ours.double() - plain.double()).norm() / plain.double().norm())

    assert wrong(dense.linear(x, matrix), exact) < most
    summed = dense.linear_split_k(x, matrix, bias)
    assert summed.dim() == (3 if 16 < rows <= gemm_int4.MAX_ROWS else 2)
    assert wrong(summed.sum(0) if summed.dim() == 3 else summed, exact + bias.float()) < most
    into = torch.full((rows, n), torch.nan, device=DEVICE, dtype=dtype)
    for b in (None, bias):
        assert dense.linear(x, matrix, b, into) is into
        assert wrong(into, exact if b is None else exact + b.float()) < most
    gate, up = (exact + bias.float()).chunk(2, 1)
    product = dense.swiglu(x, matrix, bias)
    assert isinstance(product, torch.Tensor)
    assert wrong(product, torch.nn.functional.silu(gate) * up) < 2 * most


@pytest.mark.parametrize("dtype", DTYPES)
def test_widening_is_exact_but_for_the_last_rounding(dtype: Any) -> None:
    matrix = random(40, 256, 128)
    assert torch.equal(gemm_int4.widen(matrix, dtype), dequantize(matrix).to(dtype))


def test_tiles_are_for_few_rows_and_even_sizes() -> None:
    assert gemm_int4.pick_tiles(gemm_int4.MAX_ROWS + 1, 128, 2, 128) is None
    assert gemm_int4.pick_tiles(8, 96, 2, 128) is None
    assert gemm_int4.pick_tiles(8, 128, 2, 32) is None
    parts = [gemm_int4.pick_tiles(8, 128, groups, 128, split_k=True) for groups in (3, 6)]
    assert [tiles and tiles.split for tiles in parts] == [1, 2], "more programs, where the sum is welcome in parts"
