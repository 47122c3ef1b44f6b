"""vLLM on random weights of the Qwen3 shapes and gpt-oss-20b's: the peer's figures for the work of engine_gpu.py, temperature 0.6, end token ignored.

    python tests/benchmarks/engine_vllm.py [--size 0.6b|8b|30b-a3b|gpt-oss-20b] [--work one,64,256,mixed]
        [--tp N] [--pp N] [--quantization fp8]

Runs in an environment of vLLM's own, on the same card and in the same hour as ours. Rates count new tokens over the whole call, prefill included.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time

SHAPE = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "eos_token_id": 151645,
    "bos_token_id": 151643,
}
WARM_UP = [(64, 16)] * 8
SIZES = {
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
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "gpt-oss-20b": {
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "head_dim": 64,
        "vocab_size": 201088,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "max_position_embeddings": 131072,
        "eos_token_id": 200002,
        "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4"},
    },
}
#: Prompt and new tokens of each row, as engine_gpu.py's.
Work = list[tuple[int, int]]


def works() -> dict[str, Work]:
    chance = random.Random(0)
    mixed = [(chance.randint(100, 1024), chance.randint(100, 1024)) for _ in range(256)]
    return {"one": [(128, 256)], "64": [(128, 128)] * 64, "256": [(128, 128)] * 256, "1000": [(1000, 1000)] * 256, "mixed": mixed}


def folder(size: str) -> str:
    """A config.json of this shape."""
    from transformers import GptOssConfig, Qwen3Config, Qwen3MoeConfig

    if size == "gpt-oss-20b":
        kind, architecture = GptOssConfig, "GptOssForCausalLM"
    elif "num_experts" in SIZES[size]:
        kind, architecture = Qwen3MoeConfig, "Qwen3MoeForCausalLM"
    else:
        kind, architecture = Qwen3Config, "Qwen3ForCausalLM"
    config = kind(**SHAPE | SIZES[size])  # type: ignore[arg-type]
    config.architectures, config.torch_dtype = [architecture], "bfloat16"
    place = tempfile.mkdtemp(prefix=f"vllm-{size}-")
    config.save_pretrained(place)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--pp", type=int, default=1)
    parser.add_argument("--quantization")
    parser.add_argument("--work", default="one,64,256,mixed")
    args = parser.parse_args()
    os.environ |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

    from vllm import LLM, SamplingParams

    begin = time.perf_counter()
    llm = LLM(
        folder(args.size),
        load_format="dummy",
        skip_tokenizer_init=True,
        tensor_parallel_size=args.tp,
        pipeline_parallel_size=args.pp,
        max_model_len=4096,
        quantization=args.quantization,
        dtype="bfloat16",
        gpu_memory_utilization=0.85,
        disable_log_stats=True,
    )
    print(
        f"vllm {args.size} tp {args.tp} pp {args.pp} {args.quantization or 'bfloat16'}: ready after {time.perf_counter() - begin:.1f} s",
        flush=True,
    )
    chance = random.Random(0)
    wanted = args.work.split(",")
    for name, rows in [("warm", WARM_UP), *((name, works()[name]) for name in wanted)]:
        prompts = [{"prompt_token_ids": [chance.randrange(1000, 150000) for _ in range(length)]} for length, _ in rows]
        sampling = [SamplingParams(temperature=0.6, ignore_eos=True, max_tokens=new, detokenize=False) for _, new in rows]
        begin = time.perf_counter()
        made = sum(len(done.outputs[0].token_ids) for done in llm.generate(prompts, sampling, use_tqdm=False))
        took = time.perf_counter() - begin
        print(
            f"  {name}: {made} tokens in {took:.2f} s, {made / took:,.0f} tok/s, {took / max(new for _, new in rows) * 1e3:.2f} ms a step",
            flush=True,
        )


if __name__ == "__main__":
    main()
