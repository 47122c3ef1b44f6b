"""config.json → the mixture of experts of a model: how many there are, how wide, which layers have them. Knows names and numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holynb.pool.modelfiles import truth, whole

__all__ = ["ExpertLayers", "mixtral_experts", "qwen3_experts"]

#: Largest numbers that are taken for a model's, far above those of any there is.
_MAX_EXPERTS, _MAX_WIDTH, _MAX_LAYERS = 100_000, 10_000_000, 10_000


@dataclass(frozen=True, slots=True)
class ExpertLayers:
    """`count` experts of `inner` columns in each layer but the `dense` ones; a token goes to `top` of them.

    `renormalize`: the weights of those add up to 1. `block`: what files call that part of a layer; `gate`, `up`, `down`: an expert's
    matrices.
    """

    count: int
    top: int
    inner: int
    renormalize: bool = True
    dense: frozenset[int] = frozenset()
    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"

    def numbers(self, hidden: int, *, active: bool = False) -> int:
        """Numbers in one layer's experts and their router; `active`: of those that one token goes to."""
        return (self.top if active else self.count) * 3 * hidden * self.inner + self.count * hidden


def qwen3_experts(config: Mapping[str, Any]) -> ExpertLayers | None:
    """Of Qwen3-MoE: every so many layers, but for those that are named. None where no layer has any."""
    layers, count = whole(config, "num_hidden_layers", 1, _MAX_LAYERS), whole(config, "num_experts", 0, _MAX_EXPERTS, 128)
    if config.get("num_local_experts") is not None:  # as newer files call it
        local = whole(config, "num_local_experts", 0, _MAX_EXPERTS)
        if config.get("num_experts") not in (None, local):
            raise ValueError(f"num_experts is {count} and num_local_experts is {local}")
        count = local
    step, named = whole(config, "decoder_sparse_step", 1, _MAX_LAYERS, 1), config.get("mlp_only_layers") or []
    if not isinstance(named, list):
        raise TypeError("mlp_only_layers is not a list of layers")
    named = [whole({"mlp_only_layers": one}, "mlp_only_layers", 0, _MAX_LAYERS) for one in named]
    dense = frozenset(i for i in range(layers) if i in named or (i + 1) % step)
    if count == 0 or len(dense) == layers:
        return None
    return ExpertLayers(
        count=count,
        top=whole(config, "num_experts_per_tok", 1, count),
        inner=whole(config, "moe_intermediate_size", 1, _MAX_WIDTH),
        renormalize=truth(config, "norm_topk_prob"),
        dense=dense,
    )


def mixtral_experts(config: Mapping[str, Any]) -> ExpertLayers:
    """Of Mixtral: in every layer."""
    count = whole(config, "num_local_experts", 1, _MAX_EXPERTS)
    return ExpertLayers(
        count=count,
        top=whole(config, "num_experts_per_tok", 1, count),
        inner=whole(config, "intermediate_size", 1, _MAX_WIDTH),
        block="block_sparse_moe",
        gate="w1",
        up="w3",
        down="w2",
    )
