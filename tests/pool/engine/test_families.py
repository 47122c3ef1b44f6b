"""Every family says what transformers says, token by token in float32, beyond its windows too: whole, divided, in chunks, shared, preempted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from one_rank import answers, runner

from holynb.pool.fit import check_shapes, read_spec
from holynb.pool.fit.spec import UnknownModel, parse_spec
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from divided_model import PROMPTS, divided, likeliest, logits  # noqa: E402

NEW = 12

#: What divided pools, chunks and full caches may do differently from family to family.
WITH_WINDOWS = ("mistral-windows", "gemma2", "gemma3", "olmo3", "gpt-oss")


@pytest.fixture(scope="module", params=tiny.MORE_FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and transformers' own model of it."""
    folder = tmp_path_factory.mktemp("model")
    return folder, tiny.make(request.param, folder)


def test_greedy_tokens_and_every_weight(model: tuple[Path, Any]) -> None:
    folder, theirs = model
    check_shapes(folder, read_spec(folder))
    assert read_spec(folder).weights == sum(p.numel() for p in theirs.parameters())
    longest = 64 if read_spec(folder).rope["type"] == "longrope" else 512  # one set of factors for a pool
    asked = [Job(i, tuple(ids), NEW, ignore_eos=True) for i, ids in enumerate(PROMPTS) if len(ids) + NEW <= longest]
    said = answers(runner(folder, chunk=64, max_len=longest), asked)
    assert said
    for i, tokens in said.items():
        assert tokens == likeliest(theirs, PROMPTS[i], tokens), i


@pytest.mark.parametrize(("tensor", "pipe"), [(1, 1), (2, 1), (1, 2), (8, 1)])
def test_logits_of_divided_models(model: tuple[Path, Any], tensor: int, pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, theirs = model
    if read_spec(folder).heads % tensor:
        tensor = read_spec(folder).heads
    torch.testing.assert_close(divided(folder, PROMPTS[1], tensor, pipe, monkeypatch), logits(theirs, PROMPTS[1]), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("family", WITH_WINDOWS)
def test_chunks_shared_heads_and_a_full_cache_change_nothing(family: str, tmp_path: Path) -> None:
    theirs = tiny.make(family, tmp_path)
    head = (PROMPTS[1] * 2)[:100]  # four windows
    for limits, new in (({"blocks": 10, "chunk": 20}, 60), ({"chunk": 7}, NEW), ({"blocks": 17}, NEW)):
        asked = [Job(i, (*head, 3 + i, 9), new, ignore_eos=True) for i in range(4)]
        made = runner(tmp_path, **limits)
        said = answers(made, asked)
        assert made.blocks.free == made.blocks.total
        assert made.scheduler.preempted or new == NEW or all(made.blocks.windows)
        assert made.scheduler.tokens_shared >= 3 * 96
        for job in asked:
            assert said[job.id] == likeliest(theirs, list(job.ids), said[job.id]), (limits, job.id)
    assert answers(runner(tmp_path, share=False), asked) == said


def test_the_cache_of_a_model_whose_layers_all_slide_holds_windows_alone(tmp_path: Path) -> None:
    theirs = tiny.make("mistral-windows", tmp_path)
    made = runner(tmp_path, blocks=14)
    asked = [Job(i, tuple(PROMPTS[1][i : i + 20]), 100, ignore_eos=True) for i in range(4)]  # 32 blocks without windows
    said = answers(made, asked)
    assert made.scheduler.preempted == 0
    for job in asked:
        assert said[job.id] == likeliest(theirs, list(job.ids), said[job.id])


def test_a_decoder_inside_a_model_of_pictures(tmp_path: Path) -> None:
    """Gemma 3's larger sizes: text_config, names of tensors with a prefix, and a tower that is not read."""
    from safetensors.torch import load_file, save_file

    theirs = tiny.make("gemma3", tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    text = {k: v for k, v in said.items() if k not in ("architectures", "eos_token_id", "dtype")}
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text, "vision_config": {"a": 1}}
    (tmp_path / "config.json").write_text(json.dumps({**outer, "eos_token_id": [1, 106], "mm_tokens_per_image": 256}))
    tensors = load_file(tmp_path / "model.safetensors")
    for prefix, tower, head in (("language_model.model.", "", "language_model."), ("model.language_model.", "model.", "")):
        renamed = {
            name.replace("model.", prefix, 1) if name.startswith("model.") else head + name: tensor for name, tensor in tensors.items()
        }
        renamed |= {f"{tower}vision_tower.a.weight": torch.zeros(2), f"{tower}multi_modal_projector.b": torch.zeros(2)}
        save_file(renamed, tmp_path / "model.safetensors")
        spec = read_spec(tmp_path)
        assert spec.eos == (1, 106)
        check_shapes(tmp_path, spec)
        said = answers(runner(tmp_path), [Job(0, tuple(PROMPTS[1]), NEW, ignore_eos=True)])[0]
        assert said == likeliest(theirs, PROMPTS[1], said)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("Gemma4ForConditionalGeneration", "heads of two sizes"),
        ("Gemma3nForConditionalGeneration", "share keys and values"),
        ("Qwen3_5ForConditionalGeneration", "gated delta nets"),
        ("Qwen3_5MoeForConditionalGeneration", "gated delta nets"),
        ("Qwen3NextForCausalLM", "gated delta nets"),
        ("Llama4ForConditionalGeneration", "attention in chunks"),
        ("DeepseekV3ForCausalLM", "multi-head latent attention"),
        ("DeepseekV4ForCausalLM", "multi-head latent attention"),
    ],
)
def test_what_is_missing_is_named(name: str, lacks: str) -> None:
    with pytest.raises(UnknownModel, match=rf"{name}.*{lacks}.*--engine vllm"):
        parse_spec({"architectures": [name]})


def test_factors_beyond_the_first_training_count_where_they_are_asked_for(tmp_path: Path) -> None:
    from holynb.pool.fit import plan

    theirs = tiny.make("phi3-partial", tmp_path)
    spec = read_spec(tmp_path)
    assert plan.limits_of(spec, cpu=True).max_len == 64
    assert plan.limits_of(spec, cpu=True, max_len=200).max_len == 200
    from holynb.pool.engine.runner import Runner

    far = Runner(tmp_path, max_len=200)
    said = answers(far, [Job(0, tuple(PROMPTS[1]), NEW, ignore_eos=True)])[0]
    assert said == likeliest(theirs, PROMPTS[1], said)


@pytest.mark.parametrize(
    ("family", "change", "says"),
    [
        ("Gemma3", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "by kind of layer"),
        ("Gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "dynamic"}}, "sliding_window": 8}, "dynamic"),
        ("Gemma3", {"rope_parameters": {"sliding_attention": {"mrope_section": [1]}}}, "mrope_section"),
        ("Gemma3", {"hidden_activation": "relu"}, "hidden_activation gelu_pytorch_tanh"),
        ("Gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("Gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("Qwen3", {"sliding_window_pattern": 2}, "sliding_window_pattern"),
        ("Phi3", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ],
)
def test_what_a_family_does_not_know_is_refused_by_name(family: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownModel, match=f"{says}.*--engine vllm"):
        parse_spec({**tiny.SIZES, "architectures": [f"{family}ForCausalLM"], **change})
