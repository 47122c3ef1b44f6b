"""Matrices of four bits: each packing is written here as its project describes it, and read as the numbers that went in.

AutoAWQ (`WQLinear_GEMM`), AutoGPTQ's QuantLinear and GPTQModel's v2, and compressed-tensors' pack-quantized.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from holynb.errors import UserError
from holynb.pool.engine.load import load, open_safetensors
from holynb.pool.engine.runner import Runner
from holynb.pool.fit import Mesh, check_shapes, plan, read_spec
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.spec import UnknownModel
from holynb.pool.protocol import Job
from kernels_support.gpu import packed_matrix
from kernels_support.gpu.int4_matrix import Int4Matrix, dequantize

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

SIZES = {"hidden_size": 256, "intermediate_size": 384, "num_key_value_heads": 4, "num_hidden_layers": 2}
GROUP = 128
PACKED = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "dynamic": False}


def compressed(**more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": PACKED | more, "input_activations": None}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


#: quantization_config as files on hubs have it, and what it says.
SCHEMES: dict[str, tuple[dict[str, Any], FourBits]] = {
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm", "modules_to_not_convert": None},
        FourBits("awq", GROUP),
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False, "damp_percent": 0.01},
        FourBits("gptq", GROUP),
    ),
    "gptq act-order": (
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": True, "true_sequential": True},
        FourBits("gptq", GROUP),
    ),
    "gptq_v2": (
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "checkpoint_format": "gptq_v2", "pack_dtype": "int32"},
        FourBits("gptq_v2", GROUP),
    ),
    "compressed": (compressed(symmetric=True), FourBits("compressed", GROUP, symmetric=True)),
    "compressed with zeros": (compressed(symmetric=False), FourBits("compressed", GROUP)),
}


def signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def along_rows(numbers: Any) -> Any:
    """(rows, columns) → (rows / 8, columns) int32: eight rows in a word, the first lowest."""
    rows, columns = numbers.shape
    table = numbers.tolist()
    words = [[signed(sum(table[8 * r + i][c] << 4 * i for i in range(8))) for c in range(columns)] for r in range(rows // 8)]
    return torch.tensor(words, dtype=torch.int32)


def awq_columns(numbers: Any) -> Any:
    """(rows, columns) → (rows, columns / 8) int32: of eight columns the even ones first."""
    table, order = numbers.tolist(), [0, 2, 4, 6, 1, 3, 5, 7]
    words = [[signed(sum(row[c + order[i]] << 4 * i for i in range(8))) for c in range(0, len(row), 8)] for row in table]
    return torch.tensor(words, dtype=torch.int32)


def quantized(weight: Any, scheme: str, index: Any) -> tuple[dict[str, Any], Any]:
    """(n, k) in this scheme: its tensors, and what they stand for."""
    n, k = weight.shape
    symmetric = scheme in {"gptq act-order", "compressed"}
    numbers, scales, zeros = torch.empty(n, k, dtype=torch.int32), torch.empty(n, k // GROUP), torch.empty(n, k // GROUP, dtype=torch.int32)
    for g in range(k // GROUP):
        part = weight[:, index == g]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        scale = (torch.maximum(-low, high) / 7 if symmetric else (high - low) / 15).half().float()
        zero = torch.full((n,), 8) if symmetric else (-low / scale).round().clamp(1, 15).int()
        numbers[:, index == g] = ((part / scale[:, None]).round() + zero[:, None]).clamp(0, 15).int()
        scales[:, g], zeros[:, g] = scale, zero
    wide = (numbers - zeros[:, index]) * scales[:, index]
    halves = scales.half()
    if scheme == "awq":
        return {"qweight": awq_columns(numbers.t()), "qzeros": awq_columns(zeros.t()), "scales": halves.t().contiguous()}, wide
    if scheme.startswith("gptq"):
        stored = zeros - int(scheme != "gptq_v2")
        tensors = {"qweight": along_rows(numbers.t()), "qzeros": along_rows(stored).t().contiguous(), "scales": halves.t().contiguous()}
        return tensors | {"g_idx": index.int()}, wide
    tensors = {"weight_packed": along_rows(numbers.t()).t().contiguous(), "weight_scale": halves, "weight_shape": torch.tensor([n, k])}
    return tensors | ({} if symmetric else {"weight_zero_point": along_rows(zeros)}), wide


def write(folder: Path, scheme: str, family: str = "qwen3", **sizes: int) -> tuple[Path, Path]:
    """A tiny model in four bits by this scheme, and beside it the same with its matrices widened."""
    tiny.make(family, folder, **SIZES | sizes)
    plain = folder.with_name(f"{folder.name}-plain")
    plain.mkdir()
    source = load_file(folder / "model.safetensors")
    tensors, wide = dict(source), dict(source)
    orders: dict[int, Any] = {}
    for name in source:
        if not name.endswith("proj.weight"):
            continue
        k, module = source[name].shape[1], name.removesuffix(".weight")
        index = torch.arange(k) // GROUP
        if scheme == "gptq act-order":  # what has the same input has the same order
            index = orders.setdefault(k, index[torch.randperm(k, generator=torch.Generator().manual_seed(k))])
        packed, wide[name] = quantized(tensors.pop(name), scheme, index)
        tensors |= {f"{module}.{kind}": tensor.clone() for kind, tensor in packed.items()}
    save_file(wide, plain / "model.safetensors")
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (plain / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": SCHEMES[scheme][0]}), "utf-8")
    return folder, plain


def answer(folder: Path) -> list[int]:
    runner, tokens = Runner(folder), list[int]()
    runner.add(Job(0, (5, 6, 7, 8), 12, ignore_eos=True))
    while not runner.idle:
        tokens += [t for emit in runner.step() for t in emit.tokens]
    return tokens


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_packing_is_read_as_its_project_writes_it(scheme: str, tmp_path: Path) -> None:
    folder, plain = write(tmp_path / "model", scheme)
    spec = read_spec(folder)
    assert spec.quantization == SCHEMES[scheme][1]
    check_shapes(folder, spec)
    assert answer(folder) == answer(plain), "a CPU computes with the widened numbers"
    with open_safetensors(folder) as source, open_safetensors(plain) as wide:
        ours = load(spec, Mesh().shard(spec), source, "cpu", torch.float32).layers[1]
        exact = load(read_spec(plain), Mesh().shard(spec), wide, "cpu", torch.float32).layers[1]
        for field in ("qkv", "out", "gate_up", "down"):
            matrix = getattr(ours, field)
            assert isinstance(matrix, Int4Matrix)
            assert (matrix.order is not None) == (scheme == "gptq act-order")
            assert torch.equal(dequantize(matrix), getattr(exact, field)), field
        mesh = Mesh(2, 1, 1)
        if scheme == "gptq act-order":
            with pytest.raises(UserError, match=r"desc_act.*--pp"):
                load(spec, mesh.shard(spec), source, "cpu", torch.float32)
            return
        if SIZES["intermediate_size"] // 2 % GROUP:
            with pytest.raises(UserError, match=r"down_proj would be divided within a group of 128.*--tp"):
                load(spec, mesh.shard(spec), source, "cpu", torch.float32)


@pytest.mark.parametrize("scheme", ["awq", "gptq", "compressed with zeros"])
def test_a_shard_has_its_rows_and_columns(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "intermediate_size", 256)
    folder, plain = write(tmp_path / "model", scheme)
    spec = read_spec(folder)
    with open_safetensors(folder) as source, open_safetensors(plain) as wide:
        for rank in range(2):
            shard = Mesh(2, 1, rank).shard(spec)
            ours, exact = (load(s, shard, w, "cpu", torch.float32).layers[0] for s, w in ((spec, source), (read_spec(plain), wide)))
            for field in ("qkv", "out", "gate_up", "down"):
                assert torch.equal(dequantize(getattr(ours, field)), getattr(exact, field)), field


@pytest.mark.parametrize("scheme", ["awq", "compressed", "gptq act-order"])
def test_experts_are_read_as_their_project_writes_them(scheme: str, tmp_path: Path) -> None:
    """Qwen3-30B-A3B's AWQ and GPTQ files: each expert's matrices in tensors of their own."""
    sizes = {"moe_intermediate_size": 256, "num_experts": 3, "num_experts_per_tok": 2, "num_hidden_layers": 1}
    folder, plain = write(tmp_path / "model", scheme, "qwen3-moe", **sizes)
    spec = read_spec(folder)
    check_shapes(folder, spec)
    if scheme == "gptq act-order":
        with pytest.raises(UserError, match=r"experts\.0\.gate_proj has columns in an order.*--engine vllm"):
            answer(folder)
        return
    assert answer(folder) == answer(plain), "a CPU computes with the widened numbers"
    with open_safetensors(folder) as source, open_safetensors(plain) as wide:
        for mesh in (Mesh(), Mesh(2, 1, 1)):
            ours, exact = (
                load(s, mesh.shard(s), tensors, "cpu", torch.float32) for s, tensors in ((spec, source), (read_spec(plain), wide))
            )
            for field in ("gate_up", "down"):
                packed, widened = (getattr(weights.layers[0].experts, field) for weights in (ours, exact))
                assert packed.words.dtype == torch.int16
                for e in range(3):
                    # A scale and a zero are a product and a sum here, of numbers less their zero there.
                    torch.testing.assert_close(packed_matrix.dequantize(packed, expert=e), widened[e], rtol=0, atol=1e-7)
            tensors = [w for layer in ours.layers for w in (layer.norm, layer.qkv, layer.out, layer.mlp_norm, layer.q_norm, layer.k_norm)]
            mixture = ours.layers[0].experts
            assert mixture is not None
            tensors += [mixture.router, mixture.gate_up, mixture.down, ours.embed, ours.norm, ours.head]
            assert sum(t.nbytes for t in tensors if t is not None) == plan.weights_bytes(spec, mesh.shard(spec), 4)


def test_fours_are_planned_as_fours(tmp_path: Path) -> None:
    folder, plain = write(tmp_path / "model", "awq")
    four, wide = (plan.started(read_spec(f), "bfloat16", cpu=False) for f in (folder, plain))
    shard, numbers = Mesh().shard(four), four.layers * four.layer_matrices
    saved = plan.weights_bytes(wide, shard, 2) - plan.weights_bytes(four, shard, 2)
    assert saved == pytest.approx(numbers * (2 - 0.5 - 8 / 128), abs=1)
    limits = plan.limits_of(four, cpu=False)
    assert plan.work_bytes(four, shard, limits, 2) > plan.work_bytes(wide, shard, limits, 2)
    assert plan.weights_bytes(plan.started(four, "float32", cpu=True), shard, 4, cpu=True) == plan.weights_bytes(wide, shard, 4, cpu=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quant_method": "awq", "bits": 8, "group_size": 128}, "bits 8"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}, "version 'gemv'"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": False}, "zero_point False"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "bits 3"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "group_size -1"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": True}, "lm_head True"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"+:x": {"bits": 8}}}, "dynamic"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "is_marlin_format": True}, "is_marlin_format"),
        ({"quant_method": "gptq", "group_size": 128}, "bits None"),
        (compressed(num_bits=8), "integers of 4 bits"),
        (compressed(strategy="channel"), "integers of 4 bits"),
        (compressed(group_size=32), "group_size 32"),
    ],
)
def test_another_packing_is_refused_by_name(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    tiny.make("qwen3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": change}), "utf-8")
    with pytest.raises(UnknownModel, match=says) as refused:
        read_spec(tmp_path)
    assert "\n" not in str(refused.value)
    assert "--engine vllm" in str(refused.value)
