"""gpt-oss from a GGUF file: what is written is what its safetensors hold, and says the same; kept in its bits, divided, planned, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_gpt_oss
import mxfp4_model
import numpy as np
import pytest
from one_rank import answers, runner

from holynb.errors import UserError
from holynb.pool.fit import Device, Mesh, check_shapes, describe_fit, parse_spec, plan, read_spec
from holynb.pool.models.convert import ConvertError, config_of, convert
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from divided_model import PROMPTS, divided, likeliest, logits  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from holynb.pool.engine.load import load, open_safetensors  # noqa: E402
from holynb.pool.engine.rope import rope_table  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from kernels_support.cpu import machine_code  # noqa: E402

fast = pytest.mark.skipif(not machine_code.lanes(), reason="this processor has no fast product of eight bits")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("safetensors")
    return folder, mxfp4_model.make(folder, num_hidden_layers=2, **gguf_gpt_oss.LIMITS)


def converted(model: tuple[Path, Any], place: Path, *, kept: bool = True, **how: Any) -> Path:
    gguf_gpt_oss.write(place / "x.gguf", model[0], **how)
    folder = place / ("kept" if kept else "wide")
    folder.mkdir()
    convert(place / "x.gguf", folder, kept=kept)
    assert config_of(place / "x.gguf") == json.loads((folder / "config.json").read_text()) or not kept
    check_shapes(folder, read_spec(folder))
    return folder


def test_the_folder_holds_what_the_safetensors_hold(model: tuple[Path, Any], tmp_path: Path) -> None:
    """Byte by byte, for other engines too; the same model, but for what transformers calls its numbers."""
    for kept in (True, False):
        folder = converted(model, tmp_path, kept=kept)
        made, theirs = load_file(folder / "model.safetensors"), load_file(model[0] / "model.safetensors")
        assert made.keys() == theirs.keys()
        assert all(made[name].dtype == theirs[name].dtype and torch.equal(made[name], theirs[name]) for name in theirs)
        ours, their = (json.loads((place / "config.json").read_text()) for place in (folder, model[0]))
        assert ours["quantization_config"] == their["quantization_config"]
        spec, known = read_spec(folder), read_spec(model[0])
        assert {n for n in spec.__slots__ if getattr(spec, n) != getattr(known, n)} <= {"dtype", "eps", "rope"}
        assert torch.equal(rope_table(spec, 200), rope_table(known, 200))
        assert spec.rope["truncate"] is False
        assert (spec.dtype, spec.eps) == ("bfloat16", pytest.approx(known.eps))


def test_it_says_what_the_safetensors_say(model: tuple[Path, Any], tmp_path: Path) -> None:
    folder = converted(model, tmp_path)
    jobs = [Job(i, tuple(ids), 8, ignore_eos=True, logprobs=20) for i, ids in enumerate(PROMPTS[:2])]
    said = answers(runner(folder, chunk=50), jobs)
    assert said == answers(runner(model[0], chunk=50), jobs)
    for i, tokens in said.items():
        assert tokens == likeliest(model[1], PROMPTS[i], tokens)


@pytest.mark.parametrize("experts", ["F32", "BF16"])
def test_experts_that_are_plain_are_taken_plain(model: tuple[Path, Any], experts: str, tmp_path: Path) -> None:
    folder = converted(model, tmp_path, experts=experts)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    said = answers(runner(folder), [Job(0, tuple(PROMPTS[0]), 8, ignore_eos=True)])
    assert said[0] == likeliest(model[1], PROMPTS[0], said[0])


@pytest.mark.parametrize(("tensor", "pipe"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("rest", ["F32", pytest.param("Q8_0", marks=fast)])
def test_logits_of_divided_models(
    model: tuple[Path, Any], rest: str, tensor: int, pipe: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside experts in four bits the rest stays in eight; then the reference is the same numbers widened."""
    folder = converted(model, tmp_path, rest=rest)
    theirs = logits(model[1], PROMPTS[1]) if rest == "F32" else divided(wide(model, tmp_path), PROMPTS[1], 1, 1, monkeypatch)
    found = divided(folder, PROMPTS[1], tensor, pipe, monkeypatch)
    torch.testing.assert_close(found, theirs, atol=2e-3 if rest == "F32" else 0.05, rtol=1e-3)


def wide(model: tuple[Path, Any], place: Path) -> Path:
    folder = place / "reference"
    folder.mkdir()
    convert(place / "x.gguf", folder, kept=False)
    return folder


@fast
def test_the_rest_stays_in_eight_bits_and_says_what_its_values_say(model: tuple[Path, Any], tmp_path: Path) -> None:
    folder = converted(model, tmp_path, rest="Q8_0")
    tensors = load_file(folder / "model.safetensors")
    at = "model.layers.1"
    kinds = {name: tensors[name].dtype for name in (f"{at}.self_attn.q_proj.weight", f"{at}.mlp.router.weight", "lm_head.weight")}
    assert list(kinds.values()) == [torch.int8, torch.float32, torch.int8]
    said, scores = [], []
    for dtype in (None, "float32"):
        made = Runner(folder, dtype=dtype, memory=0.05)
        made.add(Job(0, tuple(PROMPTS[0]), 6, ignore_eos=True, logprobs=5))
        emits = [emit for _ in range(10) if not made.idle for emit in made.step()]
        said.append([token for emit in emits for token in emit.tokens])
        scores.append(dict(next(emit.scores[0] for emit in emits if emit.scores)[2]))
    assert said[0] == said[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-2)


