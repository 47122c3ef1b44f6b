"""How far bfloat16 logits are from float32, ours beside plain torch's: is an error the engine's, or what bfloat16 costs any engine?

    python tests/benchmarks/engine_logits.py [--sizes tiny,0.6b,8b] [--device cuda:0] [--folder FOLDER]

Random weights of the Qwen3 shapes, or the weights of FOLDER; 200 random tokens, logits of the last 64. "plain" is a forward pass written
down here in torch alone, with the roundings that transformers has; float32 runs a layer at a time over the same bfloat16 weights, so that
8B fits beside itself. With FOLDER, transformers' own bfloat16 forward stands beside them where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from engine_gpu import SIZES, folder
from torch.nn.functional import scaled_dot_product_attention, silu

from holynb.pool.engine.cache import allocate_kv
from holynb.pool.engine.load import load, open_safetensors, random_weights
from holynb.pool.engine.model import Decoder, ForwardBatch, Layer, Weights
from holynb.pool.engine.rope import rope_table
from holynb.pool.engine.sequence import PrefillChunk, Seq
from holynb.pool.fit.mesh import Mesh
from holynb.pool.fit.spec import Spec, read_spec
from holynb.pool.protocol import Job

LENGTH, LAST, PAGE = 200, 64, 16
SIZES["tiny"] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "tie_word_embeddings": False,
    "vocab_size": 4096,
}


def normed(x: Any, weight: Any, eps: float) -> Any:
    """As transformers: the mean in float32, rounded before the weight."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def turned(x: Any, cos: Any, sin: Any) -> Any:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def plain(spec: Spec, weights: Weights, ids: Any, dtype: Any) -> tuple[Any, list[Any]]:
    """Logits of the last rows, and the stream after each layer. Nothing of ours but the weights and the table of angles."""
    size, group = spec.head_dim, spec.heads // spec.kv_heads
    table = rope_table(spec, LENGTH).to(ids.device).to(dtype)
    cos, sin = (torch.cat((t, t), -1)[:, None] for t in table.chunk(2, -1))
    x, after = weights.embed[ids].to(dtype), []
    for fused in weights.layers:
        w = Layer(**{f.name: None if (t := getattr(fused, f.name)) is None else t.to(dtype) for f in fields(Layer)})
        h = normed(x, w.norm, spec.eps)
        qkv = torch.nn.functional.linear(h, w.qkv, w.qkv_bias).view(LENGTH, -1, size)
        q, k, v = qkv.split((spec.heads, spec.kv_heads, spec.kv_heads), 1)
        if w.q_norm is not None:
            q, k = normed(q, w.q_norm, spec.eps), normed(k, w.k_norm, spec.eps)
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        a = (
            scaled_dot_product_attention(*(t.transpose(0, 1)[None] for t in (q, k, v)), is_causal=True)[0]
            .transpose(0, 1)
            .reshape(LENGTH, -1)
        )
        x = x + torch.nn.functional.linear(a, w.out, w.out_bias)
        gate, up = torch.nn.functional.linear(normed(x, w.mlp_norm, spec.eps), w.gate_up, w.gate_up_bias).chunk(2, -1)
        x = x + torch.nn.functional.linear(silu(gate) * up, w.down, w.down_bias)
        after.append(x[-LAST:].float())
    return torch.nn.functional.linear(normed(x[-LAST:], weights.norm.to(dtype), spec.eps), weights.head.to(dtype)).float(), after


def ours(spec: Spec, weights: Weights, ids: Any) -> Any:
    """The engine's forward pass: kernels on a GPU, the plain side of each on CPU. One whole chunk."""
    from holynb.pool.engine.eager import forward_batch

    device, blocks = ids.device, -(-LENGTH // PAGE)
    kv = allocate_kv((spec.layers, spec.kv_heads, 64 * PAGE, spec.head_dim), torch.bfloat16, str(device))
    model, last = Decoder(spec, weights, LENGTH), torch.arange(LENGTH - LAST, LENGTH, device=device)
    if device.type == "cpu":
        seq = Seq(Job(0, tuple(ids.tolist()), 1))
        seq.blocks = list(range(blocks))
        seq.tables = [seq.blocks]
        part = forward_batch([PrefillChunk(seq, 0, LENGTH)], PAGE, spec.heads // spec.kv_heads, kv.dtype)
        part.last = last
    else:
        from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Prefill

        tiles = torch.tensor([(0, t) for t in range(0, LENGTH, PREFILL_TILE_QUERIES)], dtype=torch.int32, device=device)
        spans = torch.tensor([(0, LENGTH, LENGTH)], dtype=torch.int32, device=device)
        where = torch.arange(LENGTH, device=device, dtype=torch.int32)
        table = torch.arange(blocks, dtype=torch.int32, device=device)[None]
        part = ForwardBatch(ids.int(), where, where.clone(), Prefill(table, tiles, spans, PAGE), last)
    return model.forward(part, kv).float()


def theirs(path: Path, ids: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(ids.device).eval()
    return model(ids[None]).logits[0, -LAST:].float()


def measure(spec: Spec, weights: Weights, device: str, path: Path | None) -> dict[str, float]:
    ids = torch.randint(0, spec.vocab, (LENGTH,), generator=torch.Generator().manual_seed(1)).to(device)
    truth, exact = plain(spec, weights, ids, torch.float32)
    beside, rough = plain(spec, weights, ids, torch.bfloat16)
    made = ours(spec, weights, ids)

    def off(a: Any, b: Any) -> float:
        return float((a - b).norm() / b.norm())

    found = {"ours vs float32": off(made, truth), "plain bf16 vs float32": off(beside, truth), "ours vs plain bf16": off(made, beside)}
    if path is not None:
        with contextlib.suppress(ImportError):
            found["transformers bf16 vs float32"] = off(theirs(path, ids), truth)
    at = sorted({0, spec.layers // 4, spec.layers // 2, spec.layers - 1})
    found |= {f"plain bf16 after layer {i + 1}": off(rough[i], exact[i]) for i in at}
    found["ours / plain"] = found["ours vs float32"] / found["plain bf16 vs float32"]
    found["same first choice, ours"] = float((made.argmax(-1) == truth.argmax(-1)).float().mean())
    found["same first choice, plain bf16"] = float((beside.argmax(-1) == truth.argmax(-1)).float().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="0.6b,8b")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="a model's own weights instead")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, torch.inference_mode():
        for size in [str(said.folder)] if said.folder else said.sizes.split(","):
            begin, path = time.perf_counter(), said.folder or folder(size, Path(root))
            spec = read_spec(path)
            if said.folder:
                with open_safetensors(path) as source:
                    weights = load(spec, Mesh().shard(spec), source, said.device, torch.bfloat16)
            else:
                weights = load(spec, Mesh().shard(spec), random_weights(spec, said.device, torch.bfloat16), said.device, torch.bfloat16)
            found = measure(spec, weights, said.device, said.folder)
            print(
                f"{size}, {time.perf_counter() - begin:.0f} s",
                *(f"  {k:32} {v:.2e}" if v < 0.5 else f"  {k:32} {v:.2f}" for k, v in found.items()),
                sep="\n",
            )
            assert found["ours / plain"] < 1.25, "the engine loses more than bfloat16 does"
            del weights


if __name__ == "__main__":
    main()
