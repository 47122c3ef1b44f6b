"""The engine on one GPU: checks first, then the table of rates. Random weights of the Qwen3 shapes, dense and with experts, bfloat16, temperature 0.6, end token ignored.

    python tests/benchmarks/engine_gpu.py [--sizes 0.6b,8b,30b-a3b] [--dtypes bfloat16,fp8] [--kv fp8] [--work one,64,256,mixed] [--start] [--profile] [--out FILE]

Rates count new tokens over the whole call, prefill included; "128/256" is prompt tokens / new tokens. Graphs are captured before the clock starts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
    },
    "gpt-oss-20b": {
        "architectures": ["GptOssForCausalLM"],
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "head_dim": 64,
        "vocab_size": 201088,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "max_position_embeddings": 131072,
        "rope_theta": 150000.0,
        "eos_token_id": 200002,
        "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4"},
    },
}
#: Two layers, of which errors tell more: rounding has not chosen other experts often yet.
SIZES["gpt-oss-2-layers"] = SIZES["gpt-oss-20b"] | {"num_hidden_layers": 2}
COMMON = {
    "architectures": ["Qwen3ForCausalLM"],
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "dtype": "bfloat16",
    "eos_token_id": 151645,
}

#: Prints one line of JSON: the seconds since the process started at which each part was done, and those of parts inside them.
START = """
import json, sys, time
begin, parts = float(sys.argv[2]), {}

def done(part):
    parts[part] = round(time.time() - begin, 2)

def timed(owner, name, part):
    whole = getattr(owner, name)

    def wrapped(*args, **options):
        at = time.time()
        try:
            return whole(*args, **options)
        finally:
            parts[part] = round(parts.get(part, 0) + time.time() - at, 2)

    setattr(owner, name, wrapped)

done("python")
import torch
done("torch")
torch.zeros(1, device="cuda:0")
done("context")
from pathlib import Path
from holynb.pool.engine import capture, graphs, load, precompile, runner
from holynb.pool.protocol import Job
done("engine")
timed(runner.Runner, "_precompile", "of it recording kernels")
timed(load, "load", "of it weights")
timed(precompile.Precompiler, "wait", "of it waiting for kernels")
timed(capture.Capture, "__call__", "of it the first graphs")
ready = runner.Runner(Path(sys.argv[1]), device="cuda:0", max_len=2112)
done("loaded")
ready.add(Job(0, tuple(range(5, 133)), 8, 0.6, ignore_eos=True))
while not any(e.tokens for e in ready.step()):
    pass
