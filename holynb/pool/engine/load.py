"""safetensors → Weights, straight to the device, cut while reading: no rank ever holds more than its share. Knows files and names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from holynb.errors import UserError
from holynb.pool.engine.model import Layer, Weights
from holynb.pool.fit import Cut, Spec

__all__ = ["TensorSource", "load", "made_up", "opened"]


class TensorSource(Protocol):
    """Where tensors come from: part of one by name, rows and columns as half-open ranges (None: all), or None where there is none."""

    def __call__(self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None: ...


@contextmanager
def opened(folder: Path) -> Iterator[TensorSource]:
    """The safetensors of `folder`, one file or many, as a TensorSource. Files are mapped, not read."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        place: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    else:
        place = {}
    names = sorted(set(place.values())) or sorted(p.name for p in folder.glob("*.safetensors"))
    if not names:
        raise UserError(f"{folder} holds no *.safetensors. Fetch the model's weights, or start its GGUF file instead.")
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for name in names:
            file = stack.enter_context(safe_open(folder / name, framework="pt"))
            files.update(dict.fromkeys(file.keys(), file))

        def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None:
            if name not in files:
                return None
            part = files[name].get_slice(name)
            if columns is not None:
                tensor: Tensor = part[:, columns[0] : columns[1]]
            else:
                tensor = part[rows[0] : rows[1]] if rows is not None else part[:]
            return tensor

        yield read


def made_up(spec: Spec, device: str, dtype: torch.dtype, seed: int = 0) -> TensorSource:
    """Random weights of the right shapes, for measuring speed alone."""
    maker = torch.Generator(device).manual_seed(seed)
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    shapes = {
        "embed_tokens": (spec.vocab, spec.hidden),
        "lm_head": (spec.vocab, spec.hidden),
        "q_proj": (q, spec.hidden),
        "k_proj": (kv, spec.hidden),
        "v_proj": (kv, spec.hidden),
        "o_proj": (spec.hidden, q),
        "gate_proj": (spec.inner, spec.hidden),
        "up_proj": (spec.inner, spec.hidden),
        "down_proj": (spec.hidden, spec.inner),
    }
    norms = {"q_norm": spec.head_dim, "k_norm": spec.head_dim}

    def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None:
        word, kind = name.split(".")[-2:]
        if word in norms and not spec.qk_norm:
            return None
        if word not in shapes:
            return torch.ones(norms.get(word, spec.hidden), dtype=dtype, device=device)
        n, m = shapes[word]
        n, m = rows[1] - rows[0] if rows else n, columns[1] - columns[0] if columns else m
        return torch.empty((n,) if kind == "bias" else (n, m), dtype=dtype, device=device).normal_(std=0.02, generator=maker)

    return read


def load(spec: Spec, cut: Cut, source: TensorSource, device: str, dtype: torch.dtype) -> Weights:
    """This rank's weights. Raises UserError naming a tensor that should be there and is not."""
    loader = _Loader(spec, cut, source, device, dtype)
    layers = [loader.layer(i) for i in range(*cut.layers)]
    table = (cut.vocab[1] - cut.vocab[0], spec.hidden)
    embed = loader.must("model.embed_tokens.weight", table, cut.vocab) if cut.embeds or (cut.ends and spec.tied) else None
    norm = loader.must("model.norm.weight", (spec.hidden,)) if cut.ends else None
    head = None if not cut.ends else embed if spec.tied else loader.must("lm_head.weight", table, cut.vocab)
    return Weights(layers, embed if cut.embeds else None, norm, head)


class _Loader:
    """Names and cuts of one rank's tensors."""

    def __init__(self, spec: Spec, cut: Cut, source: TensorSource, device: str, dtype: torch.dtype) -> None:
        self.spec, self.cut, self.source, self.device, self.dtype = spec, cut, source, device, dtype

    def maybe(self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None:
        tensor = self.source(name, rows, columns)
        # On CPU a copy: a tensor that is still the file's own would keep all of the file mapped, and counted, beside the packed weights.
        return None if tensor is None else tensor.to(device=self.device, dtype=self.dtype, copy=self.device == "cpu").contiguous()

    def must(
        self, name: str, shape: tuple[int, ...], rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> Tensor:
        """The part of a tensor, of this shape. Raises UserError where there is none, or one of another model."""
        tensor = self.maybe(name, rows, columns)
        if tensor is None:
            raise UserError(f"The model's files hold no tensor {name}, which its config.json promises. Fetch the model again.")
        if tensor.shape != shape:
            said, found = (" × ".join(map(str, sizes)) for sizes in (shape, tensor.shape))
            raise UserError(
                f"Of {name} config.json promises {said} numbers and the model's files hold {found}: they are of two models. Fetch the model again."
            )
        return tensor

    def stack(self, names: list[tuple[str, tuple[int, int]]], kind: str) -> Tensor:
        """Several matrices (or biases) with the same input, one under the other, filled in place."""
        size = sum(b - a for _, (a, b) in names)
        out: Tensor | None = None
        at = 0
        for name, rows in names:
            many = rows[1] - rows[0]
            piece = self.must(f"{name}.{kind}", (many,) if kind == "bias" else (many, self.spec.hidden), rows)
            if out is None:
                out = torch.empty(size, *piece.shape[1:], dtype=self.dtype, device=self.device)
            out[at : at + len(piece)] = piece
            at += len(piece)
        if out is None:
            raise ValueError("nothing to stack")
        return out

    def layer(self, i: int) -> Layer:
        spec, cut = self.spec, self.cut
        attn, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        q, kv = _times(cut.heads, spec.head_dim), _times(cut.kv_heads, spec.head_dim)
        qkv = [(f"{attn}.q_proj", q), (f"{attn}.k_proj", kv), (f"{attn}.v_proj", kv)]
        gate_up = [(f"{mlp}.gate_proj", cut.inner), (f"{mlp}.up_proj", cut.inner)]
        return Layer(
            norm=self.must(f"model.layers.{i}.input_layernorm.weight", (spec.hidden,)),
            qkv=self.stack(qkv, "weight"),
            out=self.must(f"{attn}.o_proj.weight", (spec.hidden, q[1] - q[0]), columns=q),
            mlp_norm=self.must(f"model.layers.{i}.post_attention_layernorm.weight", (spec.hidden,)),
            gate_up=self.stack(gate_up, "weight"),
            down=self.must(f"{mlp}.down_proj.weight", (spec.hidden, cut.inner[1] - cut.inner[0]), columns=cut.inner),
            qkv_bias=self.stack(qkv, "bias") if spec.qkv_bias else None,
            out_bias=self.must(f"{attn}.o_proj.bias", (spec.hidden,)) if spec.out_bias and cut.lead else None,
            gate_up_bias=self.stack(gate_up, "bias") if spec.mlp_bias else None,
            down_bias=self.must(f"{mlp}.down_proj.bias", (spec.hidden,)) if spec.mlp_bias and cut.lead else None,
            q_norm=self.must(f"{attn}.q_norm.weight", (spec.head_dim,)) if spec.qk_norm else None,
            k_norm=self.must(f"{attn}.k_norm.weight", (spec.head_dim,)) if spec.qk_norm else None,
        )


def _times(span: tuple[int, int], by: int) -> tuple[int, int]:
    return span[0] * by, span[1] * by
