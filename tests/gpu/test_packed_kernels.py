"""Products of packed matrices say what plain torch says of the widened ones. By Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from kernels_support.gpu import experts, gemm_packed, packed  # noqa: E402
from kernels_support.gpu.experts import Experts  # noqa: E402
from kernels_support.gpu.packed_matrix import PackedMatrix, dequantize, pack, rows_of, stacked  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = [torch.bfloat16, torch.float16, torch.float32] if DEVICE == "cuda" else [torch.float32]

#: As files have them: bits, columns that share a scale, and what there is beside a scale: nothing, a zero, both in float16.
KINDS = {
    "Q4_0": (4, 32, "none"),
    "Q4_1": (4, 32, "half"),
    "Q4_K": (4, 32, "own"),
    "Q5_K": (8, 32, "own"),
    "Q8_0": (8, 32, "none"),
    "Q6_K": (8, 16, "none"),
    "AWQ": (4, 128, "own"),
    "AWQ 64": (4, 64, "own"),
}


def random(kind: str, n: int, k: int) -> tuple[PackedMatrix, Any]:
    """A matrix of a kind, and W in float32."""
    bits, group, zeros = KINDS[kind]
    low = -8 if bits == 4 else -128
    values = torch.randint(low, -low, (n, k), device=DEVICE, dtype=torch.int8)
    scale, zero = (torch.rand(n, k // group, device=DEVICE) * 0.01 + 0.001 for _ in range(2))
    if zeros == "half":
        scale, zero = scale.half().float(), zero.half().float()
    centre = 0 if zeros == "none" else 8
    wide = (values.float().view(n, -1, group) + centre) * scale[..., None] + (0 if zeros == "none" else zero[..., None])
    return pack(values, scale, None if zeros == "none" else zero, bits, centre), wide.view(n, k)


def wrong(ours: Any, plain: Any) -> float:
    return float((ours.double() - plain.double()).norm() / plain.double().norm())


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_come_back_as_they_were_packed(kind: str) -> None:
    """The last step is not full; once there are more columns than one program's."""
    bits, group, _ = KINDS[kind]
    matrix, wide = random(kind, 20, (256 if kind == "Q4_0" else 16 // bits * min(group, 32)) + group)
    assert torch.equal(dequantize(matrix), wide)
    assert matrix.shape == wide.shape
    rows = torch.tensor([3, 19, 0], device=DEVICE)
    assert torch.equal(rows_of(matrix, rows), wide[rows])
    for dtype in DTYPES:
        exact = dtype == torch.float32
        assert wrong(gemm_packed.widen(matrix, dtype), wide) < (1e-6 if exact else 4e-3)
        assert wrong(gemm_packed.widen(matrix, dtype, rows), wide[rows]) < (1e-6 if exact else 4e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "rows", "n", "k"),
    [("Q4_0", 1, 40, 576), ("Q4_1", 20, 80, 288), ("Q4_K", 3, 40, 256), ("Q6_K", 17, 40, 80), ("Q5_K", 2, 40, 288)],
)
def test_products(kind: str, rows: int, n: int, k: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With biases, into a buffer, in parts, and SwiGLU of the halves; a number of rows of W that is no tile's."""
    monkeypatch.setattr(packed, "on_device", lambda _: True)
    matrix, wide = random(kind, n, k)
    x, bias = torch.randn(rows, k, device=DEVICE).to(dtype), torch.randn(n, device=DEVICE).to(dtype)
    exact, most = x.float() @ wide.t(), 1e-5 if dtype == torch.float32 else 7e-3
    parts = packed.linear(x, matrix, split_k=True)
    assert wrong(parts.sum(0) if parts.dim() == 3 else parts, exact) < most
    into = torch.full((rows, n), torch.nan, device=DEVICE, dtype=dtype)
    assert packed.linear(x, matrix, bias, into) is into
    assert wrong(into, exact + bias.float()) < most
    gate, up = (exact + bias.float()).chunk(2, 1)
    assert wrong(packed.swiglu(x, matrix, bias), torch.nn.functional.silu(gate) * up) < 2 * most


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows_from_w_widened_once(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "on_device", lambda _: True)
    matrix, wide = random("Q4_K", 48, 256)
    x = torch.randn(packed.MAX_ROWS + 1, 256, device=DEVICE).to(dtype)
    assert wrong(packed.linear(x, matrix), x.float() @ wide.t()) < (1e-5 if dtype == torch.float32 else 7e-3)


def test_embeddings_are_looked_up() -> None:
    matrix, wide = random("Q6_K", 48, 288)
    ids = torch.tensor([5, 5, 47], device=DEVICE)
    assert torch.equal(packed.lookup(ids, matrix), wide[ids]) or DEVICE == "cuda"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "kinds", "inner"), [(1, ("Q4_1", "Q8_0"), 32), (9, ("Q4_K", "Q6_K"), 48)])
def test_experts(rows: int, kinds: tuple[str, str], inner: int, dtype: Any) -> None:
    """Gate and up in four bits, with a last step that is not full, and down in eight."""
    count, hidden, top = 4, 160, 2
    (gate_up, wide), (down, narrow) = random(kinds[0], count * 2 * inner, hidden), random(kinds[1], count * hidden, inner)
    router, x = (torch.randn(n, hidden, device=DEVICE).to(dtype) for n in (count, rows))
    logits, counts = torch.nn.functional.linear(x, router), torch.zeros(4, dtype=torch.int32, device=DEVICE)
    ours = experts.launch(x, logits, Experts(router, stacked(gate_up, count), stacked(down, count), top, renormalize=True), counts)
    plain = Experts(
        router, wide.view(count, 2 * inner, hidden).to(dtype), narrow.view(count, hidden, inner).to(dtype), top, renormalize=True
    )
    exact = experts.experts_reference(x, plain, logits)
    assert wrong(ours if ours.dim() == 2 else ours.float().sum(0), exact) < (1e-5 if dtype == torch.float32 else 2e-2)
    packed_ones = Experts(router, stacked(gate_up, count), stacked(down, count), top, renormalize=True)
    assert wrong(experts.experts_reference(x, packed_ones, logits), exact) < (1e-6 if dtype == torch.float32 else 1e-2)