done("first token")
print(json.dumps(parts))
"""


def folder(size: str, root: Path) -> Path:
    path = root / size
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(COMMON | SIZES[size]))
    return path


def lengths(work: str) -> list[tuple[int, int]]:
    dice = random.Random(0)
    return {
        "one": [(128, 256)],
        "64": [(128, 128)] * 64,
        "256": [(128, 128)] * 256,
        "512": [(128, 128)] * 512,
        "1000": [(1000, 1000)] * 256,
        "mixed": [(dice.randint(100, 1024), dice.randint(100, 1024)) for _ in range(256)],
    }[work]


def rate(runner: Any, pairs: list[tuple[int, int]], seed: int) -> dict[str, float]:
    from holynb.pool.protocol import Job

    dice, vocab = random.Random(seed), runner.spec.vocab
    asked = [Job(i, tuple(dice.randrange(vocab) for _ in range(p)), n, 0.6, seed=i, ignore_eos=True) for i, (p, n) in enumerate(pairs)]
    before, begin = runner.scheduler.tokens_out, time.perf_counter()
    for job in asked:
        runner.add(job)
    steps, first = 0, 0.0
    while not runner.idle:
        said = runner.step()
        steps += 1
        if not first and any(e.tokens for e in said):
            first = time.perf_counter() - begin
    wall, new = time.perf_counter() - begin, runner.scheduler.tokens_out - before
    assert new == sum(n for _, n in pairs), "every token, once"
    return {"tok_s": new / wall, "wall_s": wall, "ms_step": (wall - first) / max(1, steps - 1) * 1e3, "ttft_s": first, "steps": steps}


def made(spec: Any, device: str) -> Any:
    """Random weights of the model's shapes; experts that lie in MXFP4 as numbers and scales."""
    import torch

    from holynb.pool.engine.load import random_weights

    plain, dice, (hidden, experts) = (
        random_weights(spec, device, torch.bfloat16),
        torch.Generator(device).manual_seed(1),
        (spec.hidden, spec.experts),
    )
    if experts is None or not experts.stacked:
        return plain

    def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Any:
        kind, count = name.rsplit(".", maxsplit=1)[-1], rows[1] - rows[0] if rows else experts.count
        n, k = (hidden, experts.inner) if kind.startswith("down") else (2 * experts.inner, hidden)
        if kind.endswith("_blocks"):
            return torch.randint(0, 256, (count, n, k // 32, 16), dtype=torch.uint8, device=device, generator=dice)
        # Numbers of 0.003: of 0.02, as attention's, the experts alone make the stream, and rounding decides who is chosen.
        if kind.endswith("_scales"):
            return torch.randint(116, 119, (count, n, k // 32), dtype=torch.uint8, device=device, generator=dice)
        shapes = {"sinks": (rows[1] - rows[0] if rows else spec.heads,), "gate_up_proj_bias": (count, n), "down_proj_bias": (count, n)}
        shape = ((experts.count, hidden) if kind == "weight" else (experts.count,)) if ".router." in name else shapes.get(kind)
        if shape is None:
            return plain(name, rows, columns)
        return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(std=0.02, generator=dice)

    return read


def widened(value: Any) -> Any:
    """Weights in float32."""
    import torch

    from kernels_support.gpu import mxfp4_matrix
    from kernels_support.gpu.experts import Experts
    from kernels_support.gpu.fp8_matrix import Fp8Matrices, Fp8Matrix, dequantize

    if isinstance(value, Experts):
        return replace(
            value,
            **{
                f.name: widened(own)
                for f in fields(value)
                if f.name not in ("top", "renormalize", "gating")
                for own in [getattr(value, f.name)]
            },
        )
    if isinstance(value, Fp8Matrices):
        return torch.stack([dequantize(value[e]) for e in range(value.shape[0])])
    if isinstance(value, mxfp4_matrix.Mxfp4Matrices):
        return torch.stack([mxfp4_matrix.dequantize(value, e) for e in range(value.shape[0])])
    return dequantize(value) if isinstance(value, Fp8Matrix) else None if value is None else value.float()


class Widened:
    """A model's layers in float32, each only while it is looked at: of 30 billion weights all of them would not fit beside the others."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Any:
        layer = self.layers[i]
        return type(layer)(**{f.name: widened(getattr(layer, f.name)) for f in fields(layer)})


def errors(runner: Any) -> dict[str, float]:
    """Relative error of bfloat16 logits by the kernels against the same weights in float32 by plain torch: whole, in chunks, token by token."""
    import torch

    from holynb.pool.engine.model import Decoder, ForwardBatch, Weights
    from kernels_support.gpu.attention import Span, attend_reference, causal, runs
    from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, Prefill

    # Of one group of layers, whatever groups the runner's cache has: the same weights, and a cache as small as it can be.
    w, like, device, page, length = runner.executor.model.weights, runner.executor.kv, runner.device, runner.blocks.size, 200
    model = Decoder(runner.spec, w, 2112)
    kv = torch.zeros(len(w.layers), 2, like.shape[2], 64 * page, like.shape[4], dtype=like.dtype, device=device)
    blocks = torch.randperm(60)[: -(-length // page)].tolist()
    table = torch.zeros(1, runner.executor.width, dtype=torch.int32, device=device)
    table[0, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
    ids = torch.randint(0, runner.spec.vocab, (length,), device=device, dtype=torch.int32)

    def slots(a: int, b: int) -> Any:
        return torch.tensor([blocks[i // page] * page + i % page for i in range(a, b)], dtype=torch.int32, device=device)

    def prefill(a: int, b: int) -> Any:
        tiles = torch.tensor([(0, t) for t in range(0, b - a, PREFILL_TILE_QUERIES)], dtype=torch.int32, device=device)
        spans = torch.tensor([(0, b - a, b)], dtype=torch.int32, device=device)
        where = torch.arange(a, b, device=device, dtype=torch.int32)
        return model.forward(
            ForwardBatch(ids[a:b], where, slots(a, b), Prefill(table, tiles, spans, page), torch.tensor([b - a - 1], device=device)), kv
        )

    def decode(i: int, parts: int) -> Any:
        where = torch.tensor([i], device=device, dtype=torch.int32)
        return model.forward(ForwardBatch(ids[i : i + 1], where, slots(i, i + 1), Decode(table, where + 1, page, parts)), kv)

    with torch.inference_mode():
        wide = Weights(Widened(w.layers), w.embed.float(), w.norm.float(), w.head.float())
        plain, group = Decoder(runner.spec, wide, 512), runner.spec.heads // runner.spec.kv_heads
        spans = {
            window: [Span(0, length, runs(blocks, page, length), causal(length, length, group, torch.float32, device, window))]
            for window in plain.windows[0]
        }
        cache = torch.zeros(kv.shape[0], 2, kv.shape[2], 64 * page, kv.shape[4], device=device)
        where = torch.arange(length, device=device)
        truth = plain.forward(
            ForwardBatch(
                ids,
                where,
                slots(0, length),
                lambda q, k, v, scales, kind: attend_reference(q, k, v, scales, kind, spans=spans[kind.window]),
                torch.tensor([length - 1], device=device),
            ),
            cache,
        )
        del wide, plain, cache
        said = {"whole": prefill(0, length)}
        kv[:, :, :, : 64 * page].fill_(float("nan"))
        prefill(0, 70), prefill(70, 71)
        said["chunked"] = prefill(71, length)
        kv[:, :, :, : 64 * page].fill_(float("nan"))
        prefill(0, 150)
        for i in range(150, length):
            said["decoded"] = decode(i, 1 + 7 * (i % 2))
        alone = said["decoded"]
        many = 64
        where = torch.full((many,), length - 1, device=device, dtype=torch.int32)
        last = ForwardBatch(
            ids[-1:].expand(many).contiguous(),
            where,
            torch.full_like(where, -1),
            Decode(table.expand(many, -1).contiguous(), where + 1, page, 1),
        )
        said["batch of 64"] = model.forward(last, kv)[17:18]
    found = {k: ((v.float() - truth).norm() / truth.norm()).item() for k, v in said.items()}
    return found | {"batch of 64 vs 1": ((said["batch of 64"].float() - alone.float()).norm() / alone.float().norm()).item()}


def replay(runner: Any, size: int, context: int) -> float:
    """Milliseconds of one captured decode step on the device alone, `size` rows of `context` tokens."""
    import torch

    engine = runner.executor
    width = -(-context // runner.blocks.size)
    table = torch.arange(size * width, dtype=torch.int32).view(size, width) % runner.blocks.total
    engine.decode_table[:size, :width].copy_(table)
    inputs = torch.zeros(4, size, dtype=torch.int32)
    inputs[0], inputs[2], inputs[3] = torch.arange(size), context - 1, -1
    engine.decode_inputs[: 4 * size].copy_(inputs.view(-1))
    engine.decode_sampling.zero_()
    engine.decode_sampling[0].view(torch.float32).fill_(0.6)
    engine.decode_sampling[1].view(torch.float32).fill_(1.0)
    graph = engine.graph(size)
    for _ in range(3):
        graph()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(20):
        graph()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 20


def kernels(runner: Any, size: int) -> list[tuple[str, int, float]]:
    """(name, launches, ms) of one decode step of `size` rows, by the profiler, longest first."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    graph = runner.executor.graph(size)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        graph()
        torch.cuda.synchronize()
    rows = [(e.key[:70], e.count, e.device_time_total / 1e3) for e in seen.key_averages() if e.device_time_total > 0]
    return sorted(rows, key=lambda r: -r[2])[:12]


def write(path: Path, device: str = "cuda:0") -> None:
    """Random weights of the model in `path`, beside its config.json."""
    import torch
    from safetensors.torch import save_file

    from holynb.pool.engine.load import random_weights
    from holynb.pool.fit.spec import read_spec

    spec = read_spec(path)
    source = random_weights(spec, device, torch.bfloat16)
    names = ["model.embed_tokens.weight", "model.norm.weight"] + ([] if spec.tied else ["lm_head.weight"])
    for i in range(spec.layers):
        names += [f"model.layers.{i}.{n}.weight" for n in ("input_layernorm", "post_attention_layernorm")]
        names += [f"model.layers.{i}.self_attn.{n}.weight" for n in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")]
        names += [f"model.layers.{i}.mlp.{n}.weight" for n in ("gate_proj", "up_proj", "down_proj")]
    save_file({n: t.cpu() for n in names if (t := source(n)) is not None}, path / "model.safetensors")


def starts(path: Path) -> dict[str, Any]:
    """Process start to first token, weights on disk: first with no compiled kernels, then with them."""
    import os

    write(path)
    env = os.environ | {"TRITON_CACHE_DIR": tempfile.mkdtemp(), "PYTHONPATH": "."}
    found = {}
    for which in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", START, str(path), str(time.time())], env=env, capture_output=True, text=True, check=False
        )
        found[which] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr[-800:]
    (path / "model.safetensors").unlink()
    return found


def measure(size: str, dtype: str, said: argparse.Namespace, root: Path) -> dict[str, Any]:
    import torch

    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.spec import read_spec

    path, found = folder(size, root), {}
    if said.start:
        found["start"] = starts(path)
        for which, parts in found["start"].items():
            print(size, which, "start, s:", parts, flush=True)
    torch.cuda.empty_cache()
    begin = time.perf_counter()
    source = made(read_spec(path), "cuda:0")
    runner = Runner(path, device="cuda:0", dtype=dtype, max_len=2112, kv=said.kv, source=source)
    found["ready_s"] = time.perf_counter() - begin
    rate(runner, [(128, 2)], 0)
    found["first_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    found["graphs"], found["capture_s"] = runner.warm(), time.perf_counter() - begin
    found["peak_gb"], found["stats"] = torch.cuda.max_memory_allocated() / 1e9, runner.stats()
    print(
        size,
        dtype,
        f"ready {found['ready_s']:.1f} s, first answer {found['first_s']:.1f} s, {found['graphs']} graphs {found['capture_s']:.1f} s, peak {found['peak_gb']:.1f} GB",
        flush=True,
    )
    found["errors"] = errors(runner)
    print(size, "relative errors:", {k: f"{v:.1e}" for k, v in found["errors"].items()}, flush=True)
    for work in said.work.split(","):
        rate(runner, [(p, min(n, 8)) for p, n in lengths(work)][:64], 1)
        found[work] = max((rate(runner, lengths(work), 2 + i) for i in range(said.rounds)), key=lambda r: r["tok_s"])
        print(size, work, {k: round(v, 3) for k, v in found[work].items()}, flush=True)
    found["replay"] = {f"{b} x {c}": replay(runner, b, c) for b, c in ((1, 256), (64, 192), (256, 192), (256, 1024))}
    print(size, "graph alone, ms:", {k: round(v, 3) for k, v in found["replay"].items()}, flush=True)
    if said.profile:
        for b in (1, 256):
            replay(runner, b, 192)
            found[f"kernels {b}"] = kernels(runner, b)
            print(
                size,
                f"kernels of a step of {b}:",
                *(f"\n   {ms:8.3f} ms {n:4d} x {name}" for name, n, ms in found[f"kernels {b}"]),
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="0.6b,8b")
    parser.add_argument("--dtypes", default="bfloat16")
    parser.add_argument("--work", default="one,64,256,mixed")
    parser.add_argument("--kv", help="fp8: keys and values in eight bits")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    import torch

    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as root:
        for size, dtype in itertools.product(said.sizes.split(","), said.dtypes.split(",")):
            found[f"{size} {dtype}"] = measure(size, dtype, said, Path(root))
            if said.out:
                said.out.write_text(json.dumps(found, indent=1, default=str))
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
