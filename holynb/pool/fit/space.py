"""Bytes of a device that weights, a token of the cache and a step's work take. Numbers only; knows no torch."""

from __future__ import annotations

from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.groups import GroupQuantization
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.fit.mesh import Shard
from holynb.pool.fit.spec import Spec

__all__ = ["cache_bytes", "kv_bytes", "weights_bytes", "work_bytes"]


def weights_bytes(spec: Spec, shard: Shard, itemsize: int, *, cpu: bool = False) -> int:
    """Bytes of one rank's share of the weights; copied KV heads and biases of the leading rank counted as they are.

    On CPU a tied table lies there twice: as it is for looking up, packed for multiplying (float32 alone is packed).
    """
    layers, hidden, size = shard.layers[1] - shard.layers[0], spec.hidden, spec.head_dim
    q, kv = (shard.heads[1] - shard.heads[0]) * size, (shard.kv_heads[1] - shard.kv_heads[0]) * size
    inner = shard.inner[1] - shard.inner[0]
    matrices, routers, stored, of_experts = layers * (hidden * (q + 2 * kv) + q * hidden), 0, 0, 0
    for i in range(*shard.layers):
        experts, own = spec.experts_of(i), shard.expert_inner[1] - shard.expert_inner[0]
        if experts is not None and experts.stacked:
            stored += experts.stored(hidden, own, itemsize, adds_bias=shard.adds_bias)
            continue
        matrices += 3 * hidden * inner * (experts is None)
        of_experts += 0 if experts is None else 3 * hidden * experts.count * own
        routers += 0 if experts is None else experts.count * hidden
    many = (q + kv) // size if spec.qk_norm == "all" else 2 if spec.qk_norm else 0
    layer = len(spec.layer_norms) * hidden + size * many + q // size * spec.sinks
    layer += (q + 2 * kv) * spec.qkv_bias + 2 * inner * spec.mlp_bias + hidden * (spec.out_bias + spec.mlp_bias) * shard.adds_bias
    table = (shard.vocab[1] - shard.vocab[0]) * hidden
    grouped = spec.quantization if isinstance(spec.quantization, GroupQuantization) and not spec.quantization.widened else None
    tables = (
        1
        if spec.tied and shard.has_embedding and shard.has_head and (grouped or not (cpu and itemsize == 4))
        else shard.has_embedding + shard.has_head
    )
    plain = layers * layer + routers + hidden * shard.has_head
    table_item = grouped.table_bits / 8 if grouped else itemsize
    return (
        stored
        + plain * itemsize
        + int(tables * table * table_item + matrices * _matrix_item(spec, itemsize) + of_experts * _expert_item(spec, itemsize))
    )


def _matrix_item(spec: Spec, itemsize: int) -> float:
    """Bytes of one number of a matrix."""
    return itemsize if spec.quantization is None or spec.quantization.widened else spec.quantization.item_bytes


def _expert_item(spec: Spec, itemsize: int) -> float:
    """The same of an expert's: of four bits no zero is kept where it is the middle."""
    how = spec.quantization
    return 0.5 + 4 / how.group if isinstance(how, FourBits) and how.symmetric and not how.widened else _matrix_item(spec, itemsize)


def kv_bytes(spec: Spec, shard: Shard, itemsize: int, layers: int | None = None) -> int:
    """Bytes that one token takes in this rank's cache, or in so many of its layers."""
    numbers = (
        (shard.layers[1] - shard.layers[0] if layers is None else layers) * 2 * (shard.kv_heads[1] - shard.kv_heads[0]) * spec.head_dim
    )
    return numbers * (1 if spec.kv_fp8 else itemsize)


def work_bytes(spec: Spec, shard: Shard, limits: BatchLimits, itemsize: int) -> int:
    """Bytes of a step's activations at most: a full chunk and a full batch through one layer, and the logits of a full batch."""
    size = spec.head_dim
    q, kv = (shard.heads[1] - shard.heads[0]) * size, (shard.kv_heads[1] - shard.kv_heads[0]) * size
    inner = shard.inner[1] - shard.inner[0]
    # The stream twice, the norm's output, and the widest of attention (qkv, q, its output), MLP (gate and up, their product)
    # and experts (each one's product and result).
    experts = 0 if spec.experts is None else spec.experts.top * (shard.expert_inner[1] - shard.expert_inner[0] + spec.hidden)
    token = 3 * spec.hidden + max(2 * q + 2 * kv + q, 3 * inner, experts)
    # Of four bits, and of groups, the widest matrix is plain for as long as a product of many rows takes.
    kept = isinstance(how := spec.quantization, FourBits) or (isinstance(how, GroupQuantization) and how.on_gpu)
    wide = 2 * inner * spec.hidden if kept and how is not None and not how.widened else 0
    # A CPU widens an expert of four bits for its product: its words, and its numbers before and after they are scaled.
    wide += 6 * (shard.expert_inner[1] - shard.expert_inner[0]) * spec.hidden if spec.experts is not None and spec.experts.mxfp4 else 0
    logits = limits.batch * spec.vocab * (itemsize + 4) if shard.has_head else 0
    return ((limits.chunk + limits.batch) * token + wide) * itemsize + logits + limits.max_len * size * 4


def cache_bytes(total: int, free: int, share: float, work: int, *, cpu: bool = False) -> int:
    """Bytes for the cache: what `share` of the device leaves after others, weights (already there) and work.

    On CPU the memory is everybody's, and the cache's pages are only taken when used: a quarter of what is free, 4 GB at most.
    """
    if cpu:
        return min(max(0, int(free * share) - work), free // 4, 4_000_000_000)
    return int(total * share) - (total - free) - work
