"""safetensors → Weights, straight to the device, sharded while reading: no rank ever holds more than its shard. Knows files and names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.load_experts import StackedExperts
from holynb.pool.engine.load_experts_fp8 import read_experts
from holynb.pool.engine.load_experts_groups import read_experts_groups
from holynb.pool.engine.load_experts_packed import read_experts_int4
from holynb.pool.engine.load_fp8 import Part, TensorSource, is_fp8, read_fp8
from holynb.pool.engine.load_groups import is_grouped, packed, read_as, read_group, widened_source
from holynb.pool.engine.load_int4 import is_int4, read_int4
from holynb.pool.engine.load_kv import read_kv_scales
from holynb.pool.engine.model import Layer, Weights
from holynb.pool.engine.random_weights import random_weights
from holynb.pool.fit import Shard, Spec
from holynb.pool.fit.experts import ExpertLayers
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.groups import GroupQuantization
from holynb.pool.fit.quantization import Quantization
from holynb.pool.headers import decoder_name
from kernels_support.cpu.grouped import Grouped, GroupedMatrix, pack_groups, quantize_groups
from kernels_support.gpu import int4_matrix
from kernels_support.gpu.experts import Experts
from kernels_support.gpu.fp8_matrix import Matrix, dequantize, quantize_matrix
from kernels_support.gpu.packed_matrix import PackedMatrix

__all__ = ["TensorSource", "load", "open_safetensors", "random_weights"]


@contextmanager
def open_safetensors(folder: Path) -> Iterator[TensorSource]:
    """The safetensors of `folder`, one file or many, as a TensorSource. Files are mapped, not read. Raises UserError if there are none."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    else:
        weight_map = {}
    names = sorted(set(weight_map.values())) or sorted(p.name for p in folder.glob("*.safetensors"))
    if not names:
        raise UserError(f"{folder} holds no *.safetensors. Fetch the model's weights, or start its GGUF file instead.")
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for name in names:
            file = stack.enter_context(safe_open(folder / name, framework="pt"))
            files.update({decoder_name(name): (file, name) for name in file.keys()})  # noqa: SIM118 - no mapping

        def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None:
            if name not in files:
                return None
            tensor: Tensor
            file, name = files[name]
            if columns is not None:
                tensor = file.get_slice(name)[:, columns[0] : columns[1]]
            elif rows is not None:
                tensor = file.get_slice(name)[rows[0] : rows[1]]
            else:
                tensor = file.get_tensor(name)
            return tensor

        yield read


def load(spec: Spec, shard: Shard, source: TensorSource, device: str, dtype: torch.dtype) -> Weights:
    """This rank's weights. Raises UserError, with the tensor's name, if one is missing or has another shape than config.json implies."""
    loader = _Loader(spec, shard, read_as(spec, source), device, dtype)
    layers = [loader.layer(i) for i in range(*shard.layers)]
    table = (shard.vocab[1] - shard.vocab[0], spec.hidden)
    embed = loader.table("model.embed_tokens", table) if shard.has_embedding or (shard.has_head and spec.tied) else None
    norm = loader.norm("model.norm", spec.hidden) if shard.has_head else None
    head = None if not shard.has_head else embed if spec.tied else loader.table("lm_head", table)
    return Weights(layers, embed if shard.has_embedding else None, norm, head, shard.layers[0], dtype)


