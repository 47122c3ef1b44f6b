"""config.json → the mixture of experts of a model: how many there are, how wide, which layers have them. Knows names and numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holynb.pool.modelfields import FieldRefused
from holynb.pool.modelfiles import real, truth, whole

__all__ = ["MXFP4_BLOCK", "ExpertLayers", "gpt_oss_experts", "in_mxfp4", "mixtral_experts", "qwen3_experts"]

#: Columns that share a scale in MXFP4, and those that the kernels take at once: matrices are filled up to that.
MXFP4_BLOCK, _MXFP4_GROUP = 32, 128

#: Largest numbers that are taken for a model's, far above those of any there is.
_MAX_EXPERTS, _MAX_WIDTH, _MAX_LAYERS = 100_000, 10_000_000, 10_000


@dataclass(frozen=True, slots=True)
class ExpertLayers:
    """`count` experts of `inner` columns in each layer but the `dense` ones; a token goes to `top` of them.

    `renormalize`: the weights of those add up to 1. `block`: what files call that part of a layer; `router`, `gate`, `up`, `down`: its
    matrices. `stacked`: those of all experts lie in one tensor, gate and up row by row. `biases`: router and experts have them. `limit`:
    how far gate and up may go, with a sigmoid of `alpha` times gate (0: SiLU). `mxfp4`: an expert's matrices lie in four bits.
    """

    count: int
    top: int
    inner: int
    renormalize: bool = True
    dense: frozenset[int] = frozenset()
    block: str = "mlp"
    router: str = "gate"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"

    stacked: bool = False
    biases: bool = False
    limit: float = 0.0
    alpha: float = 1.0
    mxfp4: bool = False

    @property
    def unit(self) -> int:
        """What an expert's columns are cut in."""
        return MXFP4_BLOCK if self.mxfp4 else 1

    def numbers(self, hidden: int, *, active: bool = False) -> int:
        """Numbers in one layer's experts and their router; `active`: of those that one token goes to."""
        each = 3 * hidden * self.inner + (2 * self.inner + hidden) * self.biases
        return (self.top if active else self.count) * each + self.count * (hidden + self.biases)

    def stored(self, hidden: int, inner: int, itemsize: int, *, adds_bias: bool) -> int:
        """Bytes of a layer's router and experts, of `inner` columns each."""
        if self.mxfp4:
            wide, narrow = (-(-columns // _MXFP4_GROUP) * _MXFP4_GROUP for columns in (hidden, inner))
            each = (2 * inner * wide + hidden * narrow) * 17 // 32
        else:
            each = 3 * hidden * inner * itemsize
        bias = self.biases * (1 + 2 * inner + hidden * adds_bias)
        return self.count * (each + (hidden + bias) * itemsize)


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


def gpt_oss_experts(config: Mapping[str, Any]) -> ExpertLayers:
    """Of gpt-oss: in every layer."""
    count = whole(config, "num_local_experts", 1, _MAX_EXPERTS)
    layout = ExpertLayers(
        count=count,
        top=whole(config, "num_experts_per_tok", 1, count),
        inner=whole(config, "intermediate_size", 1, _MAX_WIDTH),
        router="router",
        stacked=True,
        biases=True,
        limit=real(config, "swiglu_limit", 1e-6, 1e9),
        alpha=real(config, "swiglu_alpha", 1e-6, 1e9),
        mxfp4=in_mxfp4(config),
    )
    if layout.mxfp4 and (layout.inner % MXFP4_BLOCK or whole(config, "hidden_size", 1, _MAX_WIDTH) % MXFP4_BLOCK):
        raise ValueError(f"its experts lie in blocks of {MXFP4_BLOCK} columns, and hidden_size or intermediate_size is no multiple of that")
    return layout


def in_mxfp4(config: Mapping[str, Any]) -> bool:
    """Whether the file says that its experts lie in MXFP4. Raises FieldRefused with what it says besides and is not known here."""
    given = config.get("quantization_config")
    if not isinstance(given, Mapping) or given.get("quant_method") != "mxfp4":
        # Of a GGUF file, whose other matrices are in groups (`models/convert.py`).
        return isinstance(given, Mapping) and given.get("quant_method") == "gguf" and given.get("experts") == "mxfp4"
    # What is not converted are attention, router, embedding and head, which the tensors themselves show.
    for name, value in given.items():
        if name not in ("quant_method", "modules_to_not_convert", "dequantize") and value:
            raise FieldRefused(f"config.json's quantization_config says {name} {value!r:.60}, which is not known here for mxfp4")
    return True
