"""Random weights of a model's shapes, under the names of its tensors. Knows no files."""

from __future__ import annotations

import torch
from torch import Tensor

from holynb.pool.engine.load_fp8 import TensorSource
from holynb.pool.fit import Spec

__all__ = ["random_weights"]


def random_weights(spec: Spec, device: str, dtype: torch.dtype, seed: int = 0) -> TensorSource:
    """Random weights of the model's shapes, for benchmarks."""
    generator = torch.Generator(device).manual_seed(seed)
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
    own: dict[str, tuple[int, int]] = {}
    if (experts := spec.experts) is not None:
        wide = (experts.inner, spec.hidden)
        own = {experts.gate: wide, experts.up: wide, experts.down: wide[::-1], "gate": (experts.count, spec.hidden)}
    norms = dict(zip(("q_norm", "k_norm"), spec.qk_norm_sizes, strict=True))

    def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Tensor | None:
        module, kind = name.split(".")[-2:]
        if kind not in {"weight", "bias"} or (module in norms and not spec.qk_norm):
            return None  # no scales, of which a file may have any
        known = own if ".experts." in name or module == "gate" else shapes
        if module not in known:
            return torch.ones(norms.get(module, spec.hidden), dtype=dtype, device=device)
        n, m = known[module]
        n, m = rows[1] - rows[0] if rows else n, columns[1] - columns[0] if columns else m
        return torch.empty((n,) if kind == "bias" else (n, m), dtype=dtype, device=device).normal_(std=0.02, generator=generator)

    return read
