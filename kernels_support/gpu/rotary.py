"""One pass over the QKV product: QK-norm, rotary embedding, and keys and values into the paged cache.

QK-norm is RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467) of each query and key head; rotary embedding (Su et al. 2021,
arXiv:2104.09864) rotates element i of a head's first half with element i of its second. A cache of FP8 takes what is written over a scale
that each head has for its keys and its values; larger than 448 times that is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels_support.cpu import rows
from kernels_support.gpu.lang import jit, launch_kernel, on_device, pdl_launch_dependents, pdl_wait, tl, triton
from kernels_support.gpu.norms import rms_norm_reference
from kernels_support.gpu.paged import fills_device
from kernels_support.gpu.quantize_fp8 import FP8, FP8_MAX

__all__ = ["Heads", "rotate_and_store", "rotate_and_store_reference"]


@dataclass(frozen=True, slots=True)
class Heads:
    """Layout of a row of the QKV product: `heads` queries, `kv` keys, `kv` values of `size` elements each; the norms' weights, if any.

    `kv_scales`: float32 (2, kv) of keys and values, where the cache is of FP8. `rotary`: how many elements of a head are rotated, the
    first ones (None: all; 0: none).
    """

    heads: int
    kv: int
    size: int
    q_norm: torch.Tensor | None = None
    k_norm: torch.Tensor | None = None
    eps: float = 1e-6
    kv_scales: torch.Tensor | None = None
    rotary: int | None = None

    @property
    def rotated(self) -> int:
        """Elements of a head that are rotated."""
        return self.size if self.rotary is None else self.rotary


def rotate_and_store_reference(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, layout: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Queries (tokens, heads, size), rotated; keys and values written to `slots` of (kv, all slots, size).

    `qkv` is (tokens, (heads + 2·kv)·size), `rope` (tokens, rotated size): cosines, then sines, float32. A slot of -1 is not written.
    """
    tokens = qkv.shape[0]
    q, k, v = qkv.view(tokens, -1, layout.size).split([layout.heads, layout.kv, layout.kv], 1)
    if layout.q_norm is not None and layout.k_norm is not None:
        q, k = rms_norm_reference(q, layout.q_norm, layout.eps), rms_norm_reference(k, layout.k_norm, layout.eps)
    half, rope = layout.rotated // 2, rope.to(qkv.dtype).unsqueeze(1)
    cos, sin = rope[..., :half], rope[..., half : 2 * half]
    if bool((slots < 0).any()):
        keep = slots >= 0
        k_in, v_in, at = k[keep], v[keep], slots[keep]
        cos_in, sin_in = cos[keep], sin[keep]
    else:
        k_in, v_in, at, cos_in, sin_in = k, v, slots, cos, sin
    at = at.long()
    for cache, x, number in ((keys, _rotate(k_in, cos_in, sin_in), 0), (values, v_in, 1)):
        if cache.dtype == FP8 and layout.kv_scales is not None:
            eights = (x.float() * (1.0 / layout.kv_scales[number, :, None])).clamp(-FP8_MAX, FP8_MAX).to(FP8)
            cache.view(torch.uint8).index_copy_(1, at, eights.transpose(0, 1).view(torch.uint8))
        else:
            cache.index_copy_(1, at, x.transpose(0, 1))
    return _rotate(q, cos, sin)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    rotated = 2 * cos.shape[-1]
    if rotated == 0:
        return x
    a, b = x[..., :rotated].chunk(2, -1)
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned if rotated == x.shape[-1] else (*turned, x[..., rotated:]), -1)


