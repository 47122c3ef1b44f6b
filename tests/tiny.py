"""Tiny random models of every family, as transformers makes them, and what transformers answers with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Read when torch loads: tests share their cores, and tiny products gain nothing from threads that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FAMILIES = ("llama", "llama3", "mistral", "qwen2", "qwen3", "qwen3-tied", "llama-bias", "qwen3-moe", "mixtral")

#: Those with switches of their own (`fit/families.py`).
MORE_FAMILIES = (
    *("mistral-windows", "qwen2-windows", "gemma2", "gemma3", "gemma3-linear", "phi3", "phi3-windows", "phi3-partial"),
    *("olmo2", "olmo3", "granite", "smollm3", "gpt-oss"),
)

#: Of those with windows; prompts are longer.
WINDOW = 24

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}


#: The second layer has a whole MLP.
EXPERTS: dict[str, Any] = {
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
}


#: Gate and up reach their limit; positions are stretched without rounding.
GPT_OSS: dict[str, Any] = {
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "swiglu_limit": 1.5,
    "swiglu_alpha": 1.9,
    "pad_token_id": 0,
    "rope_parameters": {
        "rope_type": "yarn",
        "factor": 8.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
        "rope_theta": 1500.0,
    },
}


def config(family: str, **more: Any) -> Any:
    """The transformers config of a tiny model."""
    import transformers as t

    sizes = SIZES | more

    windows = {"sliding_window": WINDOW}
    scales = {"embedding_multiplier": 3.0, "residual_multiplier": 0.6, "attention_multiplier": 0.2, "logits_scaling": 2.5}
    linear = {"sliding_attention": {"rope_theta": 100.0}, "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e3}}
    yarn = {"sliding_attention": {"rope_type": "default"}, "full_attention": {"rope_type": "yarn", "factor": 4.0}}
    gemma = {**sizes, **windows, "head_dim": 16, "query_pre_attn_scalar": 24}
    makers: dict[str, Any] = {
        "llama": lambda: t.LlamaConfig(**sizes | {"tie_word_embeddings": True}),
        "llama3": lambda: t.LlamaConfig(**sizes, rope_parameters=LLAMA3, head_dim=16),
        "llama-bias": lambda: t.LlamaConfig(**sizes, attention_bias=True, mlp_bias=True),
        "mistral": lambda: t.MistralConfig(**sizes, sliding_window=None, head_dim=8),
        "qwen2": lambda: t.Qwen2Config(**sizes),
        "qwen3": lambda: t.Qwen3Config(**sizes, head_dim=32),
        "qwen3-tied": lambda: t.Qwen3Config(**sizes | {"tie_word_embeddings": True, "num_key_value_heads": 2}, head_dim=16),
        "qwen3-moe": lambda: t.Qwen3MoeConfig(**EXPERTS | sizes, head_dim=32),
        "mixtral": lambda: t.MixtralConfig(**sizes, num_local_experts=6, num_experts_per_tok=2, sliding_window=None),
        "mistral-windows": lambda: t.MistralConfig(**sizes, **windows, head_dim=8),
        "qwen2-windows": lambda: t.Qwen2Config(**sizes, **windows, use_sliding_window=True, max_window_layers=2),
        "gemma2": lambda: t.Gemma2Config(**gemma, attn_logit_softcapping=3.0, final_logit_softcapping=2.0),
        "gemma3": lambda: t.Gemma3TextConfig(**gemma, layer_types=["sliding_attention", "full_attention"] * 2),
        "gemma3-linear": lambda: t.Gemma3TextConfig(**gemma | {"num_hidden_layers": 7}, rope_parameters=linear),
        "phi3": lambda: t.Phi3Config(**sizes, pad_token_id=0),
        "phi3-windows": lambda: t.Phi3Config(**sizes, **windows, pad_token_id=0),
        "phi3-partial": lambda: t.Phi3Config(
            **sizes | {"num_attention_heads": 4, "num_key_value_heads": 2, "original_max_position_embeddings": 64, "pad_token_id": 0},
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1000.0,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
                "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
                "original_max_position_embeddings": 64,
            },
        ),
        "olmo2": lambda: t.Olmo2Config(**sizes),
        "olmo3": lambda: t.Olmo3Config(**sizes, **windows, rope_parameters={k: {**v, "rope_theta": 900.0} for k, v in yarn.items()}),
        "granite": lambda: t.GraniteConfig(**sizes, **scales),
        "gpt-oss": lambda: t.GptOssConfig(**GPT_OSS | windows | sizes, head_dim=16),
        "smollm3": lambda: t.SmolLM3Config(**sizes, no_rope_layers=[1, 0, 1, 1], pad_token_id=0),
    }
    return makers[family]()


def make(family: str, folder: Path, *, shard: str | None = None, **more: Any) -> Any:
    """A random model in `folder` (cut into files of `shard` bytes), its sizes SIZES but for `more`; returns transformers' own, for answers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config(family, **more), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms and biases as trained models have them: not all alike, or a swapped one would not be seen.
            if weight.dim() == 1:
                weight.copy_(torch.randn_like(weight) * 0.2 + ("norm" in name))
            else:
                weight.mul_(6)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    return model


def talking(folder: Path) -> Path:
    """A model folder of the tiny llama with a tokenizer of bytes: what a pool of the real runner serves."""
    from pool_fake import byte_model

    byte_model(folder)
    (folder / "model.safetensors").unlink()
    make("llama", folder)
    return folder


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """`count` tokens after `ids`, one full pass a token: the plainest reference there is."""
    import torch

    with torch.no_grad():
        made: list[int] = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(ids) :].tolist()
    return made


def prompts(count: int, vocab: int = 320, longest: int = 60) -> list[list[int]]:
    """Prompts of different lengths, the same every time."""
    import random

    dice = random.Random(3)
    return [[dice.randrange(3, vocab) for _ in range(dice.randrange(1, longest))] for _ in range(count)]
