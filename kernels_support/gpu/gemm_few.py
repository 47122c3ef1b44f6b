"""x · Wᵀ for up to eight rows of x and W in 16 bits: each warp of a program has columns of x of its own.

Their sums are added at the end. A library's kernels begin when the one in front has ended; these stand by meanwhile (programmatic dependent
launch), and may ask for the beginning of W.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels_support.gpu.lang import fitting_stages, jit, launch_kernel, pdl_launch_dependents, pdl_wait, tl

__all__ = ["MAX_ROWS", "FewRowsTiles", "launch", "pick_tiles"]

#: Rows of x that the kernel takes: as many as the matrix unit's second operand has columns.
MAX_ROWS = 8

#: Columns up to which it is taken: a library, too, reads a large vocabulary's matrix at the memory's rate.
_MAX_COLUMNS = 1 << 16


@dataclass(frozen=True, slots=True)
class FewRowsTiles:
    """One program computes n columns of the output (gated: of gate and of up); its `warps` share the columns of x, in steps of k.

    `ahead`: of each row of W, or of gate alone, lines of 128 bytes that come to the L2 cache before x is there; `dependents_last`: as of
    `gemm_fp8_few.FewFp8Tiles`.
    """

    n: int = 16
    k: int = 64
    warps: int = 4
    stages: int = 4
    ahead: int = 0
    dependents_last: bool = False


def pick_tiles(rows: int, n: int, k: int, *, gated: bool = False, small: bool = False) -> FewRowsTiles | None:
    """The tiles for n columns (gated: of gate and as many of up); None where the sizes do not divide so, or there are very many."""
    # What made a whole step fastest on one H200 (8B's matrices; `small`: 0.6B's); alone, other tiles are.
    if small:
        tiles = FewRowsTiles(16, 128 if rows <= 2 else 64, 2) if gated else FewRowsTiles()
    elif gated:
        tiles = FewRowsTiles(16, 128, 4, 3, ahead=8, dependents_last=True)
    else:
        tiles = FewRowsTiles(16, 64, 4 if k > 8192 else 2, 6)
    if n % tiles.n or k % (tiles.k * tiles.warps) or n > _MAX_COLUMNS:
        return None
    stage = 2 * tiles.warps * tiles.k * (tiles.n * (2 if gated else 1) + MAX_ROWS)
    return replace(tiles, stages=fitting_stages(tiles.stages, stage))


def launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    tiles: FewRowsTiles,
    out: torch.Tensor | None = None,
    *,
    gated: bool = False,
) -> torch.Tensor:
    """(rows, k) and (n, k) → (rows, n), into `out` where it is given; `gated`: W (2n, k) of gate and up → SiLU(gate) · up."""
    rows, k = x.shape
    n = weight.shape[0] // (2 if gated else 1)
    out = x.new_empty(rows, n) if out is None else out
    launch_kernel(
        _gemm_few,
        (n // tiles.n,),
        x,
        weight,
        weight if bias is None else bias,
        out,
        rows,
        n,
        k,
        tile_n=tiles.n,
        tile_k=tiles.k,
        shares=tiles.warps,
        gated=gated,
        has_bias=bias is not None,
        ahead=tiles.ahead,
        dependents_last=tiles.dependents_last,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


@jit
def _gemm_few(  # noqa: PLR0917 - what a kernel needs
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    b_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    shares: tl.constexpr,
    gated: tl.constexpr,
    has_bias: tl.constexpr,
    ahead: tl.constexpr,
    dependents_last: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    at_n, at_m, at_k = tl.program_id(0) * tile_n + tl.arange(0, tile_n), tl.arange(0, 8), tl.arange(0, tile_k)
    steps = k // (shares * tile_k)
    share = tl.arange(0, shares) * (steps * tile_k)
    w = w_ptr + (at_n.to(tl.int64) * k)[None, :, None] + share[:, None, None] + at_k[None, None, :]
    up_w = w + n.to(tl.int64) * k
    x = x_ptr + share[:, None, None] + at_k[None, :, None] + (at_m * k)[None, None, :]
    # Rows beyond the last are zeros that nobody loads.
    ok = tl.broadcast_to((at_m < rows)[None, None, :], (shares, tile_k, 8))
    acc = tl.zeros((shares, tile_n, 8), tl.float32)
    up = tl.zeros((shares, tile_n, 8), tl.float32)
    if pdl and ahead:
        # W does not depend on the kernel in front: its beginning comes to the L2 cache while that one still computes x.
        line = w_ptr + at_n.to(tl.int64)[:, None] * k + tl.arange(0, ahead)[None, :] * 64
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [line.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
        )
    pdl_wait(pdl)
    if not dependents_last:
        pdl_launch_dependents(pdl)
    for _ in tl.range(0, steps):
        b = tl.load(x, mask=ok, other=0.0)
        acc = tl.dot(tl.load(w), b, acc, input_precision="ieee")
        if gated:
            up = tl.dot(tl.load(up_w), b, up, input_precision="ieee")
        w += tile_k
        up_w += tile_k
        x += tile_k
    if dependents_last:
        pdl_launch_dependents(pdl)
    total = tl.sum(acc, 0)
    if has_bias:
        total += tl.load(b_ptr + at_n).to(tl.float32)[:, None]
    dtype = out_ptr.dtype.element_ty
    if gated:
        more = tl.sum(up, 0)
        if has_bias:
            more += tl.load(b_ptr + n + at_n).to(tl.float32)[:, None]
        # Rounded where two kernels would round.
        gate = total.to(dtype).to(tl.float32)
        total = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * more.to(dtype).to(tl.float32)
    target = out_ptr + at_m.to(tl.int64)[None, :] * n + at_n[:, None]
    tl.store(target, total.to(dtype), mask=(at_m < rows)[None, :])
