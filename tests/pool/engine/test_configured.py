"""What a config.json says is computed as transformers computes it, field by field, for every family that has the field: log
probabilities of a whole prompt and the tokens after it, in float32. What is not computed is refused by name.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny

from holynb.pool.engine.runner import Runner
from holynb.pool.fit import check_shapes, read_spec
from holynb.pool.fit.spec import UnknownModel, parse_spec
from holynb.pool.modelfields import ModelField, fields_of
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KINDS = {"Llama": "llama", "Mistral": "mistral", "Qwen2": "qwen2", "Qwen3": "qwen3", "Qwen3Moe": "qwen3_moe", "Mixtral": "mixtral"}
MORE_KINDS = {"Gemma2": "gemma2", "Gemma3": "gemma3_text", "Phi3": "phi3", "Olmo3": "olmo3", "Granite": "granite", "SmolLM3": "smollm3"}
SIZES = {**tiny.SIZES, "num_hidden_layers": 2, "head_dim": 8, "max_position_embeddings": 160}
PROMPT = tiny.prompts(1, longest=2)[0] * 3 + [7 + 11 * i % 300 for i in range(90)]
NEW = 4

#: What a family has besides.
OWN: dict[str, dict[str, Any]] = {
    "Qwen3Moe": {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40},
    "Mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2},
}

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "llama3 of the context": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn of the context": {"type": "yarn", "factor": 2.0},
    "yarn, its betas": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8.0, "beta_slow": 2.0},
    "yarn, its attention": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 0.7},
    "yarn, its scales": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn, not rounded": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "truncate": False},
    "longrope of one set": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5, 3.0, 8.0],
        "long_factor": [1.0, 1.5, 3.0, 8.0],
        "attention_factor": 1.0,
        "original_max_position_embeddings": 64,
    },
}
WINDOW = {"sliding_window": 32, "use_sliding_window": True}
SLIDING = {"sliding_window": 32}

#: What is set, in which families, and what its config.json says; `...`: a field that is left out.
CASES: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("Llama Mistral Qwen2 Qwen3", f"rope_parameters {name}", {"rope_parameters": ROPES[name]})
        for name in ("default", "linear", "llama3", "yarn")
    ),
    *(("Llama", f"rope_parameters {name}", {"rope_parameters": rope}) for name, rope in ROPES.items() if " " in name),
    (
        "Llama Qwen3",
        "rope_scaling before rope_parameters",
        {"rope_scaling": ROPES["linear"], "rope_parameters": ROPES["yarn"], "rope_theta": 700.0},
    ),
    ("Llama Mistral Qwen2 Qwen3", "rope_theta", {"rope_theta": 300.0}),
    (
        "Llama Qwen2",
        "the context before, beside the rope settings",
        {"rope_scaling": ROPES["yarn"], "original_max_position_embeddings": 48},
    ),
    ("Llama Qwen3", "attention_bias", {"attention_bias": True}),
    ("Qwen2", "attention_bias", {"attention_bias": False}),
    ("Llama", "mlp_bias", {"mlp_bias": True}),
    ("Llama Mistral Qwen2 Qwen3", "tie_word_embeddings", {"tie_word_embeddings": True}),
    ("Llama Mistral Qwen2 Qwen3", "head_dim", {"head_dim": 24}),
    ("Llama Mistral Qwen2", "head_dim left out", {"head_dim": ...}),
    ("Qwen3", "head_dim left out", {"head_dim": ..., "num_attention_heads": 2, "num_key_value_heads": 1}),
    ("Llama Qwen2 Qwen3", "num_key_value_heads null", {"num_key_value_heads": None}),
    ("Llama Mistral", "num_key_value_heads left out", {"num_key_value_heads": ...}),
    ("Llama Mistral Qwen2 Qwen3", "rms_norm_eps", {"rms_norm_eps": 0.05}),
    ("Llama Mistral Qwen2 Qwen3", "rms_norm_eps left out", {"rms_norm_eps": ...}),
    ("Llama Qwen3", "hidden_act", {"hidden_act": "swish"}),
    ("Llama Mistral Qwen2 Qwen3", "vocab_size", {"vocab_size": 640}),
    ("Llama", "windows that the family does not read", WINDOW),
    ("Qwen2 Qwen3", "use_sliding_window false", {"sliding_window": 32, "use_sliding_window": False}),
    ("Qwen2 Qwen3", "max_window_layers", {**WINDOW, "max_window_layers": 2}),
    ("Qwen2 Qwen3", "layer_types", {**WINDOW, "max_window_layers": 0, "layer_types": ["full_attention"] * 2}),
    ("Mistral", "sliding_window null", {"sliding_window": None}),
    ("Qwen3Moe", "num_experts by its newer name", {"num_experts": ..., "num_local_experts": 6}),
    ("Qwen3Moe", "norm_topk_prob", {"norm_topk_prob": True}),
    ("Qwen3Moe", "decoder_sparse_step", {"decoder_sparse_step": 2}),
    ("Qwen3Moe", "mlp_only_layers", {"mlp_only_layers": [0]}),
    ("Qwen3Moe", "attention_bias", {"attention_bias": True}),
    (
        "Qwen3Moe",
        "as Qwen3-Coder has it",
        {"use_qk_norm": True, "qkv_bias": False, "shared_expert_intermediate_size": 0, "use_sliding_window": False},
    ),
    ("Mixtral", "num_local_experts, num_experts_per_tok and moe_intermediate_size, which is another's", {"moe_intermediate_size": 8}),
    ("Qwen3Moe Mixtral", "rms_norm_eps left out", {"rms_norm_eps": ...}),
    ("Mistral Mixtral", "sliding_window", {"sliding_window": 32}),
    ("Qwen3Moe", "use_sliding_window", WINDOW),
    (
        "Qwen3Moe Mixtral",
        "rope_parameters yarn, head_dim and tie_word_embeddings",
        {"rope_parameters": ROPES["yarn"], "head_dim": 24, "tie_word_embeddings": True},
    ),
    ("Qwen3", "layers that slide", {**WINDOW, "layer_types": ["full_attention", "sliding_attention"]}),
    ("Gemma2", "sizes and switches left out", {"num_key_value_heads": ..., "tie_word_embeddings": ..., **SLIDING}),
    ("Gemma2", "caps", {"final_logit_softcapping": None, "attn_logit_softcapping": 4.0, **SLIDING}),
    ("Gemma3", "final_logit_softcapping", {"final_logit_softcapping": 5.0, "hidden_act": "relu", **SLIDING}),
    ("Gemma3", "query_pre_attn_scalar", {"query_pre_attn_scalar": 32, "hidden_activation": "gelu_pytorch_tanh", **SLIDING}),
    ("Gemma3", "rope_local_base_freq", {"rope_local_base_freq": 100.0, "rope_theta": 300.0, "sliding_window_pattern": 2, **SLIDING}),
    ("Gemma3", "rope_scaling of layers that see all", {"rope_scaling": ROPES["linear"], "sliding_window_pattern": 2, **SLIDING}),
    ("Phi3", "partial_rotary_factor", {"partial_rotary_factor": 0.5, "pad_token_id": 0, "head_dim": ...}),
    ("Olmo3", "rope_scaling of layers that see all", {"rope_scaling": ROPES["yarn"], "rope_theta": 700.0, **SLIDING}),
    (
        "Granite",
        "embedding_multiplier, residual_multiplier, attention_multiplier, logits_scaling",
        {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 1.5},
    ),
    ("SmolLM3", "no_rope_layers", {"no_rope_layers": [0, 1], "pad_token_id": 0}),
    ("SmolLM3", "no_rope_layer_interval", {"no_rope_layer_interval": 2, **WINDOW, "pad_token_id": 0}),
    ("Llama", "pretraining_tp", {"pretraining_tp": 2}),
    ("Llama Qwen2", "what generation_config.json alone may say", {"repetition_penalty": 3.0, "suppress_tokens": [5], "do_sample": True}),
]


def folder_of(family: str, change: dict[str, Any], folder: Path) -> Path:
    """A random model whose config.json says just this."""
    said = {"architectures": [f"{family}ForCausalLM"], "model_type": (KINDS | MORE_KINDS)[family], **SIZES, **OWN.get(family, {}), **change}
    if family in ("Mistral", "Mixtral"):
        said.setdefault("sliding_window", None)
    raw = json.dumps({k: v for k, v in said.items() if v is not ...})
    (folder / "config.json").write_text(raw)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + ("norm" in name)) if weight.dim() == 1 else weight.mul_(6)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(raw)
    (folder / "generation_config.json").unlink()
    return folder


def reference(folder: Path) -> tuple[list[float], list[int]]:
    """Log probabilities of the prompt's tokens but the first, and the tokens after it, as transformers has them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = list(PROMPT)
    with torch.no_grad():
        for _ in range(NEW):
            logits = model(torch.tensor([ids])).logits[0]
            ids.append(int(logits[-1].argmax()))
    scores = torch.log_softmax(logits, -1)
    return [float(scores[i, ids[i + 1]]) for i in range(len(PROMPT) - 1)], ids[len(PROMPT) :]


