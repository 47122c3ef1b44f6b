"""What is compiled before there is a model is what the engine then starts. On a GPU it is compiled in earnest, elsewhere noted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_gpt_oss
import mxfp4_model
import pytest
import tiny

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from safetensors.torch import load_file, save_file  # noqa: E402

from holynb.pool.engine.cache import allocate_kv  # noqa: E402
from holynb.pool.engine.graphs import GraphExecutor  # noqa: E402
from holynb.pool.engine.load import load, open_safetensors  # noqa: E402
from holynb.pool.engine.model import Collectives, Decoder  # noqa: E402
from holynb.pool.engine.pipeline import SingleStage  # noqa: E402
from holynb.pool.engine.precompile import launches  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.engine.sizes import batch_sizes  # noqa: E402
from holynb.pool.fit import cache_groups, plan  # noqa: E402
from holynb.pool.fit.four_bits import FourBits  # noqa: E402
from holynb.pool.fit.limits import BatchLimits  # noqa: E402
from holynb.pool.fit.mesh import Mesh  # noqa: E402
from holynb.pool.fit.quantization import Quantization  # noqa: E402
from holynb.pool.fit.spec import Spec, read_spec  # noqa: E402
from holynb.pool.models.convert import convert  # noqa: E402
from holynb.pool.protocol import Job  # noqa: E402
from kernels_support.gpu import dense, fp8, lang, norms  # noqa: E402
from kernels_support.gpu.allreduce_norm import FLAG_COUNT, Peers, allreduce_rms_norm  # noqa: E402

LIMITS = BatchLimits(batch=32, chunk=256, max_len=544)
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Place(SingleStage):
    """A stage that nobody talks to."""

    def __init__(self, mesh: Mesh) -> None:
        self.first, self.last, self.lookahead = mesh.stage == 0, mesh.stage == mesh.pipe - 1, mesh.lanes - 1


class Unmet(Collectives):
    """A rank that reads its peers' memory, where there is neither."""

    def __init__(self, mesh: Mesh) -> None:
        self.peers, self.world = (
            Peers(torch.empty(mesh.tensor, dtype=torch.int64, device="meta"), mesh.tensor_rank, mesh.tensor),
            mesh.tensor,
        )

    def add_norm(self, part: Any, residual: Any, weight: Any, eps: float, factor: Any = None, way: Any = norms.PLAIN) -> tuple[Any, Any]:
        if part.shape[0] > LIMITS.batch or weight is None or not way.plain:
            return super().add_norm(self.all_reduce(part), residual, weight, eps, factor, way)
        return allreduce_rms_norm(part, 4 * FLAG_COUNT, self.peers, residual, weight, eps)

    def experts(self, x: Any, experts: Any, counts: Any) -> Any:
        part = super().experts(x, experts, counts)
        return part if part.dim() == 2 else part.new_empty(part.shape[1:])

    def gather_logits(self, x: Any) -> Any:
        return x.new_empty(x.shape[0], self.world * x.shape[1])


