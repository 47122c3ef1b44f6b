"""Whether a model's files hold what its config.json promises, by their headers: before a process is started that would make room for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holynb.errors import UserError
from holynb.pool.fit.experts import MXFP4_BLOCK, ExpertLayers
from holynb.pool.fit.four_bits import PACKED, FourBits, packed_shapes
from holynb.pool.fit.groups import GroupQuantization
from holynb.pool.fit.quantization import KV_SCALES, Quantization
from holynb.pool.fit.spec import FAMILIES, Spec
from holynb.pool.headers import BrokenModel, TensorEntry, read_headers
from holynb.pool.modelfields import use_of

__all__ = ["check_shapes"]

#: Tensors of what takes pictures, which are not taken.
_PICTURES = ("vision_tower.", "multi_modal_projector.")
_AGAIN = "Fetch the model again."


def check_shapes(folder: Path, spec: Spec) -> None:
    """Raises UserError, with the first tensor that is not there, of another shape, or that nothing would be computed with."""
    try:
        tensors = read_headers(folder)
    except BrokenModel as exc:
        raise UserError(str(exc)) from exc
    if spec.layers > len(tensors):  # first: the loop below takes as long as there are layers
        raise UserError(f"config.json promises {spec.layers:,} layers and the model's files hold {len(tensors):,} tensors. {_AGAIN}")
    if spec.experts is not None and not spec.experts.stacked and spec.experts.count > len(tensors):
        raise UserError(
            f"config.json promises {spec.experts.count:,} experts and the model's files hold {len(tensors):,} tensors. {_AGAIN}"
        )
    promised_shapes, grouped = dict(_promised(spec)), isinstance(spec.quantization, GroupQuantization)
    passed_over = {"lm_head.weight"} if spec.tied else set()
    if isinstance(how := spec.quantization, FourBits):
        for name in list(promised_shapes):
            module = name.removesuffix(".weight")
            if f"{module}.{PACKED[how.packing]}" in tensors and module.endswith(("_proj", ".w1", ".w2", ".w3")):
                promised_shapes |= packed_shapes(module, promised_shapes.pop(name), how)
                passed_over |= {f"{module}.{index}" for index in ("g_idx", "weight_g_idx", "weight_shape")}
    for name, shape in promised_shapes.items():
        entry = tensors.get(name)
        if entry is None:
            raise UserError(f"The model's files hold no tensor {name}, which its config.json promises. {_AGAIN}")
        if _numbers(entry, grouped=grouped and name.endswith(".weight")) != shape:
            promised, held = (" × ".join(map(str, sizes)) or "one" for sizes in (shape, entry.shape))
            raise UserError(
                f"Of {name} config.json promises {promised} numbers and the model's files hold {held}: they are of two models. {_AGAIN}"
            )
    if isinstance(spec.quantization, Quantization):
        passed_over |= {f"{name}_{end}" for name in promised_shapes for end in ("scale", "scale_inv", *["zero"] * grouped)}
        passed_over |= {f"{name.removesuffix('weight')}input_scale{end}" for name in promised_shapes for end in ("", "_ub")}
    if spec.quantization is not None or spec.kv_fp8:
        passed_over |= {f"model.layers.{i}.self_attn.{name}" for i in range(spec.layers) for names in KV_SCALES for name in names}
    for name in sorted(tensors.keys() - promised_shapes.keys() - passed_over):
        if FAMILIES[spec.family].nested and name.removeprefix("model.").startswith(_PICTURES):
            continue
        if use_of("safetensors", name) != "reset":
            raise UserError(
                f"The model's files hold the tensor {name:.100}, which its config.json does not announce: {spec.family} would ignore it. "
                "Start this model with --engine vllm, or fix its config.json."
            )


def _numbers(entry: TensorEntry, *, grouped: bool) -> tuple[int, ...]:
    """The shape of a tensor, two numbers a byte counted."""
    return (*entry.shape[:-1], 2 * entry.shape[-1]) if grouped and entry.dtype == "U8" and entry.shape else entry.shape


def _promised(spec: Spec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor that a rank reads, and its shape."""
    hidden, inner = spec.hidden, spec.inner
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    yield "model.embed_tokens.weight", (spec.vocab, hidden)
    yield "model.norm.weight", (hidden,)
    if not spec.tied:
        yield "lm_head.weight", (spec.vocab, hidden)
    matrices = {
        "self_attn.q_proj": (q, hidden, spec.qkv_bias),
        "self_attn.k_proj": (kv, hidden, spec.qkv_bias),
        "self_attn.v_proj": (kv, hidden, spec.qkv_bias),
        "self_attn.o_proj": (hidden, q, spec.out_bias),
    }
    mlp = {
        "mlp.gate_proj": (inner, hidden, spec.mlp_bias),
        "mlp.up_proj": (inner, hidden, spec.mlp_bias),
        "mlp.down_proj": (hidden, inner, spec.mlp_bias),
    }
    if spec.fused:
        matrices = {"self_attn.qkv_proj": (q + 2 * kv, hidden, False), "self_attn.o_proj": (hidden, q, False)}
        mlp = {"mlp.gate_up_proj": (2 * inner, hidden, False), "mlp.down_proj": (hidden, inner, False)}
    norms = dict.fromkeys(spec.layer_norms.values(), hidden)
    norms |= dict(zip(("self_attn.q_norm", "self_attn.k_norm"), spec.qk_norm_sizes, strict=True)) if spec.qk_norm else {}
    for i in range(spec.layers):
        for name, size in norms.items():
            yield f"model.layers.{i}.{name}.weight", (size,)
        if spec.sinks:
            yield f"model.layers.{i}.self_attn.sinks", (spec.heads,)
        experts = spec.experts_of(i)
        for name, (rows, columns, bias) in (matrices | (mlp if experts is None else {})).items():
            yield f"model.layers.{i}.{name}.weight", (rows, columns)
            if bias:
                yield f"model.layers.{i}.{name}.bias", (rows,)
        if experts is not None:
            yield from _promised_experts(f"model.layers.{i}.{experts.block}", experts, hidden)


def _promised_experts(block: str, experts: ExpertLayers, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{block}.{experts.router}.weight", (experts.count, hidden)
    if experts.biases:
        yield f"{block}.{experts.router}.bias", (experts.count,)
    if experts.stacked:
        yield from _promised_stacks(f"{block}.experts", experts, hidden)
        return
    for e in range(experts.count):
        yield f"{block}.experts.{e}.{experts.gate}.weight", (experts.inner, hidden)
        yield f"{block}.experts.{e}.{experts.up}.weight", (experts.inner, hidden)
        yield f"{block}.experts.{e}.{experts.down}.weight", (hidden, experts.inner)


def _promised_stacks(block: str, experts: ExpertLayers, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of all experts in one tensor; plain ones lie with a row for each column of x."""
    for name, rows, columns in (("gate_up_proj", 2 * experts.inner, hidden), ("down_proj", hidden, experts.inner)):
        yield f"{block}.{name}_bias", (experts.count, rows)
        if experts.mxfp4:
            yield f"{block}.{name}_blocks", (experts.count, rows, columns // MXFP4_BLOCK, MXFP4_BLOCK // 2)
            yield f"{block}.{name}_scales", (experts.count, rows, columns // MXFP4_BLOCK)
        else:
            yield f"{block}.{name}", (experts.count, columns, rows)
