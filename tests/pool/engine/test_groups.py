"""Matrices of four and eight bits on a CPU, and as a GPU has them: each kind of GGUF against its values in float32, whole models, shards, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import gguf_fake
import numpy as np
import pytest
import tiny

from holynb.errors import UserError
from holynb.pool.engine.computetype import compute_dtype
from holynb.pool.engine.load import load, open_safetensors
from holynb.pool.engine.load_groups import packed, read_group, widened_source
from holynb.pool.engine.runner import Runner
from holynb.pool.fit import Mesh, describe_fit, plan, read_spec
from holynb.pool.models.convert import convert
from holynb.pool.models.gguf_groups import BITS, entries, gpu_bits, groups_of
from holynb.pool.protocol import Job

torch = pytest.importorskip("torch")
from pool.models.test_gguf_groups import blocks  # noqa: E402

from kernels_support.cpu import grouped, machine_code  # noqa: E402
from kernels_support.gpu import dense, packed_matrix  # noqa: E402

pytestmark = pytest.mark.skipif(not machine_code.lanes(), reason="this processor has no fast product of four bits")


def source_of(kind: str, rows: int, columns: int) -> tuple[Any, Any]:
    """A matrix of this kind as a TensorSource has it, and its values in float32."""
    data = blocks(kind, rows, columns)
    names = [f"m.weight{end}" for end, _, _ in entries(kind, (rows, columns))]
    tensors = dict(zip(names, map(torch.from_numpy, groups_of(data, kind).arrays), strict=True))

    def read(name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> Any:
        tensor = tensors.get(name)
        return None if tensor is None else tensor[slice(*rows) if rows else slice(None), slice(*columns) if columns else slice(None)]

    return read, torch.from_numpy(gguf.dequantize(data, gguf.GGMLQuantizationType[kind]).astype(np.float32))


#: How far a product may be where x is rounded to 16 bits (`grouped_integers.py`), and where nothing is.
FAR = 4e-5 if machine_code.lanes() == 8 else 1e-6


def far(got: Any, wanted: Any) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("rows", [1, 70])
def test_each_kind_is_multiplied_as_its_values_are(kind: str, rows: int) -> None:
    source, wanted = source_of(kind, 100, 512)
    x = torch.randn(rows, 512, generator=torch.Generator().manual_seed(rows))
    matrix = grouped.pack_groups([read_group(source, ("m", (0, 100)))])
    assert far(grouped.linear(x, matrix), x @ wanted.t()) < (FAR if matrix.layout.bits == 4 else 1e-6)
    assert torch.equal(grouped.widen(matrix), wanted)
    if rows == 1:
        for_gpu = packed([read_group(source, ("m", (0, 100)))], "cpu", torch.float32)
        assert far(packed_matrix.dequantize(for_gpu), wanted) < 1e-7
        assert for_gpu.nbytes == round(gpu_bits([kind], 512) * 51200 / 8)
    assert torch.equal(widened_source(source)("m.weight"), wanted)
    assert torch.equal(widened_source(source)("m.weight", (3, 9)), wanted[3:9])
    assert torch.equal(widened_source(source)("m.weight", None, (64, 160)), wanted[:, 64:160])


def test_shards_meet_where_groups_do_and_nowhere_else() -> None:
    source, wanted = source_of("Q4_1", 64, 192)
    x = torch.randn(2, 192, generator=torch.Generator().manual_seed(0))
    halves = [grouped.pack_groups([read_group(source, ("m", (0, 64)), columns)]) for columns in ((0, 96), (96, 192))]
    assert far(grouped.linear(x[:, :96], halves[0]) + grouped.linear(x[:, 96:], halves[1]), x @ wanted.t()) < FAR
    with pytest.raises(UserError, match="divided within 32 columns that share a scale"):
        read_group(source, ("m", (0, 64)), (0, 48))


def kept(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / kind
    folder.mkdir()
    gguf_fake.write(tmp_path / f"{kind}.gguf", kind=kind)
    convert(tmp_path / f"{kind}.gguf", folder, kept=True)
    return folder


def nbytes(weights: Any) -> int:
    """Of all that lies in memory, one table counted once."""
    fields = [getattr(layer, name) for layer in weights.layers for name in layer.__dataclass_fields__]
    parts = {id(one): one for one in [*fields, weights.embed, weights.norm, weights.head] if one is not None}
    return sum(one.nbytes for one in parts.values() if hasattr(one, "nbytes"))


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0"])
def test_a_quantized_file_stays_so_and_says_what_its_values_say(tmp_path: Path, kind: str) -> None:
    folder = kept(tmp_path, kind)
    widened = Runner(folder, dtype="float32", memory=0.05)
    assert widened.spec.quantization.widened
    runner = Runner(folder, memory=0.05)
    assert runner.weights_bytes < widened.weights_bytes / 2
    said = []
    for one in (runner, widened):
        one.add(Job(0, (2, 9, 4, 11, 3), 6, ignore_eos=True))
        said.append([token for _ in range(10) if not one.idle for emit in one.step() for token in emit.tokens])
    assert said[0] == said[1]


def test_the_plan_counts_what_lies_in_memory(tmp_path: Path) -> None:
    spec = plan.started(read_spec(kept(tmp_path, "Q8_0")), "None", cpu=True)
    shard = Mesh().shard(spec)
    with open_safetensors(tmp_path / "Q8_0") as source:
        loaded = nbytes(load(spec, shard, source, "cpu", torch.float32))
    # Rows are padded to whole blocks of 64: of these sizes more than of any model's.
    assert plan.weights_bytes(spec, shard, 4, cpu=True) <= loaded <= 1.5 * plan.weights_bytes(spec, shard, 4, cpu=True)


def test_the_plan_says_what_becomes_of_the_files_bits(tmp_path: Path) -> None:
    spec = read_spec(kept(tmp_path, "Q4_1"))
    said = {}
    for dtype, cpu in (("int8", True), ("float32", True), ("bfloat16", False)):
        limits, device = plan.limits_of(spec, cpu=cpu), plan.Device(1, 80_000_000_000, cpu=cpu)
        said[dtype] = describe_fit(spec, device, plan.fit(spec, device, Mesh(), dtype, limits), dtype, limits)
    assert "in its own four to eight bits: " in said["int8"]
    assert "in float32, to which its own four to eight bits are widened: " in said["float32"]
    assert "in its own four to eight bits: " in said["bfloat16"], "a GPU computes so with them"


def test_int8_rounds_plain_weights_when_they_are_read(tmp_path: Path) -> None:
    folder = tmp_path
    tiny.make("llama", folder)
    spec = plan.started(read_spec(folder), "int8", cpu=True)
    with open_safetensors(folder) as source:
        weights = load(spec, Mesh().shard(spec), source, "cpu", torch.float32)
        plain = source("model.layers.0.mlp.down_proj.weight")
    assert far(grouped.widen(weights.layers[0].down), plain) < 1e-2
    assert weights.embed is weights.head
    assert Runner(folder, dtype="int8", memory=0.05).dtype == "float32"


@pytest.mark.parametrize("cpu", [False, True])
def test_where_int8_is_not_it_is_refused(tmp_path: Path, cpu: bool) -> None:
    tiny.make("mixtral", tmp_path)
    with pytest.raises(UserError, match="rounds no experts"):
        plan.started(read_spec(tmp_path), "int8", cpu=cpu)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "int8"])
def test_what_a_gpu_is_given_is_to_the_bit_what_a_cpu_multiplies(tmp_path: Path, kind: str) -> None:
    """Plain torch stands for the kernels, which `tests/gpu/test_packed_kernels.py` holds against it."""
    if kind == "int8":
        tiny.make("llama", tmp_path)
    folder, dtype = (tmp_path, "int8") if kind == "int8" else (kept(tmp_path, kind), "None")
    spec = plan.started(read_spec(folder), dtype, cpu=False)
    with open_safetensors(folder) as source:
        ours, cpus = (
            load(s, Mesh().shard(s), source, "cpu", torch.float32) for s in (spec, plan.started(read_spec(folder), dtype, cpu=True))
        )
    ids = torch.tensor([3, 1, 3])
    assert torch.equal(dense.lookup(ids, ours.embed), dense.lookup(ids, cpus.embed))
    for layer, other in zip(ours.layers, cpus.layers, strict=True):
        for name in ("qkv", "out", "gate_up", "down"):
            assert torch.equal(packed_matrix.dequantize(getattr(layer, name)), grouped.widen(getattr(other, name)))
    assert compute_dtype(None, "cuda:0", spec) == compute_dtype("int8", "cuda:0", spec) == "bfloat16"
    # What is rounded when it is read is planned without what fills its last 64 columns up.
    assert nbytes(ours) == pytest.approx(plan.weights_bytes(spec, Mesh().shard(spec), 4), rel=0.06 if kind == "int8" else 1e-3)


def test_kinds_with_the_same_input_lie_in_one_that_holds_all() -> None:
    """As llama.cpp's mixtures have them: v finer than q and k."""
    parts = [read_group(source_of(kind, 32, 512)[0], ("m", (0, 32))) for kind in ("Q4_K", "Q4_0", "Q6_K", "Q5_1")]
    matrix = packed(parts, "cpu", torch.float32)
    assert (matrix.bits, matrix.group, matrix.factors.dtype) == (8, 16, torch.int64)
    assert far(packed_matrix.dequantize(matrix), torch.cat([part.dequantized() for part in parts])) < 1e-7
    assert matrix.nbytes == gpu_bits(["Q4_K", "Q4_0", "Q6_K", "Q5_1"], 512) * 128 * 512 / 8
