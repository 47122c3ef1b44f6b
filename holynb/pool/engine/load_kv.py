"""The scales of keys and values that are kept in FP8: a checkpoint's, where it was calibrated for that, else one for all."""

from __future__ import annotations

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_fp8 import TensorSource
from holynb.pool.fit import Shard
from holynb.pool.fit.quantization import KV_SCALES

__all__ = ["read_kv_scales"]


def read_kv_scales(source: TensorSource, attention: str, shard: Shard, kv_heads: int) -> Tensor:
    """Float32 (2, KV heads of this shard): of keys, then of values. `attention`: the module's name; `kv_heads`: of the whole model.

    A file has one for all heads, or one a head. Without one it is 1, as in vLLM, SGLang and TensorRT-LLM: E4M3 has the same relative
    precision from 1/64 to 448, and what is larger is cut off there. So nothing has to be seen before the first page is written, and a page
    means the same to every row that shares it. Raises UserError for a scale that is no positive number, or of other heads.
    """
    scales = torch.ones(2, shard.kv_heads[1] - shard.kv_heads[0])
    for row, names in zip(scales, KV_SCALES, strict=True):
        tensor = next((t for name in names if (t := source(f"{attention}.{name}")) is not None), None)
        if tensor is None:
            continue
        known = tensor.float().reshape(-1)
        if not (known.isfinite() & (known > 0)).all() or known.numel() not in {1, kv_heads}:
            raise UserError(
                f"{attention}.{names[0]} is no scale of keys or values: one above 0 for all heads, or for each. Fetch the model again."
            )
        row.copy_(known[slice(*shard.kv_heads)] if known.numel() > 1 else known)
    return scales
