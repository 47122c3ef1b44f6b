"""A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2022, arXiv:2101.03961) with SwiGLU, by what is fastest.

On a GPU matrix-vector products for a few rows (`experts_few.py`), a grouped GEMM for more (`experts_grouped.py`); plain torch elsewhere.
Experts in FP8 have kernels of their own (`experts_few_fp8.py` and so on), those in MXFP4, in four and in eight bits share theirs
(`experts_few_words.py` and so on); plain torch widens them. A CPU multiplies those in groups of columns as they lie (`cpu/grouped.py`).
No kernel adds floats by atomics: the same rows give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.cpu import grouped
from kernels_support.cpu.grouped import GroupedMatrices, GroupedMatrix
from kernels_support.gpu import (
    dense,
    experts_few,
    experts_few_fp8,
    experts_few_words,
    experts_grouped,
    experts_grouped_fp8,
    experts_grouped_words,
    fp8,
    gemm_small_m,
    mxfp4_matrix,
    packed_matrix,
    routing,
)
from kernels_support.gpu.experts_few import FewTiles
from kernels_support.gpu.experts_few_words import FewWordsTiles
from kernels_support.gpu.fp8_matrix import Fp8Matrices, Fp8Matrix
from kernels_support.gpu.gated import SILU, Gating, gated_reference
from kernels_support.gpu.lang import on_device
from kernels_support.gpu.mxfp4_matrix import Mxfp4Matrices
from kernels_support.gpu.packed_matrix import PackedMatrix

__all__ = ["FEW_ROWS", "Experts", "experts_mlp", "experts_reference", "fresh_counts", "launch", "router_logits", "router_tiles"]

#: Rows up to which each pair of row and expert is computed for itself.
FEW_ROWS = 4

#: The same of experts in four or eight bits: widening the numbers of an expert for two rows costs what it does for one.
FEW_ROWS_WORDS = 1

#: Rows up to which the router's product is divided over more programs along its inner dimension: it has only as many columns as experts.
SPLIT_ROUTER_ROWS = 512


#: One matrix of each expert.
Matrices = torch.Tensor | Fp8Matrices | Mxfp4Matrices | PackedMatrix | GroupedMatrices


@dataclass(frozen=True, slots=True)
class Experts:
    """A layer's experts. `router` (experts, hidden), `gate_up` (experts, 2 · inner, hidden), `down` (experts, hidden, inner).

    `top`: how many a row goes to; `renormalize`: their weights add up to 1. `gate_up` and `down` are both plain, both in FP8, or
    both in MXFP4 or packed, or for a CPU in groups. Biases are (experts,), (experts, 2 · inner) and (experts, hidden);
    in FP8 there are none, and `gating` is SiLU's.
    """

    router: torch.Tensor
    gate_up: Matrices
    down: Matrices
    top: int
    renormalize: bool
    router_bias: torch.Tensor | None = None
    gate_up_bias: torch.Tensor | None = None
    down_bias: torch.Tensor | None = None
    gating: Gating = SILU

    @property
    def count(self) -> int:
        return self.gate_up.shape[0]


def experts_reference(x: torch.Tensor, experts: Experts, logits: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, hidden) → (rows, hidden), plain torch: expert by expert, and each row's results added in the order of its choice.

    `logits`: the router's, where they are known; another rounding of them may choose another expert.
    """
    logits = torch.nn.functional.linear(x, experts.router, experts.router_bias) if logits is None else logits
    weights, chosen = routing.route_reference(logits, experts.top, renormalize=experts.renormalize)
    parts = x.new_zeros(*chosen.shape, experts.down.shape[1], dtype=torch.float32)
    for expert in chosen.unique().tolist():
        row, place = (chosen == expert).nonzero(as_tuple=True)
        biases = [None if many is None else many[expert] for many in (experts.gate_up_bias, experts.down_bias)]
        product = gated_reference(_times(x[row], _of(experts.gate_up, expert, x.dtype), biases[0]), experts.gating)
        parts[row, place] = _times(product, _of(experts.down, expert, x.dtype), biases[1]).float() * weights[row, place, None]
    return parts.sum(1).to(x.dtype)


def _of(many: Matrices, expert: int, dtype: torch.dtype) -> torch.Tensor | Fp8Matrix | GroupedMatrix:
    """One expert's matrix; of four or eight bits it is widened."""
    if isinstance(many, PackedMatrix):
        return packed_matrix.dequantize(many, dtype, expert)
    return mxfp4_matrix.dequantize(many, expert, dtype) if isinstance(many, Mxfp4Matrices) else many[expert]


def _times(x: torch.Tensor, matrix: torch.Tensor | Fp8Matrix | GroupedMatrix, bias: torch.Tensor | None) -> torch.Tensor:
    """X · Wᵀ, in FP8 of what both are in it."""
    if isinstance(matrix, torch.Tensor):
        return torch.nn.functional.linear(x, matrix, bias)
    if isinstance(matrix, GroupedMatrix):
        return grouped.linear(x, matrix, bias)
    return fp8.linear_reference(matrix.quantized(x), matrix)


