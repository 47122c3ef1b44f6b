"""Heads out of one product: QK-norm, rotary positions, and keys and values into the cache, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kernels_support.gpu.lang import jit, on_device, tl, triton
from kernels_support.gpu.norms import rms_norm_reference

__all__ = ["Heads", "rotate_and_store", "rotate_and_store_reference"]


@dataclass(frozen=True, slots=True)
class Heads:
    """How a row of the product is divided: `heads` queries, `kv` keys, `kv` values of `size` numbers each; the norms' weights, if any."""

    heads: int
    kv: int
    size: int
    q_norm: torch.Tensor | None = None
    k_norm: torch.Tensor | None = None
    eps: float = 1e-6


def rotate_and_store_reference(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, how: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Queries (tokens, heads, size), rotated; keys and values written to `slots` of (kv, all slots, size).

    `qkv` is (tokens, (heads + 2·kv)·size), `rope` (tokens, size): cosines, then sines, float32. A slot of -1 is not written.
    """
    tokens = qkv.shape[0]
    q, k, v = qkv.view(tokens, -1, how.size).split([how.heads, how.kv, how.kv], 1)
    if how.q_norm is not None and how.k_norm is not None:
        q, k = rms_norm_reference(q, how.q_norm, how.eps), rms_norm_reference(k, how.k_norm, how.eps)
    cos, sin = rope.to(qkv.dtype).unsqueeze(1).chunk(2, -1)
    if bool((slots < 0).any()):
        keep = slots >= 0
        k_in, v_in, at = k[keep], v[keep], slots[keep]
        cos_in, sin_in = cos[keep], sin[keep]
    else:
        k_in, v_in, at, cos_in, sin_in = k, v, slots, cos, sin
    at = at.long()
    keys.index_copy_(1, at, _rotate(k_in, cos_in, sin_in).transpose(0, 1))
    values.index_copy_(1, at, v_in.transpose(0, 1))
    return _rotate(q, cos, sin)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def rotate_and_store(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, how: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """`rotate_and_store_reference`, by Triton on a GPU."""
    return (launch if on_device(qkv) else rotate_and_store_reference)(qkv, how, rope, slots, keys, values)


def launch(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, how: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """One program a token and head, values included."""
    tokens = qkv.shape[0]
    out = torch.empty(tokens, how.heads, how.size, dtype=qkv.dtype, device=qkv.device)
    normed = how.q_norm is not None
    _rotate_and_store[(tokens, how.heads + 2 * how.kv)](
        qkv, rope, slots, out, keys, values, how.q_norm if normed else qkv, how.k_norm if normed else qkv, keys.stride(0), how.eps,
        heads=how.heads, kv=how.kv, size=how.size, half=triton.next_power_of_2(how.size // 2), normed=normed, num_warps=1,
    )  # fmt: skip
    return out


@jit
def _rotate_and_store(  # noqa: PLR0917 - what a kernel needs
    qkv_ptr: Any, rope_ptr: Any, slot_ptr: Any, out_ptr: Any, key_ptr: Any, value_ptr: Any, qn_ptr: Any, kn_ptr: Any, stride: Any, eps: Any,
    heads: tl.constexpr, kv: tl.constexpr, size: tl.constexpr, half: tl.constexpr, normed: tl.constexpr,
) -> None:  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dtype = out_ptr.dtype.element_ty
    at = tl.arange(0, half)
    ok = at < size // 2
    source = qkv_ptr + (token * (heads + 2 * kv) + head) * size
    a = tl.load(source + at, mask=ok, other=0.0)
    b = tl.load(source + size // 2 + at, mask=ok, other=0.0)
    slot = tl.load(slot_ptr + token).to(tl.int64)
    if head >= heads + kv:
        if slot >= 0:
            target = value_ptr + (head - heads - kv).to(tl.int64) * stride + slot * size
            tl.store(target + at, a, mask=ok)
            tl.store(target + size // 2 + at, b, mask=ok)
    else:
        x, y = a.to(tl.float32), b.to(tl.float32)
        if normed:
            scale = 1.0 / tl.sqrt((tl.sum(x * x, axis=0) + tl.sum(y * y, axis=0)) / size + eps)
            weight = kn_ptr if head >= heads else qn_ptr
            x = (x * scale).to(dtype).to(tl.float32) * tl.load(weight + at, mask=ok, other=0.0).to(tl.float32)
            y = (y * scale).to(dtype).to(tl.float32) * tl.load(weight + size // 2 + at, mask=ok, other=0.0).to(tl.float32)
            x, y = x.to(dtype).to(tl.float32), y.to(dtype).to(tl.float32)
        cos = tl.load(rope_ptr + token * size + at, mask=ok, other=0.0).to(dtype).to(tl.float32)
        sin = tl.load(rope_ptr + token * size + size // 2 + at, mask=ok, other=0.0).to(dtype).to(tl.float32)
        first, second = (x * cos - y * sin).to(dtype), (y * cos + x * sin).to(dtype)
        if head < heads:
            target = out_ptr + (token * heads + head) * size
            tl.store(target + at, first, mask=ok)
            tl.store(target + size // 2 + at, second, mask=ok)
        elif slot >= 0:
            target = key_ptr + (head - heads).to(tl.int64) * stride + slot * size
            tl.store(target + at, first, mask=ok)
            tl.store(target + size // 2 + at, second, mask=ok)
