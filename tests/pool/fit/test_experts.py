"""What a plan knows of a mixture of experts: how many numbers there are, how many a token takes, what each rank holds, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from holynb.errors import UserError
from holynb.pool.fit import Device, Mesh, check_shapes, describe_fit, parse_spec, plan, read_spec
from holynb.pool.fit.known import KNOWN
from holynb.pool.fit.mesh import tensor_sizes
from holynb.pool.fit.spec import UnknownModel

#: As the hub has them.
QWEN3_30B: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MIXTRAL_8X7B: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}


@pytest.mark.parametrize(("config", "all_of_them", "active"), [(QWEN3_30B, 30.5, 3.3), (MIXTRAL_8X7B, 46.7, 12.9)])
def test_as_many_weights_as_their_makers_say(config: dict[str, Any], all_of_them: float, active: float) -> None:
    """Qwen's page: 30.5 billion, 3.3 activated. Mistral's: 46.7 and 12.9."""
    spec = parse_spec(config)
    assert abs(spec.weights / 1e9 - all_of_them) < 0.05
    assert abs(spec.active_weights / 1e9 - active) < 0.06


def test_the_plan_says_what_lies_there_and_what_a_token_takes() -> None:
    spec = parse_spec(QWEN3_30B)
    device, limits = Device(1, 141_000_000_000), plan.limits_of(spec, cpu=False)
    line = describe_fit(spec, device, plan.fit(spec, device, Mesh(), "bfloat16", limits), "bfloat16", limits)
    assert "61.1 GB of weights per device (6.71 GB for a token)" in line
    small = Device(1, 24_000_000_000)
    line = describe_fit(spec, small, None, "bfloat16", limits)
    assert line.startswith("does not fit on 1x24GB in bfloat16: the weights alone are 61.1 GB. It would fit in four bits ")
    assert line.endswith("(files of AWQ or GPTQ), or on 4x24GB, as --tp 4")
    line = describe_fit(spec, Device(2, 24_000_000_000), None, "bfloat16", limits)
    assert line.endswith("It would fit in fp8, as --tp 2, or in four bits (files of AWQ or GPTQ), as --dp 2")


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-8B", "mistralai/Mixtral-8x7B", "openai/gpt-oss-120b", "microsoft/phi-4"]
)
def test_only_what_the_engine_would_start_is_offered(name: str) -> None:
    spec = parse_spec(KNOWN[name])
    for dtype in plan.smaller_dtypes(spec, "float32"):
        assert plan.started(spec, dtype, cpu=False).weights == spec.weights
    assert ("fp8" in plan.smaller_dtypes(spec, "bfloat16")) == (name != "openai/gpt-oss-120b")
    files = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    if (four := plan.in_four_bits(spec)) is None:
        with pytest.raises(UnknownModel):
            parse_spec({**KNOWN[name], "quantization_config": files})
    else:
        assert four == parse_spec({**KNOWN[name], "quantization_config": files})


def test_experts_are_cut_by_their_own_columns() -> None:
    assert tensor_sizes(parse_spec(QWEN3_30B)) == [1, 2, 4, 8, 16, 32]
    # Qwen3-Coder's MLP, which no layer has, would not divide.
    assert 32 in tensor_sizes(parse_spec(QWEN3_30B | {"intermediate_size": 5473}))
    assert tensor_sizes(parse_spec(QWEN3_30B | {"intermediate_size": 5472, "mlp_only_layers": [3]})) == [1, 2, 4, 8, 16, 32]
    assert tensor_sizes(parse_spec(QWEN3_30B | {"moe_intermediate_size": 36})) == [1, 2, 4]
    with pytest.raises(UserError, match=r"36 MLP columns do not divide by --tp 8"):
        Mesh(8).shard(parse_spec(QWEN3_30B | {"moe_intermediate_size": 36}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 3, "group_size": 128}}, r"quantization_config says bits 3.*--engine vllm"),
        ({"num_local_experts": 64}, "num_experts is 128 and num_local_experts is 64"),
        ({"num_experts_per_tok": 129}, "num_experts_per_tok is 129"),
        ({"mlp_only_layers": 3}, "mlp_only_layers is not a list"),
        ({"layer_types": ["full_attention"]}, r"layer_types.*--engine vllm"),
        ({"shared_expert_intermediate_size": 768}, r"shared_expert_intermediate_size 768 .*--engine vllm"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises((UnknownModel, ValueError, TypeError), match=says):
        parse_spec(QWEN3_30B | change)


def test_eight_bits_are_half_of_what_lies_there() -> None:
    spec = plan.started(parse_spec(QWEN3_30B), "fp8", cpu=False)
    plain, eight = (plan.weights_bytes(s, Mesh().shard(s), 2) for s in (parse_spec(QWEN3_30B), spec))
    assert (round(plain / 1e9, 1), round(eight / 1e9, 1)) == (61.1, 31.2), "tables, norms and routers stay"
    with pytest.raises(UserError, match=r"768 MLP columns in blocks of 128 do not divide by --tp 4.*can be 1, 2, 3\.|can be 1, 2\."):
        Mesh(4).shard(parse_spec(QWEN3_30B | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}))


def test_a_layer_without_experts_is_counted_as_it_is() -> None:
    spec = parse_spec(QWEN3_30B | {"mlp_only_layers": [0], "decoder_sparse_step": 2})
    assert spec.experts is not None
    assert spec.experts.dense == frozenset(range(0, 48, 2))
    assert spec.experts_of(0) is None
    assert spec.weights_of(0) == spec.layer_weights < spec.weights_of(1)
    assert parse_spec(QWEN3_30B | {"num_experts": 0}).experts is None


def test_experts_in_eight_bits_that_config_json_does_not_announce_are_refused(tmp_path: Path) -> None:
    """Taken for plain numbers they would be another model: their scales are left out."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from holynb.pool.engine.load import load, open_safetensors

    tiny.make("mixtral", tmp_path, num_hidden_layers=1)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.block_sparse_moe.experts.3.w2.weight"
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    spec = read_spec(tmp_path)
    with open_safetensors(tmp_path) as source, pytest.raises(UserError, match=r"experts\.3\.w2\.weight lies in float8_e4m3fn"):
        load(spec, Mesh().shard(spec), source, "cpu", torch.float32)