class _Loader:
    """Names and ranges of one rank's tensors."""

    def __init__(self, spec: Spec, shard: Shard, source: TensorSource, device: str, dtype: torch.dtype) -> None:
        self.spec, self.shard, self.source, self.device, self.dtype = spec, shard, source, device, dtype

    def optional(self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None:
        tensor = self.source(name, rows, columns)
        if tensor is not None and not (tensor.is_floating_point() and tensor.itemsize > 1):
            # Its numbers alone, without the scales that some other file has for them, would be another model's.
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{name} lies in {kind}, and config.json says nothing of it. Fetch the model again, or start it with --engine vllm."
            )
        # On CPU a copy: a tensor that is still the file's own would keep all of the file mapped, and counted, beside the packed weights.
        return None if tensor is None else tensor.to(device=self.device, dtype=self.dtype, copy=self.device == "cpu").contiguous()

    def required(
        self, name: str, shape: tuple[int, ...], rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> Tensor:
        """The part of a tensor, of this shape. Raises UserError if it is missing or has another shape."""
        tensor = self.optional(name, rows, columns)
        if tensor is None:
            raise UserError(f"The model's files hold no tensor {name}, which its config.json promises. Fetch the model again.")
        if tensor.shape != shape:
            expected, actual = (" × ".join(map(str, sizes)) for sizes in (shape, tensor.shape))
            raise UserError(
                f"Of {name} config.json promises {expected} numbers and the model's files hold {actual}: they are of two models. "
                "Fetch the model again."
            )
        return tensor

    def stack(self, names: list[tuple[str, tuple[int, int]]], kind: str) -> Tensor:
        """Several matrices (or biases, by `kind`) with the same input, concatenated by rows; `names` have the rows of each."""
        size = sum(b - a for _, (a, b) in names)
        out: Tensor | None = None
        start = 0
        for name, rows in names:
            count = rows[1] - rows[0]
            part = self.required(f"{name}.{kind}", (count,) if kind == "bias" else (count, self.spec.hidden), rows)
            if out is None:
                out = torch.empty(size, *part.shape[1:], dtype=self.dtype, device=self.device)
            out[start : start + len(part)] = part
            start += len(part)
        if out is None:
            raise ValueError("nothing to stack")
        return out

    def table(self, module: str, shape: tuple[int, int]) -> Tensor | GroupedMatrix | PackedMatrix:
        """This rank's rows of the embedding or the head."""
        given, rows = self.spec.quantization, self.shard.vocab
        if not isinstance(given, GroupQuantization) or given.widened or not (given.at_load or is_grouped(self.source, module)):
            return self.required(f"{module}.weight", shape, rows)
        if given.at_load:
            return self._packed([quantize_groups(self.required(f"{module}.weight", shape, rows))], module, shape)
        return self._packed([read_group(self.source, (module, rows))], module, shape)

    def groups(self, parts: list[Part], shape: tuple[int, int], columns: tuple[int, int] | None, given: GroupQuantization) -> Matrix:
        """Matrices with the same input as one, packed; plain where one of them is plain in the files, or all are to be widened."""
        if not given.widened and not given.at_load and all(is_grouped(self.source, name) for name, _ in parts):
            return self._packed([read_group(self.source, part, columns) for part in parts], parts[0][0], shape)
        source, self.source = self.source, widened_source(self.source)
        plain = self.stack(parts, "weight") if columns is None else self.required(f"{parts[0][0]}.weight", shape, columns=columns)
        self.source = source
        return self._packed([quantize_groups(plain)], parts[0][0], shape) if given.at_load else plain

    def _packed(self, parts: list[Grouped], module: str, shape: tuple[int, int]) -> GroupedMatrix | PackedMatrix:
        given = self.spec.quantization
        on_gpu = isinstance(given, GroupQuantization) and given.on_gpu
        matrix = packed(parts, self.device, self.dtype) if on_gpu else pack_groups(parts)
        if matrix.shape != shape:
            raise UserError(f"{module} has other sizes than config.json promises. Fetch the model again.")
        return matrix

    def matrix(self, parts: list[Part], shape: tuple[int, int], columns: tuple[int, int] | None = None) -> Matrix:
        """Matrices with the same input as one, or some columns of one; in eight bits where they lie so, or are to. `shape`: of all."""
        quantization = self.spec.quantization
        if isinstance(quantization, GroupQuantization):
            return self.groups(parts, shape, columns, quantization)
        if isinstance(quantization, FourBits):
            return self._four_bits(parts, shape, columns, quantization)
        eight = [is_fp8(self.source, name) for name, _ in parts]
        if not any(eight):
            plain = self.stack(parts, "weight") if columns is None else self.required(f"{parts[0][0]}.weight", shape, columns=columns)
            return quantize_matrix(plain) if quantization is not None and quantization.at_load else plain
        if not all(eight):
            names = ", ".join(name for name, _ in parts)
            raise UserError(
                f"Of {names} some lie in eight bits and some do not, which is not supported. Start this model with --engine vllm."
            )
        if quantization is None or quantization.at_load:
            raise UserError(f"{parts[0][0]} lies in eight bits, and config.json has no quantization_config. Fetch the model again.")
        matrix = read_fp8(self.source, parts, columns, quantization, self.device)
        if matrix.shape != shape:
            raise UserError(f"{parts[0][0]} has other sizes than config.json promises. Fetch the model again.")
        return dequantize(matrix).to(self.dtype) if quantization.widened else matrix

    def _four_bits(self, parts: list[Part], shape: tuple[int, int], columns: tuple[int, int] | None, how: FourBits) -> Matrix:
        """As `matrix`, where some of the file's matrices have four bits."""
        four = [is_int4(self.source, name, how) for name, _ in parts]
        if not any(four):
            return self.stack(parts, "weight") if columns is None else self.required(f"{parts[0][0]}.weight", shape, columns=columns)
        if not all(four):
            names = ", ".join(name for name, _ in parts)
            raise UserError(
                f"Of {names} some lie in four bits and some do not, which is not supported. Start this model with --engine vllm."
            )
        matrix = read_int4(self.source, parts, columns, how, self.device)
        if matrix.shape != shape:
            raise UserError(f"{parts[0][0]} has other sizes than config.json promises. Fetch the model again.")
        return int4_matrix.dequantize(matrix, self.dtype) if how.widened else matrix

    def layer(self, i: int) -> Layer:
        spec, shard = self.spec, self.shard
        attn, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        q, kv = _scaled(shard.heads, spec.head_dim), _scaled(shard.kv_heads, spec.head_dim)
        qkv = [(f"{attn}.q_proj", q), (f"{attn}.k_proj", kv), (f"{attn}.v_proj", kv)]
        gate_up = [(f"{mlp}.gate_proj", shard.inner), (f"{mlp}.up_proj", shard.inner)]
        experts = spec.experts_of(i)
        if spec.fused:
            qkv, gate_up = fused_parts(spec, attn, mlp, shard)
        norms = {role: self.norm(f"model.layers.{i}.{name}", spec.hidden) for role, name in spec.layer_norms.items()}
        q_norm, k_norm = self.qk_norms(attn, q, kv)
        return Layer(
            norm=norms.get("norm"),
            qkv=self.matrix(qkv, (sum(b - a for _, (a, b) in qkv), spec.hidden)),
            out=self.matrix([(f"{attn}.o_proj", (0, spec.hidden))], (spec.hidden, q[1] - q[0]), q),
            mlp_norm=norms.get("mlp_norm"),
            gate_up=None if experts else self.matrix(gate_up, (2 * (shard.inner[1] - shard.inner[0]), spec.hidden)),
            down=None
            if experts
            else self.matrix([(f"{mlp}.down_proj", (0, spec.hidden))], (spec.hidden, shard.inner[1] - shard.inner[0]), shard.inner),
            qkv_bias=self.stack(qkv, "bias") if spec.qkv_bias else None,
            out_bias=self.required(f"{attn}.o_proj.bias", (spec.hidden,)) if spec.out_bias and shard.adds_bias else None,
            gate_up_bias=self.stack(gate_up, "bias") if spec.mlp_bias else None,
            down_bias=self.required(f"{mlp}.down_proj.bias", (spec.hidden,)) if spec.mlp_bias and shard.adds_bias else None,
            q_norm=q_norm,
            k_norm=k_norm,
            out_norm=norms.get("out_norm"),
            down_norm=norms.get("down_norm"),
            kv_scales=read_kv_scales(self.source, attn, shard, spec.kv_heads).to(self.device) if spec.kv_fp8 else None,
            experts=self.experts(i, experts) if experts else None,
            sinks=self.required(f"{attn}.sinks", (shard.heads[1] - shard.heads[0],), shard.heads) if spec.sinks else None,
        )

    def experts(self, i: int, layout: ExpertLayers) -> Experts:
        """All experts of a layer, this rank's columns of each, written one by one to where they stay."""
        (first, last), hidden, block = self.shard.expert_inner, self.spec.hidden, f"model.layers.{i}.{layout.block}"
        if layout.stacked:
            return StackedExperts(block, layout, self.shard, hidden, self.source, self.required).read(self.device)
        router, inner = self.required(f"{block}.gate.weight", (layout.count, hidden)), last - first
        if isinstance(self.spec.quantization, FourBits):
            return read_experts_int4(block, layout, (hidden, (first, last)), router, self.source, self.spec.quantization)
        given = self.spec.quantization
        if isinstance(given, GroupQuantization) and not given.widened and is_grouped(self.source, f"{block}.experts.0.{layout.gate}"):
            return read_experts_groups(block, layout, (hidden, (first, last)), router, self.source, on_gpu=given.on_gpu)
        if isinstance(given, Quantization) and not isinstance(given, GroupQuantization):
            return read_experts(block, layout, (hidden, (first, last)), router, self.matrix)
        gate_up, down = router.new_empty(layout.count, 2 * inner, hidden), router.new_empty(layout.count, hidden, inner)
        for e in range(layout.count):
            name = f"{block}.experts.{e}"
            gate_up[e, :inner] = self.required(f"{name}.{layout.gate}.weight", (inner, hidden), (first, last))
            gate_up[e, inner:] = self.required(f"{name}.{layout.up}.weight", (inner, hidden), (first, last))
            down[e] = self.required(f"{name}.{layout.down}.weight", (hidden, inner), columns=(first, last))
        return Experts(router, gate_up, down, layout.top, layout.renormalize)

    def norm(self, name: str, size: int, rows: tuple[int, int] | None = None) -> Tensor:
        """A norm's weights; in float32 where they multiply before anything is rounded."""
        weight = self.required(f"{name}.weight", (size,), rows)
        return weight.float() + self.spec.norm_offset if self.spec.exact_norms or self.spec.norm_offset else weight

    def qk_norms(self, attn: str, q: tuple[int, int], kv: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """Of each head alike, or this rank's part of those of all heads."""
        if not self.spec.qk_norm:
            return None, None
        if self.spec.qk_norm == "head":
            return self.norm(f"{attn}.q_norm", self.spec.head_dim), self.norm(f"{attn}.k_norm", self.spec.head_dim)
        return self.norm(f"{attn}.q_norm", q[1] - q[0], q), self.norm(f"{attn}.k_norm", kv[1] - kv[0], kv)


def fused_parts(spec: Spec, attn: str, mlp: str, shard: Shard) -> tuple[list[Part], list[Part]]:
    """This rank's rows of q, k and v, which lie in one tensor, and of gate and up, which do too."""
    size, name = spec.head_dim, f"{attn}.qkv_proj"
    keys, inner, wide = spec.heads, shard.inner, f"{mlp}.gate_up_proj"
    spans = [shard.heads, *((keys + many + shard.kv_heads[0], keys + many + shard.kv_heads[1]) for many in (0, spec.kv_heads))]
    gate_up = [inner, (spec.inner + inner[0], spec.inner + inner[1])]
    return [(name, _scaled(span, size)) for span in spans], [(wide, span) for span in gate_up]


def _scaled(span: tuple[int, int], factor: int) -> tuple[int, int]:
    return span[0] * factor, span[1] * factor
