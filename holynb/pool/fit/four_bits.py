"""Matrices of four bits in files: which packing, read by an allow-list. Knows names and numbers; no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holynb.pool.modelfields import FieldRefused

__all__ = [
    "AWQ_READ",
    "GPTQ_NO_EFFECT",
    "GPTQ_READ",
    "GROUPS",
    "PACKED",
    "FourBits",
    "packed_shapes",
    "parse_awq",
    "parse_gptq",
    "parse_packed",
]

#: Columns of a matrix that share a scale, as the kernel takes them.
GROUPS = (64, 128)

#: The last part of a matrix's name in each packing: where it lies in four bits.
PACKED = {"awq": "qweight", "gptq": "qweight", "gptq_v2": "qweight", "compressed": "weight_packed"}

#: Fields that are read below.
AWQ_READ = {"bits", "group_size", "zero_point", "version"}
GPTQ_READ = {"bits", "group_size", "desc_act", "sym", "checkpoint_format", "lm_head", "dynamic", "pack_dtype"}

#: How the rounding was searched for, and which kernels another library would take: without effect on the numbers.
GPTQ_NO_EFFECT = {
    *("damp_percent", "damp_auto_increment", "true_sequential", "static_groups", "meta", "model_name_or_path", "model_file_base_name"),
    *("batch_size", "block_name_to_quantize", "cache_block_outputs", "dataset", "exllama_config", "max_input_length", "model_seqlen"),
    *("modules_in_block_to_quantize", "module_name_preceding_first_block", "pad_token_id", "tokenizer", "use_cuda_fp16", "use_exllama"),
    *("backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "act_group_aware", "mse", "hyb_act"),
}


@dataclass(frozen=True, slots=True)
class FourBits:
    """Weights alone, `group` columns with one scale and zero. `packing`: awq, gptq (whose zeros are stored less one), gptq_v2, compressed.

    `symmetric`: the zero is the middle, 8, and not in the file. `widened`: the matrices are plain once they are read.
    """

    packing: str
    group: int
    symmetric: bool = False
    widened: bool = False
    at_load: bool = False

    @property
    def item_bytes(self) -> float:
        """Bytes of one number of a matrix, its share of a scale and a zero counted."""
        return 0.5 + 8 / self.group


def parse_awq(given: Mapping[str, Any]) -> FourBits:
    """AutoAWQ's files, version GEMM."""
    if str(given.get("version", "gemm")).lower() != "gemm":
        raise _refused("version", given["version"], "the native engine knows gemm's packing")
    if given.get("zero_point", True) is not True:
        raise _refused("zero_point", given["zero_point"], "the native engine knows files with zeros")
    return FourBits("awq", _group(given))


def parse_gptq(given: Mapping[str, Any]) -> FourBits:
    """AutoGPTQ's and GPTQModel's files; act-order (desc_act) by the g_idx in the file."""
    layout = given.get("checkpoint_format") or "gptq"
    if layout not in {"gptq", "gptq_v2"}:
        raise _refused("checkpoint_format", layout, "the native engine knows gptq and gptq_v2")
    if given.get("pack_dtype", "int32") != "int32":
        raise _refused("pack_dtype", given["pack_dtype"], "the native engine knows int32")
    for name in ("lm_head", "dynamic"):
        if given.get(name):
            raise _refused(name, given[name], "the native engine knows one scheme for the layers' matrices")
    return FourBits(layout, _group(given))


def parse_packed(weights: Any, activations: Any) -> FourBits:
    """compressed-tensors' pack-quantized W4A16: one group's weights."""
    if not isinstance(weights, Mapping):
        raise _refused("weights", weights, "the native engine knows groups of integers of 4 bits")
    if activations:
        raise _refused("input_activations", activations, "with four bits of weights the native engine knows plain activations")
    if (weights.get("num_bits"), weights.get("type"), weights.get("strategy")) != (4, "int", "group") or weights.get("dynamic"):
        raise _refused("weights", dict(weights), "the native engine knows groups of integers of 4 bits")
    return FourBits("compressed", _group({**weights, "bits": 4}), symmetric=weights.get("symmetric", True) is True)


def packed_shapes(module: str, shape: tuple[int, ...], how: FourBits) -> dict[str, tuple[int, ...]]:
    """The tensors in which a file holds this module's matrix of (n, k), and their shapes."""
    (n, k), groups = shape, shape[1] // how.group
    if how.packing == "compressed":
        zeros = {} if how.symmetric else {"weight_zero_point": (n // 8, groups)}
        tensors = {"weight_packed": (n, k // 8), "weight_scale": (n, groups), **zeros}
    else:
        words = (k, n // 8) if how.packing == "awq" else (k // 8, n)
        tensors = {"qweight": words, "qzeros": (groups, n // 8), "scales": (groups, n)}
    return {f"{module}.{name}": size for name, size in tensors.items()}


def _group(given: Mapping[str, Any]) -> int:
    if given.get("bits") != 4:
        raise _refused("bits", given.get("bits"), "the native engine knows 4")
    group = given.get("group_size")
    if group not in GROUPS:
        raise _refused("group_size", group, f"the native engine knows {' and '.join(map(str, GROUPS))}")
    return int(group)


def _refused(name: str, value: Any, why: str) -> FieldRefused:
    return FieldRefused(f"config.json's quantization_config says {name} {value!r:.60}, and {why}")
