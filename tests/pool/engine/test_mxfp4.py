"""gpt-oss with experts in MXFP4: what transformers says of the same numbers, kept in four bits, divided too; the plan's bytes; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mxfp4_model
import pytest
from one_rank import answers, runner

from holynb.errors import UserError
from holynb.pool.fit import Device, Mesh, check_shapes, describe_fit, parse_spec, plan, read_spec
from holynb.pool.fit.mesh import tensor_sizes
from holynb.pool.fit.spec import UnknownModel
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from divided_model import PROMPTS, divided, likeliest, logits  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from holynb.pool.engine.load import load, open_safetensors  # noqa: E402
from kernels_support.gpu import mxfp4_matrix  # noqa: E402

#: As the hub has it.
GPT_OSS_20B: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"], "quant_method": "mxfp4"},
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 201088,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mxfp4")
    return folder, mxfp4_model.make(folder, num_hidden_layers=2)


def test_greedy_tokens(model: tuple[Path, Any]) -> None:
    folder, theirs = model
    check_shapes(folder, read_spec(folder))
    assert read_spec(folder).weights == sum(p.numel() for p in theirs.parameters())
    said = answers(runner(folder, chunk=50), [Job(i, tuple(ids), 8, ignore_eos=True) for i, ids in enumerate(PROMPTS[:2])])
    for i, tokens in said.items():
        assert tokens == likeliest(theirs, PROMPTS[i], tokens)


@pytest.mark.parametrize(("tensor", "pipe"), [(2, 1), (1, 2)])
def test_logits_of_divided_models(model: tuple[Path, Any], tensor: int, pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks of 32 columns over two ranks: one has two of them."""
    folder, theirs = model
    torch.testing.assert_close(divided(folder, PROMPTS[1], tensor, pipe, monkeypatch), logits(theirs, PROMPTS[1]), atol=2e-3, rtol=1e-3)


def test_every_number_and_every_scale() -> None:
    """All codes, and scales down to the smallest; a last group that is not full."""
    blocks = torch.arange(256, dtype=torch.uint8).repeat(15).view(3, 4, 5, 4, 16)[:, :, :, 0]
    scales = torch.tensor([0, 1, 90, 127, mxfp4_matrix.MOST_EXPONENT], dtype=torch.uint8).expand(3, 4, 5)
    matrices = mxfp4_matrix.Mxfp4Matrices(*mxfp4_matrix.packed(blocks, scales, 160), 160)
    assert matrices.shape == (3, 4, 160)
    assert matrices.words.shape == (3, 4, 64)
    for expert in range(3):
        assert torch.equal(mxfp4_matrix.dequantize(matrices, expert), mxfp4_model.dequantized(blocks, scales)[expert])


def test_the_bytes_of_the_plan_are_those_that_are_loaded(model: tuple[Path, Any]) -> None:
    folder, _ = model
    spec = read_spec(folder)
    for mesh in (Mesh(), Mesh(2, rank=1)):
        shard = mesh.shard(spec)
        with open_safetensors(folder) as source:
            weights = load(spec, shard, source, "cpu", torch.float32)
        tensors: list[Any] = [weights.embed, weights.norm, weights.head]
        for layer in weights.layers:
            tensors += [layer.norm, layer.qkv, layer.qkv_bias, layer.out, layer.out_bias, layer.mlp_norm, layer.sinks]
            experts = layer.experts
            assert experts is not None
            tensors += [experts.router, experts.router_bias, experts.gate_up, experts.gate_up_bias, experts.down, experts.down_bias]
        assert sum(t.nbytes for t in tensors if t is not None) == plan.weights_bytes(spec, shard, 4)


def test_the_plan_of_the_model_that_people_run() -> None:
    """OpenAI's page: 20.9 billion numbers, 3.6 of them active without the embedding; its file has 13.8 GB."""
    spec = parse_spec(GPT_OSS_20B)
    assert abs(spec.weights / 1e9 - 20.91) < 0.01
    assert abs((spec.active_weights - spec.vocab * spec.hidden) / 1e9 - 3.61) < 0.01
    assert (spec.dtype, spec.windows[:3], spec.max_len) == ("bfloat16", (128, 0, 128), 131072)
    assert 13.7e9 < plan.weights_bytes(spec, Mesh().shard(spec), 2) < 14.1e9
    limits, device = plan.limits_of(spec, cpu=False), Device(1, 24_000_000_000)
    line = describe_fit(spec, device, plan.fit(spec, device, Mesh(), "bfloat16", limits), "bfloat16", limits)
    assert "14 GB of weights per device (4.89 GB for a token)" in line
    # Blocks of 32 columns are shared out whole.
    assert tensor_sizes(spec) == [1, 2, 4, 8, 16, 32, 64]
    assert [Mesh(4, rank=i).shard(spec).expert_inner for i in range(4)] == [(0, 704), (704, 1440), (1440, 2144), (2144, 2880)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quantization_config": {"quant_method": "mxfp4", "block_size": 16}}, r"block_size 16.*--engine vllm"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, r"quantization_config.*--engine vllm"),
        ({"intermediate_size": 2890}, "blocks of 32 columns"),
        ({"num_experts_per_tok": 33}, "num_experts_per_tok is 33"),
        ({"swiglu_limit": 0}, "swiglu_limit is 0"),
        ({"layer_types": ["chunked_attention"] * 24}, r"chunked_attention.*--engine vllm"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises((UnknownModel, ValueError), match=says):
        parse_spec(GPT_OSS_20B | change)


def test_files_that_hold_something_else_are_refused_by_name(tmp_path: Path) -> None:
    mxfp4_model.make(tmp_path, num_hidden_layers=1)
    tensors = load_file(tmp_path / "model.safetensors")
    scales = "model.layers.0.mlp.experts.down_proj_scales"
    save_file(tensors | {scales: torch.full_like(tensors[scales], 140)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"down_proj_scales has a scale of 2\^13.*--engine vllm"):
        runner(tmp_path)
    save_file({n: t for n, t in tensors.items() if n != scales}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"no tensor .*down_proj_scales"):
        check_shapes(tmp_path, read_spec(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "quantization_config"}))
    with pytest.raises(UserError, match=r"no tensor .*gate_up_proj"):
        check_shapes(tmp_path, read_spec(tmp_path))
