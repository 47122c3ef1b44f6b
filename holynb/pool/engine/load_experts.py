"""Experts that lie in one tensor a layer, plain or in MXFP4 (gpt-oss): read one by one, this rank's columns of each. Knows names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import TensorSource
from holynb.pool.fit import Shard
from holynb.pool.fit.experts import MXFP4_BLOCK, ExpertLayers
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.gated import Gating
from kernels_support.gpu.mxfp4_matrix import MOST_EXPONENT, Mxfp4Matrices, packed

__all__ = ["StackedExperts"]

#: Name, shape and rows of a tensor → that part of it, on the device. Raises UserError.
Required = Callable[[str, tuple[int, ...], tuple[int, int] | None], Tensor]

_AGAIN = "Fetch the model again."


@dataclass(frozen=True, slots=True)
class StackedExperts:
    """One layer's part of a file. `block`: what it is called; `required` reads what is plain, `source` what is not."""

    block: str
    layout: ExpertLayers
    shard: Shard
    hidden: int
    source: TensorSource
    required: Required

    def read(self, device: str) -> Experts:
        """Gate and up lie row by row in the files, and gate before up here."""
        layout, hidden, block = self.layout, self.hidden, self.block
        first, last = self.shard.expert_inner
        router = self.required(f"{block}.{layout.router}.weight", (layout.count, hidden), None)
        wide = self.required(f"{block}.experts.gate_up_proj_bias", (layout.count, 2 * layout.inner), None)
        down_bias = self.required(f"{block}.experts.down_proj_bias", (layout.count, hidden), None) if self.shard.adds_bias else None
        gate_up, down = self._mxfp4(device) if layout.mxfp4 else self._plain(router)
        return Experts(
            router,
            gate_up,
            down,
            layout.top,
            layout.renormalize,
            self.required(f"{block}.{layout.router}.bias", (layout.count,), None),
            _apart(wide[:, 2 * first : 2 * last], 1),
            down_bias,
            Gating(layout.limit, layout.alpha),
        )

    def _plain(self, like: Tensor) -> tuple[Tensor, Tensor]:
        layout, hidden, (first, last) = self.layout, self.hidden, self.shard.expert_inner
        gate_up, down = like.new_empty(layout.count, 2 * (last - first), hidden), like.new_empty(layout.count, hidden, last - first)
        for e in range(layout.count):
            both = self.required(f"{self.block}.experts.gate_up_proj", (1, hidden, 2 * layout.inner), (e, e + 1))[0]
            gate_up[e] = _apart(both.t()[2 * first : 2 * last], 0)
            down[e] = self.required(f"{self.block}.experts.down_proj", (1, layout.inner, hidden), (e, e + 1))[0, first:last].t()
        return gate_up, down

    def _mxfp4(self, device: str) -> tuple[Mxfp4Matrices, Mxfp4Matrices]:
        layout, hidden, (first, last) = self.layout, self.hidden, self.shard.expert_inner
        gate_up, down = [], []
        for e in range(layout.count):
            blocks, scales = self._blocks("gate_up_proj", e, (2 * layout.inner, hidden), device)
            gate_up.append(packed(_apart(blocks[2 * first : 2 * last], 0), _apart(scales[2 * first : 2 * last], 0), hidden))
            blocks, scales = self._blocks("down_proj", e, (hidden, layout.inner), device)
            cut = slice(first // MXFP4_BLOCK, last // MXFP4_BLOCK)
            down.append(packed(blocks[:, cut], scales[:, cut], last - first))
        return _stacked(gate_up, hidden), _stacked(down, last - first)

    def _blocks(self, name: str, expert: int, shape: tuple[int, int], device: str) -> tuple[Tensor, Tensor]:
        """An expert's numbers and scales as the file has them."""
        (rows, columns), parts = shape, []
        for kind, size in (("blocks", (1, rows, columns // MXFP4_BLOCK, MXFP4_BLOCK // 2)), ("scales", (1, rows, columns // MXFP4_BLOCK))):
            full = f"{self.block}.experts.{name}_{kind}"
            tensor = self.source(full, (expert, expert + 1))
            if tensor is None:
                raise UserError(f"The model's files hold no tensor {full}, which its quantization_config promises. {_AGAIN}")
            if tensor.shape != size or tensor.dtype != torch.uint8:
                raise UserError(f"{full} has other sizes than config.json promises, or is not of bytes. {_AGAIN}")
            parts.append(tensor[0].to(device))
        blocks, scales = parts
        if not scales.is_meta and int(scales.max()) > MOST_EXPONENT:
            raise UserError(
                f"{self.block}.experts.{name}_scales has a scale of 2^{int(scales.max()) - 127}, and the native engine knows scales up to "
                f"2^{MOST_EXPONENT - 127}. Fetch the model again, or start it with --engine vllm."
            )
        return blocks, scales


def _apart(rows: Tensor, dim: int) -> Tensor:
    """Those of gate before those of up, which lie in turns."""
    places = torch.arange(rows.shape[dim], device=rows.device).view(-1, 2).t().flatten()
    return rows.index_select(dim, places)


def _stacked(parts: list[tuple[Tensor, Tensor]], columns: int) -> Mxfp4Matrices:
    words, scales = zip(*parts, strict=True)
    return Mxfp4Matrices(torch.stack(words), torch.stack(scales), columns)