@pytest.mark.parametrize("family", ["qwen3-moe", "mixtral"])
def test_the_bytes_of_the_plan_are_those_that_are_loaded(family: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from holynb.pool.engine.load import load, open_safetensors

    tiny.make(family, tmp_path)
    spec = read_spec(tmp_path)
    check_shapes(tmp_path, spec)
    for mesh in (Mesh(), Mesh(2, rank=1), Mesh(1, 2), Mesh(2, 2, 3)):
        shard = mesh.shard(spec)
        with open_safetensors(tmp_path) as source:
            weights = load(spec, shard, source, "cpu", torch.bfloat16)
        tensors = [weights.embed, weights.norm, weights.head]
        for layer in weights.layers:
            experts = layer.experts
            tensors += [layer.norm, layer.qkv, layer.out, layer.mlp_norm, layer.gate_up, layer.down, layer.q_norm, layer.k_norm]
            tensors += [] if experts is None else [experts.router, experts.gate_up, experts.down]
        assert sum(t.nbytes for t in tensors if t is not None) == plan.weights_bytes(spec, shard, 2)


@pytest.mark.parametrize(("name", "config"), [("Qwen/Qwen3-30B-A3B", QWEN3_30B), ("mistralai/Mixtral-8x7B", MIXTRAL_8X7B)])
def test_a_plan_by_name_knows_the_shape_of_the_files(name: str, config: dict[str, Any]) -> None:
    known, own = parse_spec(KNOWN[name]), parse_spec(config)
    fields = (
        "layers",
        "hidden",
        "inner",
        "heads",
        "kv_heads",
        "head_dim",
        "vocab",
        "max_len",
        "tied",
        "windows",
        "weights",
        "active_weights",
    )
    assert [getattr(known, f) for f in fields] == [getattr(own, f) for f in fields]
