"""Experts of a GGUF file, all of a layer in one tensor a matrix → one by one under safetensors' names. Knows names and shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.pool.models.gguf_facts import ConvertError

__all__ = ["ExpertTensor", "expert_tensors", "is_router", "plain_layers", "router_name"]

#: GGUF's words for an expert's matrices → Qwen3-MoE's and Mixtral's.
_PARTS = {"ffn_gate_exps": ("gate_proj", "w1"), "ffn_up_exps": ("up_proj", "w3"), "ffn_down_exps": ("down_proj", "w2")}
_ROUTER = "ffn_gate_inp"
#: By the family's name in config.json: what it calls that part of a layer, and the router in it. Of others mlp and gate.
_NAMES = {"mixtral": ("block_sparse_moe", "gate"), "gpt_oss": ("mlp", "router")}
#: Matrices of an MLP that is whole; a model with experts has them in every layer.
_WITHOUT = frozenset({"ffn_gate", "ffn_up", "ffn_down"})


@dataclass(frozen=True, slots=True)
class ExpertTensor:
    """One expert's matrix, as gguf's reader has one of its own."""

    name: str
    tensor_type: Any
    data: Any


def expert_tensors(tensor: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...], ExpertTensor]]:
    """Names and shapes of a tensor's experts, and each one's part of it; nothing where it is of no experts. Raises ConvertError."""
    count = _count(config)
    if (place := _part(tensor.name)) is None:
        if count and tensor.name.split(".")[-2] in _WITHOUT:
            raise ConvertError(
                f"the GGUF file holds {tensor.name}, of no experts, and its header's expert_count is {count:,}: fetch it again"
            )
        return
    (layer, part), shape = place, tuple(int(n) for n in reversed(tensor.shape))
    if len(shape) != 3 or shape[0] != count:
        held = f"{shape[0]:,} experts" if len(shape) == 3 else "no experts one below the other"
        raise ConvertError(f"{tensor.name} holds {held}, and the GGUF header's expert_count is {count:,}: fetch the file again")
    for e in range(count):
        name = f"model.layers.{layer}.{_names(config)[0]}.experts.{e}.{_PARTS[part][config['model_type'] == 'mixtral']}.weight"
        yield name, shape[1:], ExpertTensor(tensor.name, tensor.tensor_type, tensor.data[e])


def plain_layers(tensors: Iterable[Any], kept: Collection[str]) -> frozenset[int]:
    """Layers of whose experts some lie in a kind that is not `kept`: there all of them are widened, as they are computed alike."""
    return frozenset(place[0] for t in tensors if (place := _part(t.name)) is not None and t.tensor_type.name not in kept)


def router_name(name: str, config: Mapping[str, Any]) -> str | None:
    """The safetensors name of a layer's router or its bias; None for another tensor. Raises ConvertError where there are no experts."""
    parts = name.split(".")
    if len(parts) != 4 or parts[2] != _ROUTER:
        return None
    if not _count(config):
        raise ConvertError(f"the GGUF file holds {name}, and its header's expert_count is 0: fetch it again")
    return f"model.layers.{int(parts[1])}.{'.'.join(_names(config))}.{parts[3]}"


def is_router(name: str) -> bool:
    """Whether a safetensors name is a router's."""
    return name.endswith((".gate.weight", ".router.weight"))


def _part(name: str) -> tuple[int, str] | None:
    """The layer, and which of its experts' matrices."""
    parts = name.split(".")
    return (int(parts[1]), parts[2]) if len(parts) == 4 and parts[1].isdecimal() and parts[2] in _PARTS else None


def _count(config: Mapping[str, Any]) -> int:
    return int(config.get("num_local_experts") or config.get("num_experts") or 0)


def _names(config: Mapping[str, Any]) -> tuple[str, str]:
    return _NAMES.get(config["model_type"], ("mlp", "gate"))