def answered(folder: Path) -> tuple[list[float], list[int]]:
    runner = Runner(folder)
    runner.add(Job(0, tuple(PROMPT), NEW, ignore_eos=True, logprobs=0, prompt_logprobs=True))
    prompt: list[float] = []
    tokens: list[int] = []
    while not runner.idle:
        for emit in runner.step():
            tokens += emit.tokens
            prompt += [score[1] for score in emit.prompt_scores]
    return prompt, tokens


@pytest.mark.parametrize(
    ("family", "change"), [pytest.param(f, change, id=f"{f}, {name}") for families, name, change in CASES for f in families.split()]
)
def test_a_field_says_what_it_says_in_transformers(family: str, change: dict[str, Any], tmp_path: Path) -> None:
    place = folder_of(family, change, tmp_path)
    want, tokens = reference(place)
    came, said = answered(place)
    assert said == tokens
    assert len(came) == len(want)
    assert max(math.fabs(a - b) for a, b in zip(came, want, strict=True)) < 2e-4


@pytest.mark.parametrize("own", [True, False], ids=["a head of its own", "a copy"])
def test_a_head_beside_a_tied_embedding_is_used_as_in_transformers(own: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = folder_of("Llama", {"tie_word_embeddings": True}, tmp_path)
    tensors = load_file(place / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].flip(0).contiguous() if own else tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, place / "model.safetensors", metadata={"format": "pt"})
    assert read_spec(place).tied is not own
    check_shapes(place, read_spec(place))
    want, tokens = reference(place)
    came, said = answered(place)
    assert said == tokens
    assert max(math.fabs(a - b) for a, b in zip(came, want, strict=True)) < 2e-4


