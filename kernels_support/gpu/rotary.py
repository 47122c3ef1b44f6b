"""Heads out of one product: QK-norm, rotary positions, and keys and values into the cache, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.gpu.lang import jit, let, on_device, start, tl, triton, wait
from kernels_support.gpu.norms import rms_norm_reference
from kernels_support.gpu.paged import crowded

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
    """One program a token and 8 heads, or 16 where there are many tokens; values included."""
    tokens, many = qkv.shape[0], 16 if qkv.shape[0] >= 64 else 8
    out = torch.empty(tokens, how.heads, how.size, dtype=qkv.dtype, device=qkv.device)
    normed = how.q_norm is not None
    start(
        _rotate_and_store, (tokens, triton.cdiv(how.heads + 2 * how.kv, many)), qkv, rope, slots, out, keys, values, how.q_norm if normed else qkv, how.k_norm if normed else qkv, keys.stride(0), how.eps,
        heads=how.heads, kv=how.kv, size=how.size, half=triton.next_power_of_2(how.size // 2), normed=normed, many=many, late=crowded(tokens, how.kv), num_warps=4,
    )  # fmt: skip
    return out


@jit
def _rotate_and_store(  # noqa: PLR0917 - what a kernel needs
    qkv_ptr: tl.tensor, rope_ptr: tl.tensor, slot_ptr: tl.tensor, out_ptr: tl.tensor, key_ptr: tl.tensor, value_ptr: tl.tensor,
    qn_ptr: tl.tensor, kn_ptr: tl.tensor, stride: tl.tensor, eps: tl.tensor,
    heads: tl.constexpr, kv: tl.constexpr, size: tl.constexpr, half: tl.constexpr, normed: tl.constexpr, many: tl.constexpr, late: tl.constexpr,
    pdl: tl.constexpr,
) -> None:  # fmt: skip
    wait(pdl)
    if not late:
        let(pdl)
    token = tl.program_id(0).to(tl.int64)
    dtype = out_ptr.dtype.element_ty
    head, at = tl.program_id(1) * many + tl.arange(0, many), tl.arange(0, half)
    ok_d = at < size // 2
    ok = (head < heads + 2 * kv)[:, None] & ok_d[None, :]
    is_query, is_value = head < heads, head >= heads + kv
    source = qkv_ptr + (token * (heads + 2 * kv) + head)[:, None] * size + at[None, :]
    raw_a, raw_b = tl.load(source, mask=ok, other=0.0), tl.load(source + size // 2, mask=ok, other=0.0)
    x, y = raw_a.to(tl.float32), raw_b.to(tl.float32)
    if normed:
        scale = (1.0 / tl.sqrt((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / size + eps))[:, None]
        q_a, q_b = tl.load(qn_ptr + at, mask=ok_d, other=0.0), tl.load(qn_ptr + size // 2 + at, mask=ok_d, other=0.0)
        k_a, k_b = tl.load(kn_ptr + at, mask=ok_d, other=0.0), tl.load(kn_ptr + size // 2 + at, mask=ok_d, other=0.0)
        x = (x * scale).to(dtype).to(tl.float32) * tl.where(is_query[:, None], q_a[None, :], k_a[None, :]).to(tl.float32)
        y = (y * scale).to(dtype).to(tl.float32) * tl.where(is_query[:, None], q_b[None, :], k_b[None, :]).to(tl.float32)
        x, y = x.to(dtype).to(tl.float32), y.to(dtype).to(tl.float32)
    cos = tl.load(rope_ptr + token * size + at, mask=ok_d, other=0.0).to(dtype).to(tl.float32)[None, :]
    sin = tl.load(rope_ptr + token * size + size // 2 + at, mask=ok_d, other=0.0).to(dtype).to(tl.float32)[None, :]
    first, second = (x * cos - y * sin).to(dtype), (y * cos + x * sin).to(dtype)
    target = out_ptr + (token * heads + head)[:, None] * size + at[None, :]
    tl.store(target, first, mask=ok & is_query[:, None])
    tl.store(target + size // 2, second, mask=ok & is_query[:, None])
    slot = tl.load(slot_ptr + token).to(tl.int64)
    # For each head: of a single comparison Triton 3.9's interpreter makes a mask of another type.
    written = tl.broadcast_to(slot, (many,)) >= 0
    is_key = (head >= heads) & (head < heads + kv) & written
    target = key_ptr + (head - heads).to(tl.int64)[:, None] * stride + slot * size + at[None, :]
    tl.store(target, first, mask=ok & is_key[:, None])
    tl.store(target + size // 2, second, mask=ok & is_key[:, None])
    target = value_ptr + (head - heads - kv).to(tl.int64)[:, None] * stride + slot * size + at[None, :]
    tl.store(target, raw_a, mask=ok & (is_value & written)[:, None])
    tl.store(target + size // 2, raw_b, mask=ok & (is_value & written)[:, None])
    if late:  # attention comes next: see `crowded`
        let(pdl)
