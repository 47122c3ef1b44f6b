"""What rounding a trained model's matrices costs: top-1 agreement with float32 and perplexity over a text, teacher-forced.

    python tests/benchmarks/engine_rounding.py FOLDER [TEXT] [--device cuda:0]

FOLDER: a model that `%infer pool start` has converted (SmolLM2's weights come in four bits and are widened there). TEXT: a file; by default the
project's README. On CPU eight bits are multiplied as the reference multiplies them. int4: each group of 64 columns of the layers' matrices rounded
to the nearest of 16 steps between its least and largest number, as a file of four bits without calibration would have it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from tokenizers import Tokenizer

from holynb.pool.engine.cache import allocate_kv
from holynb.pool.engine.eager import forward_batch
from holynb.pool.engine.load import load, open_safetensors
from holynb.pool.engine.model import Decoder
from holynb.pool.engine.sequence import PrefillChunk, Seq
from holynb.pool.fit import Mesh, plan, read_spec
from holynb.pool.protocol import Job
from kernels_support.gpu.int4_matrix import dequantize, pack

PAGE, PIECE = 16, 512


def logits(folder: Path, pieces: list[list[int]], dtype: str, kv_dtype: str | None = None) -> Any:
    """Of every position but the first of each piece."""
    plain = plan.with_kv(read_spec(folder), kv_dtype)
    spec, kind = plan.started(plain, dtype, cpu=False), torch.float32 if dtype in {"float32", "fp8", "int4"} else getattr(torch, dtype)
    with open_safetensors(folder) as source, torch.inference_mode():
        model = Decoder(spec, load(spec, Mesh().shard(spec), source, "cpu", kind), PIECE)
        if dtype == "int4":
            for layer in model.weights.layers:
                for name in ("qkv", "out", "gate_up", "down"):
                    setattr(layer, name, fours(getattr(layer, name)))
        kv = allocate_kv((spec.layers, spec.kv_heads, PIECE, spec.head_dim), torch.float8_e4m3fn if kv_dtype else kind, "cpu")
        found = []
        for ids in pieces:
            seq = Seq(Job(0, tuple(ids), 1))
            seq.blocks = list(range(-(-len(ids) // PAGE)))
            seq.tables = [seq.blocks]
            batch = forward_batch([PrefillChunk(seq, 0, len(ids))], PAGE, spec.heads // spec.kv_heads, kind)
            batch.last = None
            found.append(model.forward(batch, kv)[:-1].float())
        return torch.cat(found)


def fours(weight: Any, group: int = 64) -> Any:
    """Widened again: a CPU has no product of fours here."""
    parts = weight.view(len(weight), -1, group)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    numbers = ((parts / scale[..., None]).round() + zero[..., None]).clamp(0, 15).int().view(weight.shape)
    return dequantize(pack(numbers, scale.t(), zero.t()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path, nargs="?", default=Path(__file__).parents[2] / "README.md")
    parser.add_argument("--tokens", type=int, default=2048)
    given = parser.parse_args()
    ids = Tokenizer.from_file(str(given.folder / "tokenizer.json")).encode(given.text.read_text("utf-8")).ids[: given.tokens]
    pieces = [ids[i : i + PIECE] for i in range(0, len(ids), PIECE)]
    truth = torch.tensor([token for piece in pieces for token in piece[1:]])
    exact = logits(given.folder, pieces, "float32")
    print(f"{given.folder.name}, {len(truth):,} tokens of {given.text.name}")
    for dtype, kv in (
        ("float32", None),
        ("float32", "fp8"),
        ("bfloat16", None),
        ("bfloat16", "fp8"),
        ("fp8", None),
        ("fp8", "fp8"),
        ("int4", None),
    ):
        ours = exact if (dtype, kv) == ("float32", None) else logits(given.folder, pieces, dtype, kv)
        agree = (ours.argmax(-1) == exact.argmax(-1)).float().mean().item()
        perplexity = torch.nn.functional.cross_entropy(ours, truth).exp().item()
        wrong = ((ours - exact).norm() / exact.norm()).item()
        print(
            f"  {dtype:9} {f'--kv {kv}' if kv else '':8} top-1 as float32 {agree:.4f}  perplexity {perplexity:.3f}  relative error of logits {wrong:.2e}"
        )


if __name__ == "__main__":
    main()
