"""Checkpoints of eight bits: every scheme is read as its file says, whole and in shards, and what is not known is refused by name."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tiny

from holynb.errors import UserError
from holynb.pool.engine.load import load, open_safetensors
from holynb.pool.engine.model import Layer
from holynb.pool.engine.runner import Runner
from holynb.pool.fit import Mesh, check_shapes, plan, read_spec
from holynb.pool.fit.quantization import AT_LOAD, Quantization, parse_quantization
from holynb.pool.fit.spec import UnknownModel
from holynb.pool.modelfields import FieldRefused
from holynb.pool.protocol import Job
from kernels_support.gpu import fp8
from kernels_support.gpu.experts import experts_reference
from kernels_support.gpu.fp8_matrix import Fp8Matrices, Fp8Matrix, dequantize, quantize_matrix

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

SIZES = {"hidden_size": 256, "intermediate_size": 384, "num_key_value_heads": 4, "num_hidden_layers": 2}
FP8_FLOAT = {"num_bits": 8, "type": "float", "symmetric": True}


def compressed(weights: dict[str, Any], activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": FP8_FLOAT | weights, "input_activations": activations and FP8_FLOAT | activations}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


#: quantization_config as files on hubs have it, and what it says.
SCHEMES: dict[str, tuple[dict[str, Any], Quantization]] = {
    "Qwen3-8B-FP8": (
        {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": [],
        },
        Quantization("block", "block", "weight_scale_inv"),
    ),
    "AutoFP8, static": (
        {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
        Quantization("tensor", "static"),
    ),
    "AutoFP8, dynamic": ({"quant_method": "fp8", "activation_scheme": "dynamic"}, Quantization("tensor", "token")),
    "llm-compressor FP8": (
        compressed({"strategy": "tensor", "dynamic": False}, {"strategy": "tensor", "dynamic": False}),
        Quantization("tensor", "static"),
    ),
    "llm-compressor FP8_DYNAMIC": (
        compressed({"strategy": "channel", "dynamic": False}, {"strategy": "token", "dynamic": True}),
        Quantization("channel", "token"),
    ),
    "llm-compressor FP8_BLOCK": (
        compressed(
            {"strategy": "block", "dynamic": False, "block_structure": [128, 128]},
            {"strategy": "group", "group_size": 128, "dynamic": True},
        ),
        Quantization("block", "block"),
    ),
    "weights alone": (compressed({"strategy": "channel", "dynamic": False}, None), Quantization("channel", "none")),
    "fbgemm_fp8": (
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]},
        Quantization("channel", "token", most=1200.0),
    ),
}


def write(folder: Path, scheme: str, family: str = "qwen3", **more: Any) -> tuple[Path, Path]:
    """A tiny model in eight bits by this scheme, and beside it the same with its matrices widened."""
    given, how = SCHEMES[scheme]
    tiny.make(family, folder, **SIZES | more)
    plain = folder.with_name(f"{folder.name}-plain")
    plain.mkdir()
    tensors, wide = load_file(folder / "model.safetensors"), {}
    for name in list(tensors):
        if not name.endswith("proj.weight"):
            continue
        weight, module = tensors[name], name.removesuffix(".weight")
        matrix = quantize_matrix(weight)
        if how.weights == "tensor":
            matrix = Fp8Matrix((weight / matrix.scale.max()).to(torch.float8_e4m3fn), matrix.scale.max().expand(len(weight)))
        elif how.weights == "block":
            scale = torch.rand(-(-weight.shape[0] // 128), -(-weight.shape[1] // 128)) * 0.01 + 0.005
            values = weight / dequantize(Fp8Matrix(torch.ones_like(weight).to(torch.float8_e4m3fn), scale))
            matrix = Fp8Matrix(values.clamp(-448, 448).to(torch.float8_e4m3fn), scale)
        tensors[name], wide[name] = matrix.values, dequantize(matrix)
        scales = matrix.scale[0].clone() if how.weights == "tensor" else matrix.scale[:, None] if how.weights == "channel" else matrix.scale
        tensors[f"{module}.{how.scale}"] = scales.contiguous()
        if how.activations == "static":
            tensors[f"{module}.input_scale"] = torch.tensor(0.02)
    save_file({**load_file(folder / "model.safetensors"), **wide}, plain / "model.safetensors")
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (plain / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": given}), "utf-8")
    return folder, plain


def answer(folder: Path) -> list[int]:
    runner, tokens = Runner(folder), list[int]()
    runner.add(Job(0, (5, 6, 7, 8), 12, ignore_eos=True))
    while not runner.idle:
        tokens += [t for emit in runner.step() for t in emit.tokens]
    return tokens


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_is_read_as_its_file_says(scheme: str, tmp_path: Path) -> None:
    given, how = SCHEMES[scheme]
    assert parse_quantization({"quantization_config": given}) == how
    assert parse_quantization({"compression_config": given}) == how
    folder, plain = write(tmp_path / "model", scheme)
    check_shapes(folder, read_spec(folder))
    assert answer(folder) == answer(plain), "a CPU computes with the widened numbers"
    spec = read_spec(folder)
    with open_safetensors(folder) as source:
        whole = load(spec, Mesh().shard(spec), source, "cpu", torch.float32).layers[1]
        for rank in range(2 if how.weights != "block" else 0):
            shard = Mesh(2, 1, rank).shard(spec)
            part = load(spec, shard, source, "cpu", torch.float32).layers[1]
            assert_shard(whole, part, rank)
    if how.weights == "block":
        with (
            open_safetensors(folder) as source,
            pytest.raises(UserError, match=r"384 MLP columns in blocks of 128 do not divide by --tp 2"),
        ):
            load(spec, Mesh(2, 1, 0).shard(spec), source, "cpu", torch.float32)
    if how.activations == "none":
        return
    for field in ("qkv", "out", "gate_up", "down"):
        matrix = getattr(whole, field)
        assert isinstance(matrix, Fp8Matrix)
        assert (matrix.x_scale is not None) == (how.activations == "static")
        assert matrix.x_most == how.most
        x = torch.randn(3, matrix.shape[1])
        exact = x @ dequantize(matrix).t()
        assert (fp8.linear(x, matrix) - exact).norm() / exact.norm() < 0.05, "eight bits of x cost no more"


def assert_shard(whole: Layer, part: Layer, rank: int) -> None:
    """Half of the columns of `out` and `down`, half of the rows of each of the others, with their scales."""

    def wide(matrix: Any) -> Any:
        return dequantize(matrix) if isinstance(matrix, Fp8Matrix) else matrix

    for field in ("out", "down"):
        assert torch.equal(wide(getattr(part, field)), wide(getattr(whole, field)).chunk(2, 1)[rank])
    gate, up = wide(whole.gate_up).chunk(2)
    assert torch.equal(wide(part.gate_up), torch.cat((gate.chunk(2)[rank], up.chunk(2)[rank])))


def test_the_file_decides_which_modules_are_plain(tmp_path: Path) -> None:
    """Those that are listed as not converted: plain tensors, which stay plain; but half of a fused matrix cannot be."""
    folder, plain = write(tmp_path / "model", "llm-compressor FP8_DYNAMIC")
    tensors, wide = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    module = "model.layers.0.self_attn.o_proj"
    tensors[f"{module}.weight"] = wide[f"{module}.weight"]
    del tensors[f"{module}.weight_scale"]
    save_file(tensors, folder / "model.safetensors")
    spec = read_spec(folder)
    with open_safetensors(folder) as source:
        layer = load(spec, Mesh().shard(spec), source, "cpu", torch.float32).layers[0]
    assert torch.equal(layer.out, wide[f"{module}.weight"])
    tensors["model.layers.1.self_attn.k_proj.weight"] = wide["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"k_proj.*some lie in eight bits.*--engine vllm"):
        Runner(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quant_method": "bitsandbytes"}, "quant_method 'bitsandbytes'"),
        ({"quant_method": "hqq", "bits": 4}, "quant_method 'hqq'"),
        ({"quant_method": "mxfp4"}, "quant_method 'mxfp4'"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt 'e5m2'"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, r"weight_block_size \[64, 64\]"),
        ({"quant_method": "fp8", "scale_fmt": "ue8m0"}, "scale_fmt 'ue8m0'"),
        (compressed({"strategy": "channel", "num_bits": 4}, None), "symmetric floats of 8 bits"),
        (compressed({"strategy": "channel"}, {"strategy": "tensor_group", "dynamic": True}), "input_activations.strategy"),
        (compressed({"strategy": "channel"}, None) | {"kv_cache_scheme": FP8_FLOAT}, "kv_cache_scheme"),
        (compressed({"strategy": "channel"}, None) | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
        ([1], "quantization_config is no object"),
        ({"quant_method": ["fp8"]}, "quant_method"),
        (compressed({"strategy": "channel"}, None) | {"config_groups": {"a": {}, "b": {}}}, "config_groups"),
    ],
)
def test_another_scheme_is_refused_by_name(change: Any, says: str, tmp_path: Path) -> None:
    tiny.make("qwen3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": change}), "utf-8")
    with pytest.raises(UnknownModel, match=says) as refused:
        read_spec(tmp_path)
    assert "\n" not in str(refused.value)
    if isinstance(change, dict):
        with pytest.raises(FieldRefused):
            parse_quantization({"quantization_config": change})


def test_a_missing_scale_is_one_line(tmp_path: Path) -> None:
    folder, _ = write(tmp_path / "model", "Qwen3-8B-FP8")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight_scale_inv"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"no tensor model.layers.1.mlp.up_proj.weight_scale.*promises"):
        Runner(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UserError, match=r"eight bits.*no quantization_config"):
        Runner(folder)


def test_plain_weights_are_rounded_when_they_are_read(tmp_path: Path) -> None:
    tiny.make("qwen3", tmp_path, **SIZES)
    spec = plan.started(read_spec(tmp_path), "fp8", cpu=False)
    assert spec.quantization == AT_LOAD
    with open_safetensors(tmp_path) as source:
        shard = Mesh().shard(spec)
        eight, plain = (load(s, shard, source, "cpu", torch.float32).layers[0] for s in (spec, read_spec(tmp_path)))
    matrices = {f.name for f in fields(Layer) if isinstance(getattr(eight, f.name), Fp8Matrix)}
    assert matrices == {"qkv", "out", "gate_up", "down"}
    for name in matrices:
        exact, rounded = getattr(plain, name), dequantize(getattr(eight, name))
        assert 0.01 < (rounded - exact).norm() / exact.norm() < 0.04, "three bits of mantissa"
    numbers, bytes_of = spec.layers * spec.layer_matrices, plan.weights_bytes
    assert bytes_of(spec, shard, 2) == bytes_of(read_spec(tmp_path), shard, 2) - numbers
    with pytest.raises(UserError, match=r"--dtype fp8 needs a GPU"):
        Runner(tmp_path, dtype="fp8")


@pytest.mark.parametrize("scheme", ["Qwen3-8B-FP8", "llm-compressor FP8", "llm-compressor FP8_DYNAMIC", "weights alone"])
def test_experts_are_read_as_their_file_says(scheme: str, tmp_path: Path) -> None:
    """As Qwen3-30B-A3B-FP8 has them, and one scale a tensor or a row; the router is plain in all."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "moe_intermediate_size": 256, "num_experts": 4, "num_experts_per_tok": 2}
    sizes["num_key_value_heads"] = 8
    folder, plain = write(tmp_path / "model", scheme, "qwen3-moe", **sizes)
    spec = read_spec(folder)
    check_shapes(folder, spec)
    assert answer(folder) == answer(plain), "a CPU computes with the widened numbers"
    with open_safetensors(folder) as eights, open_safetensors(plain) as wides:
        kept = load(spec, Mesh().shard(spec), eights, "cpu", torch.float32).layers[0].experts
        wide = load(read_spec(plain), Mesh().shard(spec), wides, "cpu", torch.float32).layers[0].experts
        halves = [load(spec, Mesh(2, 1, rank).shard(spec), eights, "cpu", torch.float32).layers[0].experts for rank in range(2)]
    assert kept is not None
    assert wide is not None
    assert isinstance(kept.gate_up, torch.Tensor if scheme == "weights alone" else Fp8Matrices)
    torch.manual_seed(1)
    x = torch.randn(5, 128)
    exact = experts_reference(x, wide)
    wrong = (experts_reference(x, kept) - exact).norm() / exact.norm()
    # One scale for every x, as a file may have it, is coarse for the small ones between the two products.
    most = {"weights alone": 1e-6, "llm-compressor FP8": 0.15}.get(scheme, 0.07)
    assert wrong < most, "eight bits of x cost no more"
    assert (sum(experts_reference(x, half) for half in halves if half) - exact).norm() / exact.norm() < most
    given = plan.weights_bytes(spec, Mesh().shard(spec), 2) - plan.weights_bytes(read_spec(plain), Mesh().shard(spec), 2)
    eight = [t.numel() for name, t in load_file(folder / "model.safetensors").items() if t.dtype == torch.float8_e4m3fn]
    assert scheme == "weights alone" or abs(given + sum(eight)) < sum(eight) * 0.01, "a byte of each number less, and the router's two"