def test_dtype_in_both_spellings() -> None:
    least = {**tiny.SIZES, "architectures": ["LlamaForCausalLM"]}
    assert parse_spec({**least, "torch_dtype": "bfloat16"}).dtype == "bfloat16"
    assert parse_spec({**least, "dtype": "float16", "torch_dtype": "bfloat16"}).dtype == "float16"


@pytest.mark.parametrize("family", KINDS)
def test_what_a_file_leaves_out_is_what_the_family_takes_for_it(family: str) -> None:
    least = {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "max_position_embeddings", "head_dim")}
    said = {**least, "architectures": [f"{family}ForCausalLM"], "num_attention_heads": 32}
    theirs = transformers.AutoConfig.for_model(KINDS[family], **least | {"num_attention_heads": 32})
    ours = parse_spec(said)
    assert (ours.kv_heads, ours.eps, ours.tied) == (theirs.num_key_value_heads, theirs.rms_norm_eps, theirs.tie_word_embeddings)
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads)
    assert ours.rope["theta"] == theirs.rope_parameters["rope_theta"]
    assert ours.max_len == theirs.max_position_embeddings


@pytest.mark.parametrize(
    ("family", "change", "windows"),
    [
        ("Mistral", {}, ()),  # longer than the context
        ("Mistral", {"max_position_embeddings": 8192}, (4096,) * 4),
        ("Mistral", {"max_position_embeddings": 8192, "sliding_window": None}, ()),
        ("Mistral", {"sliding_window": 128}, (128,) * 4),
        ("Qwen2", {"sliding_window": 128}, ()),
        ("Qwen2", {"sliding_window": 128, "use_sliding_window": True}, ()),  # of four layers none is the 28th
        ("Qwen2", {"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 3}, (0, 0, 0, 128)),
        ("Qwen3", {**WINDOW, "layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, (0, 0, 0, 32)),
        ("Qwen3", {**WINDOW, "layer_types": ["full_attention"] * 4, "max_window_layers": 0}, ()),
        ("Llama", {"sliding_window": 128, "use_sliding_window": True}, ()),
        ("Gemma2", {"sliding_window": 128}, (128, 0, 128, 0)),
        ("Gemma3", {"sliding_window": 128}, (128,) * 4),
        ("Olmo3", {"sliding_window": 128}, (128, 128, 128, 0)),
        ("Phi3", {"sliding_window": 128}, (128,) * 4),
        ("SmolLM3", {"sliding_window": 128, "use_sliding_window": True}, (0, 0, 0, 128)),
    ],
)
def test_layers_slide_where_the_family_says_so(family: str, change: dict[str, Any], windows: tuple[int, ...]) -> None:
    spec = parse_spec({**tiny.SIZES, "architectures": [f"{family}ForCausalLM"], **change})
    assert spec.windows == windows
    assert spec.max_len == change.get("max_position_embeddings", 512)


@pytest.mark.parametrize(
    ("family", "change", "length"),
    [
        ("Qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}}, 2048),
        ("Qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, 512),
    ],
)
def test_a_context_is_as_long_as_it_is_stretched(family: str, change: dict[str, Any], length: int) -> None:
    assert parse_spec({**tiny.SIZES, "architectures": [f"{family}ForCausalLM"], **change}).max_len == length


REFUSED = [row for row in fields_of("config.json") if row.use == "refused"]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row.name} {' '.join(sorted(row.families))}".strip())
def test_what_is_not_computed_is_refused_by_name(row: ModelField) -> None:
    family = min(row.families or {"LlamaForCausalLM"})
    name = row.name.replace("{setting}", "mrope_section")
    least = {**tiny.SIZES, "architectures": [family]}

    def said(value: Any) -> dict[str, Any]:
        outer, dot, inner = name.partition(".")
        return {**least, outer: {"rope_type": "default", inner: value} if dot else value}

    for value in row.unless:
        parse_spec(said(value))
    strange = next(value for value in ([3], True, 0.25) if value not in row.unless)
    with pytest.raises(UnknownModel, match="--engine vllm") as refused:
        parse_spec(said(strange))
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"logit_scale": 0.5}, "logit_scale"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"attention_multiplier": 0.1}, "attention_multiplier"),
        ({"num_experts": 8}, "num_experts"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters.full_attention"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 4}}, "long_factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
    ],
)
def test_values_that_are_not_computed_are_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownModel, match=says):
        parse_spec({**tiny.SIZES, "architectures": ["Qwen2ForCausalLM"], **change})