def experts_mlp(x: torch.Tensor, experts: Experts, counts: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """`experts_reference`, by Triton on a GPU, where many rows give (top, rows, hidden) for the reader to add (`norms.add_rms_norm`).

    `counts`: a row of `fresh_counts`. `out` (rows, hidden): the sum is written there.
    """
    if not on_device(x) or counts is None:
        return experts_reference(x, experts)
    part = launch(x, router_logits(x, experts.router, experts.router_bias), experts, counts, out)
    return part if out is None or part.dim() == 2 else torch.sum(part, 0, out=out)


def fresh_counts(layers: int, experts: int, like: torch.Tensor) -> torch.Tensor | None:
    """What one pass counts its rows in: (layers, experts or a little more) int32 zeros; None where Triton does not serve."""
    # Each row begins at 16 bytes, or Triton would make another kernel for it.
    return torch.zeros(layers, -(-experts // 4) * 4, dtype=torch.int32, device=like.device) if on_device(like) else None


def launch(x: torch.Tensor, logits: torch.Tensor, experts: Experts, counts: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, hidden), into `out` where it is given, or of many rows (top, rows, hidden)."""
    if isinstance(experts.gate_up, Fp8Matrices) or isinstance(experts.down, Fp8Matrices):
        return _launch_fp8(x, logits, experts, counts, out)
    if not isinstance(experts.gate_up, torch.Tensor) or not isinstance(experts.down, torch.Tensor):
        return _launch_words(x, logits, experts, counts, out)
    biases, gating = (experts.gate_up_bias, experts.down_bias), experts.gating
    if x.shape[0] <= FEW_ROWS:
        product, chosen, weights = experts_few.launch_gate_up(
            x, logits, experts.gate_up, experts.top, FewTiles(), biases[0], gating, renormalize=experts.renormalize
        )
        return experts_few.launch_down(product, chosen, weights, experts.down, FewTiles(), out, biases[1])
    routes = routing.launch(logits, counts, experts.top, x.dtype, renormalize=experts.renormalize)
    sizes = x.shape[0], experts.top, experts.count, x.element_size()
    product = experts_grouped.launch_gate_up(x, routes, experts.gate_up, experts_grouped.pick_tiles(*sizes, gated=True), biases[0], gating)
    return experts_grouped.launch_down(product, routes, experts.down, experts_grouped.pick_tiles(*sizes, gated=False), biases[1])


def _launch_words(x: torch.Tensor, logits: torch.Tensor, experts: Experts, counts: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    gate_up, down, gating = experts.gate_up, experts.down, experts.gating
    if not isinstance(gate_up, Mxfp4Matrices | PackedMatrix) or not isinstance(down, Mxfp4Matrices | PackedMatrix):
        raise TypeError("of an expert's matrices one is in words and one is not")
    if x.shape[0] <= FEW_ROWS_WORDS:
        few = FewWordsTiles()
        product, chosen, weights = experts_few_words.launch_gate_up(
            x, logits, gate_up, experts.top, few, experts.gate_up_bias, gating, renormalize=experts.renormalize
        )
        return experts_few_words.launch_down(product, chosen, weights, down, few, out, experts.down_bias)
    routes = routing.launch(logits, counts, experts.top, x.dtype, renormalize=experts.renormalize)
    sizes = x.shape[0], experts.top, experts.count, x.element_size()
    pick = experts_grouped_words.pick_tiles if isinstance(gate_up, Mxfp4Matrices) else experts_grouped_words.pick_packed_tiles
    wide, narrow = (pick(*sizes, gated=gated) for gated in (True, False))
    product = experts_grouped_words.launch_gate_up(x, routes, gate_up, wide, experts.gate_up_bias, gating)
    return experts_grouped_words.launch_down(product, routes, down, narrow, experts.down_bias)


def _launch_fp8(x: torch.Tensor, logits: torch.Tensor, experts: Experts, counts: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    gate_up, down = experts.gate_up, experts.down
    if not isinstance(gate_up, Fp8Matrices) or not isinstance(down, Fp8Matrices):
        raise TypeError("of an expert's matrices one is in FP8 and one is not")
    if x.shape[0] <= FEW_ROWS and gate_up.plain and down.plain:
        few, how = experts_few_fp8.TILES, {"renormalize": experts.renormalize}
        product, chosen, weights = experts_few_fp8.launch_gate_up(x, logits, gate_up, experts.top, few, **how)
        return experts_few_fp8.launch_down(product, chosen, weights, down, few, out)
    routes = routing.launch(logits, counts, experts.top, x.dtype, renormalize=experts.renormalize)
    wide, narrow = (experts_grouped_fp8.pick_tiles(x.shape[0], experts.top, experts.count, gated=gated) for gated in (True, False))
    product = experts_grouped_fp8.launch_gate_up(gate_up.quantized(x), routes, gate_up, wide)
    return experts_grouped_fp8.launch_down(down.quantized(product), routes, down, narrow)


def router_logits(x: torch.Tensor, router: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(rows, experts), or, where that is faster, split-K's (split, rows, experts) float32 partial sums, which `routing.launch` adds."""
    tiles = router_tiles(x, router.shape[0])
    return dense.linear(x, router, bias) if tiles is None else gemm_small_m.launch(x, router, bias, tiles)


def router_tiles(x: torch.Tensor, experts: int) -> gemm_small_m.Tiles | None:
    """The tiles of `gemm_small_m` for the router's product; None where `dense.linear` is faster."""
    rows, k = x.shape
    if not FEW_ROWS < rows <= SPLIT_ROUTER_ROWS or experts % 32 or k % 256 or x.dtype == torch.float32:
        return None
    split = next(s for s in (8, 4, 2) if k % (s * 128) == 0)
    return gemm_small_m.Tiles(16 if rows <= 16 else 32 if rows <= 64 else 64, 32, 128, 2, split)
