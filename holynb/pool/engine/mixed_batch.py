"""A step's decode rows and prompt chunks as one forward pass. Knows tensors; no steps."""

from __future__ import annotations

import torch

from holynb.pool.engine.model import ForwardBatch
from kernels_support.gpu.paged import MixedBatch

__all__ = ["mixed_forward_batch"]


def mixed_forward_batch(decode: ForwardBatch, prefill: ForwardBatch) -> ForwardBatch:
    """Both as one forward pass. Sampled are all decode rows, then the prefill's `last`."""
    assert prefill.last is not None  # noqa: S101 - for the type checker
    rows = decode.ids.shape[0]
    decode_rows = torch.arange(rows, dtype=torch.int32, device=decode.ids.device)
    pairs = zip([(decode.slots, decode.attend), *decode.others], [(prefill.slots, prefill.attend), *prefill.others], strict=True)
    (slots, attend), *others = [(torch.cat((a, b)), MixedBatch(first, then)) for (a, first), (b, then) in pairs]  # type: ignore[arg-type]
    return ForwardBatch(
        torch.cat((decode.ids, prefill.ids)),
        torch.cat((decode.positions, prefill.positions)),
        slots,
        attend,
        torch.cat((decode_rows, prefill.last + rows)),
        others=others,
    )
