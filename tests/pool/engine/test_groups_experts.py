"""Experts of a GGUF file stay quantized, on a CPU and as a GPU has them, and say what the same file widened says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holynb.pool.fit import Mesh, check_shapes, plan, read_spec
from holynb.pool.models.convert import ConvertError, config_of, convert
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "llamacpp"))

import files  # noqa: E402
from pool.engine.test_groups import FAR, far, source_of  # noqa: E402

from holynb.pool.engine.load import load, open_safetensors  # noqa: E402
from holynb.pool.engine.load_experts_groups import read_experts_groups  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.fit.experts import ExpertLayers  # noqa: E402
from kernels_support.cpu import grouped, machine_code  # noqa: E402
from kernels_support.gpu import experts, packed_matrix  # noqa: E402

fast = pytest.mark.skipif(not machine_code.lanes(), reason="this processor has no fast product of four bits")

KEYS = {".expert_count": 4, ".expert_used_count": 2}
MIXTURES = {
    "Qwen3-MoE in Q8_0": files.Row("qwen3moe", KEYS | {".expert_feed_forward_length": 32}, files.plain_words, stored="Q8_0"),
    "Mixtral in Q4_1": files.Row("llama", KEYS, files.plain_words, stored="Q4_1"),
}


def kept(row: files.Row, place: Path) -> Path:
    row.write(place / "x.gguf")
    (place / "kept").mkdir()
    convert(place / "x.gguf", place / "kept", kept=True)
    return place / "kept"


@fast
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_stays_quantized_and_says_what_its_values_say(name: str, tmp_path: Path) -> None:
    folder = kept(MIXTURES[name], tmp_path)
    assert config_of(tmp_path / "x.gguf") == json.loads((folder / "config.json").read_text())
    check_shapes(folder, read_spec(folder))
    said, scores, held = [], [], []
    for dtype in (None, "float32"):
        runner = Runner(folder, dtype=dtype, memory=0.05)
        held.append(runner.weights_bytes)
        runner.add(Job(0, (2, 9, 4, 11, 3), 6, ignore_eos=True, logprobs=5))
        emits = [emit for _ in range(10) if not runner.idle for emit in runner.step()]
        said.append([token for emit in emits for token in emit.tokens])
        scores.append(dict(next(emit.scores[0] for emit in emits if emit.scores)[2]))
    assert held[0] < held[1] / 2
    assert said[0] == said[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@fast
@pytest.mark.parametrize("name", MIXTURES)
def test_a_gpu_is_given_what_a_cpu_multiplies_and_the_plan_counts_it(name: str, tmp_path: Path) -> None:
    folder = kept(MIXTURES[name], tmp_path)
    specs = [plan.started(read_spec(folder), "None", cpu=cpu) for cpu in (False, True)]
    with open_safetensors(folder) as source:
        ours, cpus = (load(spec, Mesh().shard(spec), source, "cpu", torch.float32) for spec in specs)
    for layer, other in zip(ours.layers, cpus.layers, strict=True):
        assert torch.equal(layer.experts.router, other.experts.router)
        for part in ("gate_up", "down"):
            for e in range(4):
                packed, wide = (getattr(one.experts, part) for one in (layer, other))
                assert torch.equal(packed_matrix.dequantize(packed, expert=e), grouped.widen(wide[e]))
    parts = [getattr(layer.experts, part) for layer in ours.layers for part in ("router", "gate_up", "down")]
    others = [getattr(layer, part) for layer in ours.layers for part in ("qkv", "out", "norm", "mlp_norm", "q_norm", "k_norm")]
    lies = sum(one.nbytes for one in [*parts, *others, ours.embed, ours.head, ours.norm] if one is not None)
    assert lies == pytest.approx(plan.weights_bytes(specs[0], Mesh().shard(specs[0]), 4), rel=1e-3)


@fast
@pytest.mark.parametrize("on_gpu", [False, True])
def test_gate_and_up_in_q4_k_and_down_in_q6_k_are_multiplied_as_their_values(on_gpu: bool) -> None:
    """As Q4_K_M has them, but for an expert in Q8_0; on two ranks, whose sums are the whole."""
    layout, hidden = ExpertLayers(3, 2, 256), 256
    known: dict[str, Any] = {}
    for e, (name, kind) in ((e, part) for e in range(3) for part in (("gate", "Q4_K"), ("up", "Q4_K"), ("down", "Q6_K"))):
        # Of so many rows, and other numbers of each expert.
        source, wide = source_of("Q8_0" if e == 2 and name != "down" else kind, 256 + e, 256)
        known[f"m.experts.{e}.{name}_proj"] = source, wide[e : e + 256], e

    def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Any:
        module, _, end = name.rpartition(".weight")
        source, _, first = known[module]
        return (
            None
            if (found := source(f"m.weight{end}", (first, first + 256), None)) is None
            else found[slice(*rows or (None,))][:, slice(*columns or (None,))]
        )

    x, router = (torch.randn(n, hidden, generator=torch.Generator().manual_seed(n)) for n in (5, 3))
    halves = [read_experts_groups("m", layout, (hidden, span), router, read, on_gpu=on_gpu) for span in ((0, 128), (128, 256))]
    gate, up, down = (torch.stack([known[f"m.experts.{e}.{name}_proj"][1] for e in range(3)]) for name in ("gate", "up", "down"))
    exact = experts.experts_reference(x, experts.Experts(router, torch.cat((gate, up), 1), down, 2, renormalize=True))
    assert far(sum(experts.experts_reference(x, half) for half in halves), exact) < 2 * FAR


def test_a_layer_of_which_some_experts_are_of_another_kind_is_widened_whole(tmp_path: Path) -> None:
    """Here F16, as columns that no block divides are stored."""
    row = files.Row("qwen3moe", KEYS | {".expert_feed_forward_length": 48}, files.plain_words, stored="Q8_0")
    folder = kept(row, tmp_path)
    with open_safetensors(folder) as source:
        kinds = {source(f"model.layers.0.mlp.experts.3.{name}_proj.weight").dtype for name in ("gate", "up", "down")}
        assert kinds == {torch.float32}
        assert source("model.layers.0.self_attn.q_proj.weight").dtype == torch.int8


def test_experts_that_the_header_does_not_promise_are_refused(tmp_path: Path) -> None:
    def without(tensors: Any) -> None:
        tensors["blk.1.ffn_up_exps.weight"] = tensors["blk.1.ffn_up_exps.weight"][1:]

    files.Row("qwen3moe", KEYS, tensors=without).write(tmp_path / "x.gguf")
    with pytest.raises(ConvertError, match=r"blk\.1\.ffn_up_exps\.weight holds 3 experts, and the GGUF header's expert_count is 4: fetch"):
        config_of(tmp_path / "x.gguf")
    files.Row("llama", {}, tensors=lambda t: t.update({"blk.0.ffn_gate_inp.weight": t["blk.0.attn_q.weight"]})).write(tmp_path / "y.gguf")
    with pytest.raises(ConvertError, match=r"holds blk\.0\.ffn_gate_inp\.weight, and its header's expert_count is 0"):
        config_of(tmp_path / "y.gguf")
