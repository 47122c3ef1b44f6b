"""Rotary tables are those of transformers' own module, whatever numbers a config.json has for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.pool.fit.spec import parse_spec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 8,
}
LENGTH = 96


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32)


TRAINED = st.integers(8, 4096)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {"rope_theta": numbers(100, 1e6)}
ROPES = st.one_of(
    st.fixed_dictionaries({"rope_type": st.just("default")}, optional=OPTIONAL),
    st.fixed_dictionaries({"type": st.just("linear"), "factor": numbers(1, 32)}, optional=OPTIONAL),
    st.fixed_dictionaries(
        {
            "rope_type": st.just("llama3"),
            "factor": numbers(1, 32),
            "low_freq_factor": numbers(0.5, 2),
            "high_freq_factor": numbers(2.5, 8),
        },
        optional={**OPTIONAL, "original_max_position_embeddings": TRAINED},
    ),
    st.fixed_dictionaries(
        {"rope_type": st.just("yarn"), "factor": numbers(1, 32)},
        optional={
            **OPTIONAL,
            "original_max_position_embeddings": TRAINED,
            "beta_fast": numbers(4, 64),
            "beta_slow": numbers(0.25, 3),
            "attention_factor": numbers(0.5, 2),
            "mscale": numbers(0, 2),
            "mscale_all_dim": numbers(0, 2),
            "truncate": st.booleans(),
        },
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    rope=ROPES,
    spelling=st.sampled_from(["rope_scaling", "rope_parameters"]),
    beside=st.fixed_dictionaries({}, optional={"rope_theta": numbers(100, 1e6), "original_max_position_embeddings": TRAINED}),
    context=st.integers(64, 8192),
    head_dim=st.sampled_from([8, 16, 20, 64]),
)
def test_any_rotary_settings_give_transformers_table(
    rope: dict[str, Any], spelling: str, beside: dict[str, Any], context: int, head_dim: int
) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from holynb.pool.engine.rope import rope_table

    config = {**SIZES, **beside, "head_dim": head_dim, "max_position_embeddings": context, spelling: rope}
    spec = parse_spec({**config, "architectures": ["LlamaForCausalLM"]})
    ours = rope_table(spec, LENGTH)
    cos, sin = LlamaRotaryEmbedding(LlamaConfig(**{**config, spelling: dict(rope)}))(torch.zeros(1), torch.arange(LENGTH)[None])
    half = head_dim // 2
    torch.testing.assert_close(ours, torch.cat((cos[0, :, :half], sin[0, :, :half]), -1), rtol=1e-4, atol=2e-4)
