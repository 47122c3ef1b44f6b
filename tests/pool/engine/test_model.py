"""The decoder says what transformers says, token by token in float32, for every family it claims to know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from holynb.errors import UserError
from holynb.pool.engine.runner import Runner
from holynb.pool.fit.spec import UnknownModel, parse_spec, read_spec
from holynb.pool.protocol import Job

pytest.importorskip("torch")
pytest.importorskip("transformers")


def answers(runner: Runner) -> dict[int, list[int]]:
    """Run everything; the tokens of each job."""
    said: dict[int, list[int]] = {}
    while not runner.idle:
        for emit in runner.step():
            said.setdefault(emit.id, []).extend(emit.tokens)
    return said


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_greedy_equals_transformers(family: str, tmp_path: Path) -> None:
    model = tiny.make(family, tmp_path)
    runner = Runner(tmp_path)
    asked = tiny.prompts(6)
    for i, ids in enumerate(asked):
        runner.add(Job(i, tuple(ids), 24, ignore_eos=True))
    said = answers(runner)
    for i, ids in enumerate(asked):
        assert said[i] == tiny.greedy(model, ids, 24), f"{family}, prompt {i}"


def test_weights_in_many_files(tmp_path: Path) -> None:
    model = tiny.make("qwen2", tmp_path, shard="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    runner = Runner(tmp_path)
    runner.add(Job(0, (5, 6, 7), 12, ignore_eos=True))
    assert answers(runner)[0] == tiny.greedy(model, [5, 6, 7], 12)


def test_long_rope_is_scaled(tmp_path: Path) -> None:
    """Positions far beyond the original 64, where llama3 scaling and none say different things."""
    model = tiny.make("llama3", tmp_path)
    ids = tiny.prompts(1, longest=2)[0] * 300
    runner = Runner(tmp_path)
    runner.add(Job(0, tuple(ids), 16, ignore_eos=True))
    assert answers(runner)[0] == tiny.greedy(model, ids, 16)


def test_spec_counts_every_weight(tmp_path: Path) -> None:
    for family in tiny.FAMILIES:
        model = tiny.make(family, tmp_path / family)
        assert read_spec(tmp_path / family).weights == sum(p.numel() for p in model.parameters()), family


def test_unknown_architecture_is_one_clear_line() -> None:
    with pytest.raises(UnknownModel, match=r"MambaForCausalLM.*LlamaForCausalLM.*--engine vllm"):
        parse_spec({"architectures": ["MambaForCausalLM"]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope types"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"quantization_config": {"bits": 4}}, r"quant_method None.*--engine vllm"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0\.5 .*--engine vllm"),
    ],
)
def test_what_would_change_the_answer_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(UnknownModel, match=says):
        parse_spec(tiny.SIZES | {"architectures": ["LlamaForCausalLM"]} | change)


def test_a_sliding_window_is_a_window() -> None:
    plain = tiny.SIZES | {"sliding_window": 128}
    assert parse_spec(plain | {"architectures": ["MistralForCausalLM"]}).windows == (128,) * 4
    assert parse_spec(plain | {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False}).windows == ()


def test_missing_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        Runner(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny.SIZES | {"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(UserError, match="no \\*\\.safetensors"):
        Runner(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tiny.make("llama3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(UserError, match=r"model\.layers\.4"):
        Runner(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("hidden_size", 80, "input_layernorm"),
        ("intermediate_size", 128, "gate_proj"),
        ("vocab_size", 400, "embed_tokens"),
        ("head_dim", 16, "q_norm"),
    ],
)
def test_weights_of_another_size_than_the_config_are_not_taken(key: str, value: int, tensor: str, tmp_path: Path) -> None:
    tiny.make("qwen3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match="they are of two models") as wrong:
        Runner(tmp_path)
    assert tensor in str(wrong.value)
    assert "\n" not in str(wrong.value)
