"""Keys and values in FP8: half the memory, the same answers whatever the batch and the cache do, and the scales that a file has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from one_rank import answers

from holynb.errors import UserError
from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.load import load, open_safetensors
from holynb.pool.engine.load_kv import read_kv_scales
from holynb.pool.engine.runner import Runner
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.fit import BatchLimits, Device, Mesh, check_shapes, forecast, plan, read_spec
from holynb.pool.fit.spec import UnknownModel
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "strategy": "tensor"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.make("qwen3", path)
    return path


def runner(folder: Path, *, blocks: int | None = None, share: bool = True, **limits: int) -> Runner:
    ours = Runner(folder, kv="fp8")
    ours.blocks = BlockAllocator(blocks or ours.blocks.total, ours.blocks.size, share=share)
    ours.scheduler = BatchScheduler(ours.blocks, BatchLimits(**{"batch": 64, "chunk": 512, "max_len": 512} | limits))
    return ours


def test_the_answer_is_the_same_whatever_the_batch_and_the_cache_do(folder: Path) -> None:
    """Alone, in chunks, from a cache that is too small for all, with a head that is shared."""
    jobs = [Job(i, tuple(p), 12, 0.7, seed=i, ignore_eos=True) for i, p in enumerate(tiny.prompts(6))]
    together = runner(folder)
    assert together.executor.kv.dtype == torch.float8_e4m3fn  # type: ignore[attr-defined]
    plain = answers(together, jobs)
    small = runner(folder, blocks=7)
    assert answers(small, jobs) == plain
    assert small.scheduler.preempted > 0
    for tokens in plain.values():
        assert len(tokens) == 12
    head = tuple(tiny.prompts(1, longest=80)[0] * 2)[:70]
    rows = [Job(i, (*head, 3 + i), 6, ignore_eos=True) for i in range(3)]
    shared = runner(folder)
    assert answers(shared, rows) == answers(runner(folder, share=False), rows)
    assert shared.stats()["tokens_shared"] > 0


def test_it_takes_half_the_memory_and_is_planned_so(folder: Path) -> None:
    spec, shard = read_spec(folder), Mesh().shard(read_spec(folder))
    eight = plan.with_kv(spec, "fp8")
    assert plan.with_kv(spec, None) == spec
    assert [plan.kv_bytes(s, shard, 2) for s in (spec, eight)] == [2 * plan.kv_bytes(eight, shard, 4), plan.kv_bytes(eight, shard, 2)]
    model = plan.spec_of_size("8B")
    device, limits = Device(1, 24_000_000_000), plan.limits_of(model, cpu=False)
    tokens, twice = (plan.fit(s, device, Mesh(), "bfloat16", limits).kv_tokens for s in (model, plan.with_kv(model, "fp8")))
    assert abs(twice - 2 * tokens) <= 1
    says = [forecast(folder, ["cpu"], dtype=None, max_len=64, share=0.9, mesh=Mesh(), kv=kv) for kv in (None, "fp8")]
    assert all(says)
    ours = Runner(folder, kv="fp8", max_len=256)
    assert ours.kv_bytes == ours.executor.kv.nbytes == Runner(folder, max_len=256).kv_bytes // 4  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="--kv takes fp8, not int8"):
        Runner(folder, kv="int8")


@pytest.mark.parametrize("per_head", [False, True])
def test_a_files_scales_are_used_and_divided_with_its_heads(per_head: bool, tmp_path: Path) -> None:
    tiny.make("qwen3", tmp_path, num_key_value_heads=4)
    tensors: dict[str, Any] = load_file(tmp_path / "model.safetensors")
    names = ("self_attn.k_scale", "self_attn.v_scale") if per_head else ("self_attn.k_proj.k_scale", "self_attn.v_proj.output_scale")
    scales = [torch.rand(4, 1, 1) + 0.1 if per_head else torch.tensor([0.25 + i]) for i in range(2)]
    for i in range(read_spec(tmp_path).layers):
        tensors |= {f"model.layers.{i}.{name}": scale.clone() for name, scale in zip(names, scales, strict=True)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"[kv]_scale.*does not announce|output_scale.*does not announce"):
        check_shapes(tmp_path, read_spec(tmp_path))
    check_shapes(tmp_path, plan.with_kv(read_spec(tmp_path), "fp8"))
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    scheme = {"quant_method": "compressed-tensors", "kv_cache_scheme": FP8 | {"strategy": "attn_head" if per_head else "tensor"}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": scheme}), "utf-8")
    spec = read_spec(tmp_path)
    assert spec.kv_fp8, "the file says so"
    assert spec.quantization is None
    check_shapes(tmp_path, spec)
    wanted = torch.stack([s.reshape(-1).expand(4) for s in scales])
    with open_safetensors(tmp_path) as source:
        for rank in range(2):
            part = load(spec, Mesh(2, 1, rank).shard(spec), source, "cpu", torch.float32).layers[0].kv_scales
            assert torch.equal(part, wanted[:, 2 * rank : 2 * rank + 2])
        whole = load(spec, Mesh().shard(spec), source, "cpu", torch.float32)
        assert all(torch.equal(layer.kv_scales, wanted) for layer in whole.layers)
    ours = Runner(tmp_path)
    answers(ours, [Job(0, (5, 6, 7, 8), 4, ignore_eos=True)])
    written = ours.executor.kv[0, 1, :, :4].float()  # type: ignore[attr-defined]
    plain = Runner(folder_without(tmp_path))
    answers(plain, [Job(0, (5, 6, 7, 8), 4, ignore_eos=True)])
    exact = plain.executor.kv[0, 1, :, :4]  # type: ignore[attr-defined]
    assert ((written * wanted[1, :, None, None] - exact).norm() / exact.norm()) < 0.05


def folder_without(folder: Path) -> Path:
    """The same model with a plain cache."""
    plain = folder / "plain"
    plain.mkdir()
    save_file({n: t for n, t in load_file(folder / "model.safetensors").items() if not n.endswith("_scale")}, plain / "model.safetensors")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (plain / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "quantization_config"}), "utf-8")
    return plain


@pytest.mark.parametrize("scale", [[0.0], [-1.0], [float("nan")], [1.0, 2.0]])
def test_a_scale_that_is_none_is_one_line(scale: list[float]) -> None:
    shard = Mesh().shard(plan.spec_of_size("8B"))
    with pytest.raises(UserError, match=r"attn.k_scale is no scale") as refused:
        read_kv_scales(lambda name, *_: torch.tensor(scale) if name == "attn.k_scale" else None, "attn", shard, 8)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("scheme", [FP8 | {"num_bits": 4}, FP8 | {"dynamic": True}, FP8 | {"strategy": "group"}, FP8 | {"type": "int"}])
def test_another_cache_is_refused_by_name(scheme: dict[str, Any], tmp_path: Path) -> None:
    tiny.make("qwen3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    given = {"quant_method": "compressed-tensors", "kv_cache_scheme": scheme}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": given}), "utf-8")
    with pytest.raises(UnknownModel, match=r"kv_cache_scheme.*--engine vllm"):
        read_spec(tmp_path)