@fast
@pytest.mark.parametrize("cpu", [True, False])
def test_the_bytes_of_the_plan_are_those_that_are_loaded(model: tuple[Path, Any], cpu: bool, tmp_path: Path) -> None:
    spec = plan.started(read_spec(converted(model, tmp_path, rest="Q8_0")), "None", cpu=cpu)
    for mesh in (Mesh(), Mesh(2, rank=1)):
        shard = mesh.shard(spec)
        with open_safetensors(tmp_path / "kept") as source:
            weights = load(spec, shard, source, "cpu", torch.float32)
        tensors: list[Any] = [weights.embed, weights.norm, weights.head]
        for layer in weights.layers:
            tensors += [layer.norm, layer.qkv, layer.qkv_bias, layer.out, layer.out_bias, layer.mlp_norm, layer.sinks]
            experts = layer.experts
            assert experts is not None
            tensors += [experts.router, experts.router_bias, experts.gate_up, experts.gate_up_bias, experts.down, experts.down_bias]
        lies = sum(t.nbytes for t in tensors if t is not None)
        assert lies == pytest.approx(plan.weights_bytes(spec, shard, 4), rel=2e-3)


def test_the_plan_knows_all_experts_and_those_of_a_token(model: tuple[Path, Any], tmp_path: Path) -> None:
    gguf_gpt_oss.write(tmp_path / "x.gguf", model[0], rest="Q8_0")
    spec = parse_spec(config_of(tmp_path / "x.gguf"))
    assert spec.weights == sum(p.numel() for p in model[1].parameters())
    assert spec.active_weights < 0.8 * spec.weights
    device = Device(1, 24_000_000_000)
    limits = plan.limits_of(spec, cpu=False)
    line = describe_fit(spec, device, plan.fit(spec, device, Mesh(), "int8", limits), "int8", limits)
    assert "for a token" in line
    assert "its own four to eight bits" in line


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"experts": "Q8_0"}, r"blk\.\d\.ffn_\w+_exps\.weight lies in Q8_0, and gpt-oss' experts are read all in MXFP4.*ggml-org"),
        ({"gpt-oss.attention.sliding_window_pattern": [1, 0]}, r"sliding_window_pattern is a list and must be a number"),
        ({"gpt-oss.attention.sliding_window_pattern": 1}, r"sliding_window_pattern is 1, by which no layer slides"),
        ({"gpt-oss.attention.sliding_window": None}, r"lacks gpt-oss\.attention\.sliding_window"),
        ({"gpt-oss.expert_used_count": 7}, r"expert_used_count is 7, and expert_count is 6"),
        ({"gpt-oss.expert_count": 5}, r"ffn_gate_exps\.weight holds 6 × 96 × 64 numbers, and the GGUF header says 5 × 96 × 64"),
        ({"gpt-oss.rope.freq_base_swa": 5.0}, r"rope\.freq_base_swa 5\.0 \(other positions within a window\)"),
        ({"gpt-oss.rope.scaling.yarn_beta_fast": 16.0}, r"yarn_beta_fast 16\.0"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(model: tuple[Path, Any], how: dict[str, Any], says: str, tmp_path: Path) -> None:
    gguf_gpt_oss.write(tmp_path / "x.gguf", model[0], **how)
    with pytest.raises(ConvertError, match=says) as caught:
        config_of(tmp_path / "x.gguf")
    assert "\n" not in str(caught.value)


def test_experts_of_two_kinds_are_refused_by_name(model: tuple[Path, Any], tmp_path: Path) -> None:
    from holynb.pool.models.gguf_stacked import in_mxfp4

    gguf_gpt_oss.write(tmp_path / "x.gguf", model[0])
    gguf_gpt_oss.write(tmp_path / "y.gguf", model[0], experts="F32")
    import gguf

    four, plain = (gguf.GGUFReader(tmp_path / name).tensors for name in ("x.gguf", "y.gguf"))
    with pytest.raises(ConvertError, match="lies in MXFP4 beside others"):
        in_mxfp4([*(t for t in four if t.name.startswith("blk.0")), *(t for t in plain if t.name.startswith("blk.1"))])


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(
    model: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("attn_sinks.weight", "post_attention_norm.weight"):
        monkeypatch.setattr(gguf_gpt_oss, "NAMES", {long: n for long, n in gguf_gpt_oss.NAMES.items() if n != name})
        with pytest.raises(UserError, match=r"no tensor model\.layers\.0\.(self_attn\.sinks|post_attention_layernorm)"):
            converted(model, tmp_path)
        (tmp_path / "kept").rename(tmp_path / name)
    monkeypatch.setattr(gguf_gpt_oss, "NAMES", {long: n for long, n in gguf_gpt_oss.NAMES.items() if n != "ffn_down_exps.bias"})
    with pytest.raises(ConvertError, match=r"experts in blk\.0 and no blk\.0\.ffn_down_exps\.bias"):
        converted(model, tmp_path)


def test_every_number_and_every_exponent_as_ggufs_own_reader_has_them() -> None:
    import gguf

    from holynb.pool.models.gguf_stacked import codes_of, exponents_of

    dice = np.random.default_rng(1)
    data = dice.integers(0, 256, (9, 5 * 17), dtype=np.uint8)
    data[:, ::17] = dice.integers(0, 129, (9, 5))
    numbers, exponents = codes_of(data), exponents_of(data)
    wide = mxfp4_model.dequantized(torch.from_numpy(numbers), torch.from_numpy(exponents))
    assert np.array_equal(wide.numpy(), gguf.dequantize(data, gguf.GGMLQuantizationType.MXFP4))
