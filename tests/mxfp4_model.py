"""A tiny gpt-oss whose experts lie in MXFP4, as openai's files have them, and what transformers makes of the same numbers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import tiny

#: Magnitudes of FP4 (E2M1), by their code.
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def quantized(plain: Any) -> tuple[Any, Any]:
    """Blocks (…, n, k / 32, 16) and scales of (…, n, k): the nearest numbers, by scales that leave the largest of a block below 8."""
    import torch

    numbers = plain.float().unflatten(-1, (-1, 32))
    exponents = torch.floor(torch.log2(numbers.abs().amax(-1))).int() - 2
    scaled = torch.ldexp(numbers, -exponents[..., None])
    bounds = torch.tensor([(a + b) / 2 for a, b in pairwise(VALUES)])
    codes = torch.bucketize(scaled.abs().contiguous(), bounds).to(torch.uint8) | ((scaled < 0).to(torch.uint8) << 3)
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + 127).to(torch.uint8)


def dequantized(blocks: Any, scales: Any) -> Any:
    """As the format says: number by number."""
    import torch

    values = torch.tensor([*VALUES, *(-v for v in VALUES)])
    numbers = torch.stack((values[(blocks & 15).long()], values[(blocks >> 4).long()]), -1).flatten(-2)
    return (numbers * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)


def make(folder: Path, **more: Any) -> Any:
    """The model in `folder`; returns transformers' own, with the numbers that lie there."""
    import torch
    from safetensors.torch import load_file, save_file

    model = tiny.make("gpt-oss", folder, **more)
    tensors = load_file(folder / "model.safetensors")
    for name in [n for n in tensors if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        blocks, scales = quantized(tensors.pop(name).transpose(1, 2).contiguous())
        tensors |= {f"{name}_blocks": blocks.contiguous(), f"{name}_scales": scales}
        with torch.no_grad():
            model.get_parameter(name).copy_(dequantized(blocks, scales).transpose(1, 2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    return model
