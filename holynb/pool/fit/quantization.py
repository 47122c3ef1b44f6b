"""How a model's matrices lie in eight bits: quantization_config, read by an allow-list. Knows names and numbers; no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.pool.fit.four_bits import AWQ_READ, GPTQ_NO_EFFECT, GPTQ_READ, FourBits, parse_awq, parse_gptq, parse_packed
from holynb.pool.modelfields import FieldRefused
from holynb.pool.modelfiles import real

__all__ = ["AT_LOAD", "BLOCK", "KV_SCALES", "Quantization", "keeps_kv_in_fp8", "parse_quantization"]

#: Rows and columns of a matrix that share a scale, as DeepSeek's and Qwen's files have it.
BLOCK = 128

#: Fields that change nothing for whoever reads the weights.
_NO_EFFECT = {"version", "global_compression_ratio", "quantization_status", "ignore", "ignored_layers", "modules_to_not_convert"}

#: Fields that the readers below ask for.
_READ = {"quant_method", "fmt", "format", "activation_scheme", "activation_scale_ub", "weight_block_size", "config_groups"}
_READ |= {"kv_cache_scheme", "sparsity_config", "transform_config"}


#: Below a layer's attention, the names of keys' scales and of values', the newest first; they multiply.
KV_SCALES = tuple((f"{kind}_scale", f"{kind}_proj.{kind}_scale", f"{kind}_proj.output_scale") for kind in "kv")


@dataclass(frozen=True, slots=True)
class Quantization:
    """FP8 matrices (E4M3). Which are, their files say: modules that are listed as not converted have plain weights.

    `weights`: one scale a tensor, a channel (a row) or a block of 128 × 128. `activations`: a scale that the file knows (static), one a
    token, one a block of 128 columns, or none (plain activations). `scale`: the name of a matrix's scales; they multiply. `most`: larger
    activations are cut off. `at_load`: the files hold plain weights, which are quantized when they are read.
    """

    weights: str
    activations: str
    scale: str = "weight_scale"
    most: float | None = None
    at_load: bool = False

    @property
    def widened(self) -> bool:
        """Whether the matrices are plain once they are read: only the files are in eight bits."""
        return self.activations == "none"

    @property
    def item_bytes(self) -> float:
        """Bytes of one number of a matrix, its share of a scale a block counted; those of rows are few."""
        return 1 + 4 / BLOCK**2 * (self.weights == "block")


#: `--dtype fp8`: a scale a row of each matrix, and a token of the activations.
AT_LOAD = Quantization("channel", "token", at_load=True)


def parse_quantization(config: Mapping[str, Any]) -> Quantization | FourBits | None:
    """What a quantization_config says; None where there is none. Raises FieldRefused with what is not supported."""
    given = _given(config)
    if not given:
        return None
    method = given.get("quant_method")
    readers: dict[str, tuple[Callable[[Mapping[str, Any]], Quantization | FourBits | None], set[str]]] = {
        "fp8": (_fine_grained, _READ),
        "compressed-tensors": (_compressed_tensors, _READ),
        "fbgemm_fp8": (_fbgemm, _READ),
        "awq": (parse_awq, {"quant_method"} | AWQ_READ | GPTQ_NO_EFFECT),
        "gptq": (parse_gptq, {"quant_method"} | GPTQ_READ | GPTQ_NO_EFFECT),
    }
    if not isinstance(method, str) or method not in readers:
        raise _refused("quant_method", method, f"the native engine runs {', '.join(readers)}")
    reader, read = readers[method]
    for name, value in given.items():
        if name not in _NO_EFFECT | read and value:
            raise _refused(name, value, "a setting that is not known here")
    return reader(given)


def keeps_kv_in_fp8(config: Mapping[str, Any]) -> bool:
    """Whether the file says so: its keys and values were calibrated for it. Scales are its own where it has them."""
    return bool(_given(config).get("kv_cache_scheme"))


def _given(config: Mapping[str, Any]) -> Mapping[str, Any]:
    given = config.get("quantization_config") or config.get("compression_config") or {}
    if not isinstance(given, Mapping):
        raise TypeError("its quantization_config is no object")
    return given


def _fine_grained(given: Mapping[str, Any]) -> Quantization:
    """Qwen's and DeepSeek's files (blocks), and AutoFP8's (a scale a tensor)."""
    if given.get("fmt", "e4m3") not in {"e4m3", "float8_e4m3fn"}:
        raise _refused("fmt", given["fmt"], "the native engine knows e4m3")
    scheme, block = given.get("activation_scheme", "dynamic"), given.get("weight_block_size")
    if scheme not in {"dynamic", "static"} or (block and scheme == "static"):
        raise _refused("activation_scheme", scheme, "the native engine knows dynamic, and static without blocks")
    if not block:
        return Quantization("tensor", "static" if scheme == "static" else "token")
    if list(block) != [BLOCK, BLOCK]:
        raise _refused("weight_block_size", block, f"the native engine knows {BLOCK} × {BLOCK}")
    return Quantization("block", "block", scale="weight_scale_inv")


