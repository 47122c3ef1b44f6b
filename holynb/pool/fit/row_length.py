"""How long a row can be: the model's own context, and what a KV cache holds of one. Numbers and words; knows no torch."""

from __future__ import annotations

from dataclasses import replace

from holynb.pool.fit import plan
from holynb.pool.fit.cache_groups import BLOCK_TOKENS
from holynb.pool.fit.limits import MIN_KV_TOKENS, BatchLimits
from holynb.pool.fit.mesh import Mesh
from holynb.pool.fit.spec import Spec

__all__ = ["longest_row", "own_context", "too_short"]


def own_context(spec: Spec, max_len: int | None) -> str:
    """A sentence, a space before it, where longer rows are asked for than the model can take; else empty."""
    if max_len is None or max_len <= spec.max_len:
        return ""
    return f" Its own context is {spec.max_len:,} tokens: --max-len {max_len} gives no more."


def too_short(result: plan.Fit, limits: BatchLimits) -> str:
    """Why it does not fit where weights and work do, and the cache is there; empty where it is not so."""
    if result.fits or not limits.firm or result.kv_tokens < 1:
        return ""
    return f"a row of {limits.max_len:,} tokens (--max-len) is more than the {result.kv_tokens:,} that its KV cache would hold"


def longest_row(spec: Spec, device: plan.Device, result: plan.Fit, limits: BatchLimits, share: float) -> int:
    """The longest row that this way holds, in whole blocks; 0 where that is not worth a pool.

    Where layers slide, shorter rows take more of a token: so it is looked for step by step.
    """
    length, mesh = result.kv_tokens, Mesh(result.tp, result.pp)
    while length >= MIN_KV_TOKENS:
        length -= length % BLOCK_TOKENS
        shorter = plan.fit(spec, device, mesh, result.dtype, replace(limits, max_len=length), share=share)
        if shorter.fits:
            return length
        length = min(length - 1, shorter.kv_tokens)
    return 0