def rotate_and_store(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, layout: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """`rotate_and_store_reference`, by Triton on a GPU, and on CPU by code of ours or in fewer operations."""
    if on_device(qkv):
        return launch(qkv, layout, rope, slots, keys, values)
    # Slots of a GPU's steps are int32, and -1 where nothing is to be written.
    plain = qkv.is_cpu and layout.q_norm is None and qkv.dtype == keys.dtype == torch.float32 and slots.dtype == torch.int64
    if (
        plain
        and rows.takes(qkv, layout.size, layout.rotated // 2)
        and keys.stride()[1:] == (layout.size, 1)
        and keys.stride() == values.stride()
    ):
        sizes = layout.heads, layout.kv, layout.size, layout.rotated
        return rows.rotate_and_store(qkv, sizes, rope, slots, keys, values)
    return (_together if plain else rotate_and_store_reference)(qkv, layout, rope, slots, keys, values)


def _together(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, layout: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """`rotate_and_store_reference` in float32, without norms; every slot is written."""
    x = qkv.view(qkv.shape[0], -1, layout.size)
    turned, v = x.tensor_split((layout.heads + layout.kv,), 1)
    if half := layout.rotated // 2:
        a, b, rest = turned.tensor_split((half, 2 * half), -1)
        cos, sin = rope[:, None, :half], rope[:, None, half : 2 * half]
        turned = torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin), rest), -1)
    q, k = turned.tensor_split((layout.heads,), 1)
    keys.index_copy_(1, slots, k.transpose(0, 1))
    values.index_copy_(1, slots, v.transpose(0, 1))
    return q


