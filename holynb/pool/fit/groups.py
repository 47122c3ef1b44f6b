"""Matrices of four or eight bits, 32 columns a scale, that are multiplied as they lie: GGUF files, and `--dtype int8`. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.quantization import Quantization, parse_quantization
from holynb.pool.modelfields import FieldRefused
from holynb.pool.modelfiles import real
from kernels_support.cpu.machine_code import lanes

__all__ = ["GROUP", "INT8_AT_LOAD", "GroupQuantization", "multiplies_groups", "quantization_of"]

#: Columns that share a scale.
GROUP = 32


@dataclass(frozen=True, slots=True)
class GroupQuantization(Quantization):
    """Bits of one number once it is packed, its share of scale and zero counted: of a layer's matrices, and of the embedding and head.

    `gpu_bits`: the same on a GPU, where scales lie in four bytes; `on_gpu`: that is where they lie.
    """

    layer_bits: float = 8.5
    table_bits: float = 8.5
    gpu_bits: tuple[float, float] = (9.0, 9.0)
    on_gpu: bool = False

    @property
    def item_bytes(self) -> float:
        return self.layer_bits / 8

    @property
    def for_gpu(self) -> GroupQuantization:
        """The same, packed for a GPU."""
        layers, tables = self.gpu_bits
        return replace(self, layer_bits=layers, table_bits=tables, on_gpu=True)

    @property
    def plain(self) -> GroupQuantization:
        """The same, widened when it is read."""
        return replace(self, activations="none")


#: `--dtype int8`.
INT8_AT_LOAD = GroupQuantization("group", "bfloat16", at_load=True)


def quantization_of(config: Mapping[str, Any]) -> Quantization | FourBits | None:
    """What a config.json's quantization_config says, but for experts in MXFP4. Raises FieldRefused with what is not supported."""
    given = config.get("quantization_config")
    if isinstance(given, Mapping) and given.get("quant_method") == "gguf":
        return _groups(given)
    return parse_quantization(config)


def _groups(given: Mapping[str, Any]) -> GroupQuantization:
    """What `models/convert.py` writes of a GGUF file whose matrices are kept."""
    bits = given.get("bits")
    if given.get("group_size") != GROUP or not isinstance(bits, Mapping):
        raise FieldRefused(
            f"config.json's quantization_config says group_size {given.get('group_size')!r:.60}, and the native engine knows {GROUP}"
        )
    layers, tables = real(bits, "layers", 1, 32), real(bits, "tables", 1, 32)
    gpu = real(bits, "gpu_layers", 1, 33, layers), real(bits, "gpu_tables", 1, 33, tables)
    return GroupQuantization("group", "bfloat16", layer_bits=layers, table_bits=tables, gpu_bits=gpu)


def multiplies_groups() -> bool:
    """Whether this processor multiplies such matrices as they lie: on Linux with AVX2, where code may be made in memory."""
    return lanes() > 0