def test_plain_experts_are_rounded_when_they_are_read(tmp_path: Path) -> None:
    tiny.make("mixtral", tmp_path, **SIZES)
    spec = plan.started(read_spec(tmp_path), "fp8", cpu=False)
    with open_safetensors(tmp_path) as source:
        eight, plain = (load(s, Mesh().shard(s), source, "cpu", torch.float32).layers[0].experts for s in (spec, read_spec(tmp_path)))
    assert eight is not None
    assert plain is not None
    assert isinstance(eight.gate_up, Fp8Matrices)
    assert torch.equal(eight.router, plain.router)
    assert 0.01 < (dequantize(eight.gate_up[1]) - plain.gate_up[1]).norm() / plain.gate_up[1].norm() < 0.04


def test_blocks_of_experts_are_not_divided(tmp_path: Path) -> None:
    """One more --tp would cut 256 columns into pieces of 64: said before anything is read."""
    sizes = {"hidden_size": 128, "intermediate_size": 512, "moe_intermediate_size": 256, "num_experts": 2, "num_experts_per_tok": 1}
    folder, _ = write(tmp_path / "model", "Qwen3-8B-FP8", "qwen3-moe", **sizes)
    with pytest.raises(UserError, match=r"512 and 256 MLP columns in blocks of 128 do not divide by --tp 4.*can be 1, 2\."):
        Mesh(4).shard(read_spec(folder))