def _fbgemm(given: Mapping[str, Any]) -> Quantization:
    return Quantization("channel", "token", most=real(given, "activation_scale_ub", 1e-6, 1e9, 1200.0))


def _compressed_tensors(given: Mapping[str, Any]) -> Quantization | FourBits | None:
    """One scheme for all linear modules; llm-compressor's FP8, FP8_DYNAMIC, FP8_BLOCK and W4A16. None: only the cache is in eight bits."""
    if given.get("transform_config"):
        raise _refused("transform_config", given["transform_config"], "it is not supported")
    if kv := given.get("kv_cache_scheme"):
        if _strategy(kv, "kv_cache_scheme") not in {"tensor", "attn_head"} or kv.get("dynamic"):
            raise _refused("kv_cache_scheme", kv, "the native engine knows static scales, one a tensor or one a head")
        if not given.get("config_groups"):
            return None
    if (sparsity := given.get("sparsity_config")) and sparsity.get("format", "dense") != "dense":
        raise _refused("sparsity_config", sparsity, "it is not supported")
    if (layout := given.get("format", "float-quantized")) not in {"float-quantized", "naive-quantized", "pack-quantized"}:
        raise _refused("format", layout, "the native engine knows float-quantized and pack-quantized")
    groups = given.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1 or not isinstance(group := next(iter(groups.values())), Mapping):
        raise _refused("config_groups", groups, "the native engine knows one group")
    if group.get("targets") != ["Linear"] or group.get("output_activations"):
        raise _refused("config_groups", group, "the native engine knows the target Linear and plain outputs")
    if layout == "pack-quantized":
        return parse_packed(group.get("weights"), group.get("input_activations"))
    weights, activations = _strategy(group.get("weights"), "weights"), group.get("input_activations")
    if weights not in {"tensor", "channel", "block"} or group["weights"].get("dynamic"):
        raise _refused("weights.strategy", weights, "the native engine knows tensor, channel and block")
    if activations is None:
        return Quantization(weights, "none")
    scheme = _strategy(activations, "input_activations")
    static, blocks = not activations.get("dynamic"), scheme == "group"
    if scheme not in {"tensor", "token", "group"} or (static and scheme != "tensor") or blocks != (weights == "block"):
        raise _refused("input_activations.strategy", scheme, f"with a scale a {weights} the native engine does not know it")
    if blocks and activations.get("group_size") != BLOCK:
        raise _refused("input_activations.group_size", activations.get("group_size"), f"the native engine knows {BLOCK}")
    return Quantization(weights, "static" if static else "block" if blocks else "token")


def _strategy(scheme: Any, name: str) -> Any:
    """A scheme's strategy, if it is one of FP8 numbers around zero."""
    if not isinstance(scheme, Mapping) or (scheme.get("num_bits"), scheme.get("type")) != (8, "float") or scheme.get("symmetric") is False:
        raise _refused(name, scheme, "the native engine knows symmetric floats of 8 bits")
    if (block := scheme.get("block_structure")) and list(block) != [BLOCK, BLOCK]:
        raise _refused(f"{name}.block_structure", block, f"the native engine knows {BLOCK} × {BLOCK}")
    return scheme.get("strategy")


def _refused(name: str, value: Any, why: str) -> FieldRefused:
    return FieldRefused(f"config.json's quantization_config says {name} {value!r:.60}, and {why}")