def started(folder: Path, spec: Spec, mesh: Mesh) -> set[Any]:
    """What the engine starts over two layers of a model, of which only the shapes are there, at every size."""
    shard = mesh.shard(spec)
    shard = replace(shard, layers=(shard.layers[0], shard.layers[0] + 2))
    groups = cache_groups(spec, mesh, LIMITS.max_len)
    groups = replace(groups, places=groups.places[:2])
    with lang.record_launches() as noted, torch.inference_mode(), open_safetensors(folder) as source:
        weights = load(spec, shard, source, "meta", torch.bfloat16)
        kv = allocate_kv(
            (2, shard.kv_heads[1] - shard.kv_heads[0], 1024, spec.head_dim), torch.float8_e4m3fn if spec.kv_fp8 else torch.bfloat16, "meta"
        )
        model = Decoder(spec, weights, LIMITS.max_len, Unmet(mesh) if mesh.tensor > 1 else None, groups)
        engine = GraphExecutor(model, kv, 16, LIMITS, capture=False, stage=Place(mesh))
        for rows, chunk in [(b, 0) for b in engine.batches] + [(b, c) for b in (0, *engine.mixed_batches) for c in engine.chunks]:
            engine._work(rows, chunk)
    return set(noted)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny model, made once for all the ways to divide it: its shapes are what is looked at."""
    folders: dict[str, Path] = {}

    def folder(family: str, **sizes: Any) -> Path:
        key = f"{family} {sizes}"
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(family)
            tiny.make(family, folders[key], **sizes)
        return folders[key]

    return folder


@pytest.mark.parametrize("family", ["llama-bias", "qwen2", "qwen3", "qwen3-tied"])
@pytest.mark.parametrize("mesh", [Mesh(), Mesh(2), Mesh(2, rank=1), Mesh(1, 2), Mesh(1, 2, 1, 3), Mesh(2, 2, 3)], ids=repr)
def test_what_is_rehearsed_is_what_is_started(family: str, mesh: Mesh, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    folder = made(family)
    spec = read_spec(folder)
    first, later = launches(spec, mesh, LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(folder, spec, mesh)
    assert first, "the first token needs some of them"


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("qwen3-moe", {}),  # a layer with a whole MLP, and one with experts
        ("qwen3-moe", {"hidden_size": 256, "num_experts": 32, "mlp_only_layers": []}),
        ("mixtral", {}),
        ("gpt-oss", {}),
    ],
)
@pytest.mark.parametrize("mesh", [Mesh(), Mesh(2), Mesh(1, 2)], ids=repr)
def test_what_is_rehearsed_of_experts_is_what_is_started(
    family: str, sizes: dict[str, Any], mesh: Mesh, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    folder = made(family, **sizes)
    spec = read_spec(folder)
    first, later = launches(spec, mesh, LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(folder, spec, mesh)
    assert {"_gate_up_few", "_down_few", "_route", "_grouped"} <= {launch.kernel.__name__ for launch in first + later}


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi3-partial", "olmo2", "granite", "smollm3"])
@pytest.mark.parametrize("mesh", [Mesh(), Mesh(2), Mesh(1, 2)], ids=repr)
def test_what_is_rehearsed_of_other_families_is_what_is_started(
    family: str, mesh: Mesh, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    test_what_is_rehearsed_is_what_is_started(family, mesh, made, monkeypatch)


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(2, rank=1)], ids=repr)
def test_what_is_rehearsed_of_experts_in_mxfp4_is_what_is_started(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    mxfp4_model.make(tmp_path)
    spec = read_spec(tmp_path)
    first, later = launches(spec, mesh, LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(tmp_path, spec, mesh)
    assert {"_gate_up_few_words", "_down_few_words", "_grouped_words"} <= {launch.kernel.__name__ for launch in first + later}


def test_of_a_gguf_files_mxfp4_the_experts_are_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other matrices, of which any may be of any kind, are not."""
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    mxfp4_model.make(tmp_path / "theirs")
    gguf_gpt_oss.write(tmp_path / "x.gguf", tmp_path / "theirs", rest="Q8_0")
    convert(tmp_path / "x.gguf", tmp_path, kept=True)
    spec = plan.started(read_spec(tmp_path), "None", cpu=False)
    first, later = launches(spec, Mesh(), LIMITS, 16, torch.bfloat16)
    begun = started(tmp_path, spec, Mesh())
    assert {launch.key for launch in first + later} <= begun
    assert {"_gate_up_few_words", "_down_few_words", "_grouped_words"} <= {launch.kernel.__name__ for launch in first + later}