def launch(  # noqa: PLR0917 - what a kernel needs
    qkv: torch.Tensor, layout: Heads, rope: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """One program per token and 8 heads, or 16 where there are many tokens; values included."""
    tokens, heads_per_program = qkv.shape[0], 16 if qkv.shape[0] >= 64 else 8
    out = torch.empty(tokens, layout.heads, layout.size, dtype=qkv.dtype, device=qkv.device)
    normed, eights = layout.q_norm is not None, keys.dtype == FP8
    if eights and layout.kv_scales is None:
        raise TypeError("a cache in eight bits without scales")
    launch_kernel(
        _rotate_and_store,
        (tokens, triton.cdiv(layout.heads + 2 * layout.kv, heads_per_program)),
        qkv,
        rope,
        slots,
        out,
        keys,
        values,
        layout.q_norm if normed else qkv,
        layout.k_norm if normed else qkv,
        layout.kv_scales if eights else rope,
        keys.stride(0),
        layout.eps,
        heads=layout.heads,
        kv=layout.kv,
        size=layout.size,
        rotary=layout.rotated,
        rope_width=rope.stride(0),
        half_padded=triton.next_power_of_2(layout.size // 2),
        normed=normed,
        eights=eights,
        heads_per_program=heads_per_program,
        dependents_last=fills_device(tokens, layout.kv),
        num_warps=4,
    )
    return out


@jit
def _rotate_and_store(  # noqa: PLR0917 - what a kernel needs
    qkv_ptr: tl.tensor,
    rope_ptr: tl.tensor,
    slot_ptr: tl.tensor,
    out_ptr: tl.tensor,
    key_ptr: tl.tensor,
    value_ptr: tl.tensor,
    q_norm_ptr: tl.tensor,
    k_norm_ptr: tl.tensor,
    kv_scale_ptr: tl.tensor,
    head_stride: tl.tensor,
    eps: tl.tensor,
    heads: tl.constexpr,
    kv: tl.constexpr,
    size: tl.constexpr,
    rotary: tl.constexpr,
    rope_width: tl.constexpr,
    half_padded: tl.constexpr,
    normed: tl.constexpr,
    eights: tl.constexpr,
    heads_per_program: tl.constexpr,
    dependents_last: tl.constexpr,
    pdl: tl.constexpr,
) -> None:
    pdl_wait(pdl)
    if not dependents_last:
        pdl_launch_dependents(pdl)
    token = tl.program_id(0).to(tl.int64)
    dtype = out_ptr.dtype.element_ty
    head, d = tl.program_id(1) * heads_per_program + tl.arange(0, heads_per_program), tl.arange(0, half_padded)
    ok_d = d < size // 2
    ok = (head < heads + 2 * kv)[:, None] & ok_d[None, :]
    is_query, is_value = head < heads, head >= heads + kv
    # A pair is rotated together: the halves of what is rotated; behind it, the halves of the rest stand for themselves.
    first, second = d, d + size // 2
    if rotary != size:
        first = tl.where(d < rotary // 2, d, d + rotary // 2)
        second = first + tl.where(d < rotary // 2, rotary // 2, (size - rotary) // 2)
    source = qkv_ptr + (token * (heads + 2 * kv) + head)[:, None] * size
    raw_a, raw_b = tl.load(source + first[None, :], mask=ok, other=0.0), tl.load(source + second[None, :], mask=ok, other=0.0)
    x, y = raw_a.to(tl.float32), raw_b.to(tl.float32)
    if normed:
        scale = (1.0 / tl.sqrt((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / size + eps))[:, None]
        q_a, q_b = tl.load(q_norm_ptr + first, mask=ok_d, other=0.0), tl.load(q_norm_ptr + second, mask=ok_d, other=0.0)
        k_a, k_b = tl.load(k_norm_ptr + first, mask=ok_d, other=0.0), tl.load(k_norm_ptr + second, mask=ok_d, other=0.0)
        x = (x * scale).to(q_a.dtype).to(tl.float32) * tl.where(is_query[:, None], q_a[None, :], k_a[None, :]).to(tl.float32)
        y = (y * scale).to(q_a.dtype).to(tl.float32) * tl.where(is_query[:, None], q_b[None, :], k_b[None, :]).to(tl.float32)
        x, y = x.to(dtype).to(tl.float32), y.to(dtype).to(tl.float32)
    turns = d < rotary // 2
    cos = tl.load(rope_ptr + token * rope_width + d, mask=turns, other=1.0).to(dtype).to(tl.float32)[None, :]
    sin = tl.load(rope_ptr + token * rope_width + rotary // 2 + d, mask=turns, other=0.0).to(dtype).to(tl.float32)[None, :]
    rotated_a, rotated_b = (x * cos - y * sin).to(dtype), (y * cos + x * sin).to(dtype)
    target = out_ptr + (token * heads + head)[:, None] * size
    tl.store(target + first[None, :], rotated_a, mask=ok & is_query[:, None])
    tl.store(target + second[None, :], rotated_b, mask=ok & is_query[:, None])
    slot = tl.load(slot_ptr + token).to(tl.int64)
    # Broadcast before comparing: Triton 3.9's interpreter gives a scalar comparison another mask type.
    written = tl.broadcast_to(slot, (heads_per_program,)) >= 0
    is_key = (head >= heads) & (head < heads + kv) & written
    if eights:
        # Keys' scales lie before those of values, as their heads do.
        scale = tl.load(kv_scale_ptr + head - heads, mask=(head >= heads) & (head < heads + 2 * kv), other=1.0)
        inverse = tl.div_rn(tl.full((heads_per_program,), 1.0, tl.float32), scale)[:, None]
        rotated_a = _rounded(tl.where(is_value[:, None], raw_a, rotated_a), inverse, key_ptr)
        rotated_b = _rounded(tl.where(is_value[:, None], raw_b, rotated_b), inverse, key_ptr)
        raw_a, raw_b = rotated_a, rotated_b
    target = key_ptr + (head - heads).to(tl.int64)[:, None] * head_stride + slot * size
    tl.store(target + first[None, :], rotated_a, mask=ok & is_key[:, None])
    tl.store(target + second[None, :], rotated_b, mask=ok & is_key[:, None])
    target = value_ptr + (head - heads - kv).to(tl.int64)[:, None] * head_stride + slot * size
    tl.store(target + first[None, :], raw_a, mask=ok & (is_value & written)[:, None])
    tl.store(target + second[None, :], raw_b, mask=ok & (is_value & written)[:, None])
    if dependents_last:  # attention comes next: see `fills_device`
        pdl_launch_dependents(pdl)


@jit
def _rounded(x: tl.tensor, inverse: tl.tensor, cache_ptr: tl.tensor) -> tl.tensor:
    """Over its head's scale, in the cache's FP8."""
    return tl.minimum(tl.maximum(x.to(tl.float32) * inverse, -448.0), 448.0).to(cache_ptr.dtype.element_ty)
