"""What an expert makes of its two products: SiLU(gate) · up, or gpt-oss' clamped kind (arXiv:2508.10925), in torch and within a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, tl

__all__ = ["SILU", "Gating", "gated_product", "gated_reference"]


@dataclass(frozen=True, slots=True)
class Gating:
    """SiLU(gate) · up; with a `limit` gate · sigmoid(alpha · gate) · (up + 1), gate cut off above it and up on both sides."""

    limit: float = 0.0
    alpha: float = 1.0


#: As most models have it.
SILU = Gating()


def gated_reference(both: torch.Tensor, gating: Gating = SILU) -> torch.Tensor:
    """(rows, 2 · inner), gate before up → (rows, inner)."""
    gate, up = both.chunk(2, -1)
    if not gating.limit:
        return torch.nn.functional.silu(gate) * up
    gate, up = gate.clamp(max=gating.limit), up.clamp(-gating.limit, gating.limit)
    return gate * torch.sigmoid(gating.alpha * gate) * (up + 1)


@jit
def gated_product(gate: tl.tensor, up: tl.tensor, dtype: tl.constexpr, limit: tl.constexpr, alpha: tl.constexpr) -> tl.tensor:
    """Of float32 sums, rounded to `dtype` where two kernels would round."""
    gate, up = gate.to(dtype).to(tl.float32), up.to(dtype).to(tl.float32)
    if limit > 0:  # a float alone is no condition to Triton
        gate = tl.minimum(gate, limit)
        up = tl.minimum(tl.maximum(up, -limit), limit) + 1.0
    return (gate * tl.sigmoid(gate * alpha)).to(dtype).to(tl.float32) * up