def test_what_is_rehearsed_of_few_rows_is_what_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    monkeypatch.setattr(dense, "has_pdl", lambda: True)  # as a Hopper has it
    tiny.make("qwen3", tmp_path, hidden_size=512, intermediate_size=512)
    spec = plan.started(read_spec(tmp_path), "None", cpu=False)
    first, later = launches(spec, Mesh(), LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(tmp_path, spec, Mesh())
    assert "_gemm_few" in {launch.kernel.__name__ for launch in first}


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(2)], ids=repr)
def test_what_is_rehearsed_of_eight_bits_is_what_is_started(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    monkeypatch.setattr(fp8, "has_pdl", lambda: True)  # as a Hopper has it
    tiny.make("qwen3", tmp_path, hidden_size=256, intermediate_size=256)
    spec = plan.started(plan.with_kv(read_spec(tmp_path), "fp8"), "fp8", cpu=False)
    first, later = launches(spec, mesh, LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(tmp_path, spec, mesh)
    assert {"_gemm_fp8", "_gemm_fp8_few", "_quantize_fp8"} <= {launch.kernel.__name__ for launch in first}


@pytest.mark.parametrize("blocks", [False, True])
def test_what_is_rehearsed_of_experts_in_eight_bits_is_what_is_started(
    blocks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    sizes = {"hidden_size": 256, "moe_intermediate_size": 128, "num_experts": 4, "num_key_value_heads": 4, "mlp_only_layers": []}
    tiny.make("qwen3-moe", tmp_path, **sizes)
    spec = plan.started(read_spec(tmp_path), "fp8", cpu=False)
    if blocks:
        tensors = load_file(tmp_path / "model.safetensors")
        for name in [name for name in tensors if name.endswith("proj.weight")]:
            tensors[name] = tensors[name].to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = torch.ones(*(-(-size // 128) for size in tensors[name].shape))
        save_file(tensors, tmp_path / "model.safetensors")
        spec = replace(read_spec(tmp_path), quantization=Quantization("block", "block", "weight_scale_inv"))
    first, later = launches(spec, Mesh(), LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(tmp_path, spec, Mesh())
    assert {"_gate_up_few_fp8", "_down_few_fp8", "_route", "_grouped_fp8"} <= {launch.kernel.__name__ for launch in first + later}


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(2)], ids=repr)
def test_what_is_rehearsed_of_four_bits_is_what_is_started(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lang, "HAS_TRITON", True)
    tiny.make("qwen3", tmp_path, hidden_size=256, intermediate_size=256)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        (n, k), module = tensors.pop(name).shape, name.removesuffix(".weight")
        tensors[f"{module}.weight_packed"] = torch.zeros(n, k // 8, dtype=torch.int32)
        tensors[f"{module}.weight_scale"] = torch.ones(n, k // 128)
    save_file(tensors, tmp_path / "model.safetensors")
    spec = replace(read_spec(tmp_path), quantization=FourBits("compressed", 128, symmetric=True))
    first, later = launches(spec, mesh, LIMITS, 16, torch.bfloat16)
    assert {launch.key for launch in first + later} == started(tmp_path, spec, mesh)
    assert {"_gemm_int4", "_gemm_int4_few", "_widen_int4"} <= {launch.kernel.__name__ for launch in first + later}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_is_compiled_once_it_is_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU: a model's first token compiles no kernel that is not in `first`."""
    import triton

    tiny.make("qwen3", tmp_path)
    runner = Runner(tmp_path, device="cuda:0", dtype="bfloat16", memory=0.1)
    made: list[str] = []
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_post_compile_hook", lambda **said: None if said["is_manual_warmup"] else made.append(said["repr"])
    )
    runner.add(Job(0, tuple(range(5, 60)), 8, ignore_eos=True))
    while not runner.idle:
        runner.step()
    assert made == []


def test_stages_pad_alike_whatever_their_own_layers_are(tmp_path: Path) -> None:
    """The first of four layers is whole, the others have experts: a stage of each has another kind of matrices, and the same sizes."""
    tiny.make("qwen3", tmp_path / "dense")
    dense_spec = read_spec(tmp_path / "dense")
    assert 224 not in batch_sizes(dense_spec), "cuBLAS is slower there than at 256"
    assert 224 in batch_sizes(plan.started(dense_spec, "fp8", cpu=False))
    tiny.make("qwen3-moe", tmp_path / "mixed", mlp_only_layers=[0], num_hidden_layers=4)
    spec = read_spec(tmp_path / "mixed")
    assert spec.experts is not None
    assert spec.experts.dense == {0}
    assert 224 in batch_sizes(spec)
