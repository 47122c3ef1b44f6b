"""Tables of rotary positions: cosines and sines. Knows tensors and a spec's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from holynb.pool.fit import Spec

__all__ = ["rope_table", "rope_tables"]


def rope_tables(spec: Spec, length: int) -> list[Tensor]:
    """The table of layers that see all, and that of those with a window, where the family tells them apart."""
    return [rope_table(spec, length)] + ([] if spec.local_rope is None else [rope_table(spec, length, spec.local_rope)])


def rope_table(spec: Spec, length: int, rope: Mapping[str, Any] | None = None) -> Tensor:
    """Cosines, then sines, for each position: (length, rotated size), float32. Scaling as in transformers' modeling_rope_utils."""
    rope, size = rope or spec.rope, spec.rotary or spec.head_dim
    freq = 1.0 / (rope["theta"] ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size))
    if rope["type"] == "linear":
        freq = freq / rope["factor"]
    elif rope["type"] == "longrope":
        # One set for all rows of a pool: a row that grew into the other one would find its keys turned by the first.
        far = length > rope["original_max_position_embeddings"]
        freq = freq / torch.tensor(rope["long_factor" if far else "short_factor"])
    elif rope["type"] == "llama3":
        freq = _llama3(freq, rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"])
    elif rope["type"] == "yarn":
        freq = _yarn(freq, size, rope)
    angles = torch.arange(length).float()[:, None] * freq[None, : size // 2]
    return torch.cat((angles.cos(), angles.sin()), -1) * _attention_factor(rope)


def _attention_factor(rope: Mapping[str, Any]) -> float:
    """What cosines and sines are multiplied by: more context, sharper attention (yarn: Peng et al. 2023, arXiv:2309.00071;
    longrope: Ding et al. 2024, arXiv:2402.13753).
    """
    if rope["type"] not in ("yarn", "longrope"):
        return 1.0
    if rope["attention_factor"] is not None:
        return float(rope["attention_factor"])
    if rope["type"] == "longrope":
        trained = math.log(rope["original_max_position_embeddings"])
        return 1.0 if rope["factor"] <= 1 else math.sqrt(1 + math.log(rope["factor"]) / trained)

    def scale(by: float) -> float:
        return 1.0 if rope["factor"] <= 1 else 0.1 * by * math.log(rope["factor"]) + 1.0

    return scale(rope["mscale"]) / scale(rope["mscale_all_dim"]) if rope["mscale"] and rope["mscale_all_dim"] else scale(1)


def _yarn(freq: Tensor, size: int, rope: Mapping[str, Any]) -> Tensor:
    """Dimensions that turn often are kept, those that turn rarely are stretched, those between interpolated."""

    def dimension(turns: float) -> float:
        return size * math.log(rope["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(rope["theta"]))

    low, high = dimension(rope["beta_fast"] or 32), dimension(rope["beta_slow"] or 1)
    if rope["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = ((torch.arange(size // 2, dtype=torch.float32) - low) / (high - low + 0.001 * (low == high))).clamp(0, 1)
    mixed: Tensor = freq / rope["factor"] * ramp + freq * (1 - ramp)
    return mixed


def _llama3(freq: Tensor, factor: float, low: float, high: float, length: int) -> Tensor:
    """Long wavelengths are stretched, short ones kept, those between interpolated."""
    wave = 2 * math.pi / freq
    smooth = (length / wave - low) / (high - low)
    blended = (1 - smooth) * freq / factor + smooth * freq
    return torch.where(wave > length / low, freq / factor, torch.where(wave < length / high, freq, blended))
