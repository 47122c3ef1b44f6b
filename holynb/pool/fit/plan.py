"""What fits: weights, KV cache and work per device, before anything is loaded. Numbers only; knows no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import Any

from holynb.errors import UserError
from holynb.pool.fit.cache_groups import BLOCK_TOKENS, cache_groups, row_blocks
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.groups import GROUP, INT8_AT_LOAD, GroupQuantization, multiplies_groups
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.fit.mesh import Mesh, tensor_sizes
from holynb.pool.fit.quantization import AT_LOAD
from holynb.pool.fit.space import cache_bytes, kv_bytes, weights_bytes, work_bytes
from holynb.pool.fit.spec import Spec

__all__ = [
    "SHARE",
    "Device",
    "Fit",
    "all_fits",
    "best_fit",
    "cache_bytes",
    "fit",
    "in_four_bits",
    "itemsize_of",
    "kv_bytes",
    "limits_of",
    "preference",
    "smaller_dtypes",
    "spec_of_size",
    "started",
    "weights_bytes",
    "with_kv",
    "work_bytes",
]

#: What a CUDA context, its libraries and captured graphs hold beside our tensors. Measured on one H200: 1.5 GB beside 0.6B,
#: 2.5 GB beside 8B, 1 % of the whole more than planned.
GPU_OVERHEAD_BYTES = 1_200_000_000

#: The same on a CPU: what torch's allocator and oneDNN hold beside our tensors (measured: 60 to 380 MB, SmolLM2, 4 to 64 rows).
CPU_OVERHEAD_BYTES = 200_000_000

#: Of a device's memory, where none is asked for.
SHARE = 0.9

#: Longest sequence where none is asked for and the model could do more.
DEFAULT_MAX_LEN = 8192

#: Seconds to the first token without the weights, and bytes of weights a second from a warm disk. GPU: 6.0 to 6.5 s at 1.2 GB (one H200,
#: kernels never compiled), the rate from an earlier version's 9.7 and 12.4 s at 1.2 and 16.4 GB; CPU: from 3.3 to 5.0 s (SmolLM2, 0.5 GB,
#: two shared cores), the rate an estimate.
STARTUP_S, LOAD_BYTES_PER_S = {"cpu": 3.5, "gpu": 6.1}, {"cpu": 2e9, "gpu": 5.5e9}

#: layers, hidden, inner, heads, KV heads, head size, vocabulary of dense models that people run, small to large.
SHAPES = (
    (30, 576, 1536, 9, 3, 64, 49152),
    (28, 1024, 3072, 16, 8, 128, 151936),
    (28, 2048, 6144, 16, 8, 128, 151936),
    (36, 2560, 9728, 32, 8, 128, 151936),
    (36, 4096, 12288, 32, 8, 128, 151936),
    (40, 5120, 17408, 40, 8, 128, 151936),
    (64, 5120, 25600, 64, 8, 128, 151936),
    (80, 8192, 28672, 64, 8, 128, 128256),
    (126, 16384, 53248, 128, 8, 128, 128256),
)

#: The context of a model of which only the size is known.
ANY_LEN = 2**31

#: How files of four bits usually lie.
FOUR_BITS = FourBits("gptq", 128)

#: Bytes of a number that is computed with. With fp8 and int8 the matrices alone have one byte.
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 2, "int8": 4}


def itemsize_of(dtype: str, *, cpu: bool) -> int:
    """The same on a device: with int8 a GPU computes in two bytes."""
    return 2 if dtype == "int8" and not cpu else ITEMSIZE[dtype]


def started(spec: Spec, dtype: str, *, cpu: bool) -> Spec:
    """The model as it lies on its devices once it is started: its matrices plain, in its files' eight bits, or rounded when they are read.

    A CPU has no product of FP8 numbers, nor here of fours, and computes with their values in float32. Raises UserError where it is asked
    for one.
    """
    if dtype == "fp8" and spec.experts is not None and spec.experts.stacked:
        raise UserError(f"--dtype fp8 does not round the experts of {spec.family}. Leave --dtype out.")
    if cpu and dtype == "fp8":
        raise UserError("--dtype fp8 needs a GPU: a CPU has no such numbers. Take --dtype int8, or leave --dtype out.")
    if isinstance(given := spec.quantization, GroupQuantization):
        if not cpu:
            return replace(spec, quantization=given.plain if dtype in ("float32", "fp8") else given.for_gpu)
        kept = dtype in ("None", "auto", "int8") and multiplies_groups()
        return spec if kept else replace(spec, quantization=given.plain)
    if dtype == "int8":
        return replace(spec, quantization=_int8(spec, cpu=cpu))
    if spec.quantization is None:
        return replace(spec, quantization=AT_LOAD) if dtype == "fp8" else spec
    if not cpu:
        return spec
    how = spec.quantization
    return replace(spec, quantization=replace(how, widened=True) if isinstance(how, FourBits) else replace(how, activations="none"))


def _int8(spec: Spec, *, cpu: bool) -> GroupQuantization:
    if cpu and not multiplies_groups():
        raise UserError("--dtype int8 needs Linux and a processor with AVX2. Leave --dtype out.")
    if spec.experts is not None or spec.fused:
        raise UserError("--dtype int8 rounds no experts, and no q, k and v of one tensor. Leave --dtype out.")
    if spec.quantization is not None:
        raise UserError("--dtype int8 rounds plain weights, and this model's are in eight bits or fewer already. Leave --dtype out.")
    if any(size % GROUP for size in (spec.hidden, spec.inner, spec.heads * spec.head_dim)):
        raise UserError(f"--dtype int8 needs matrices whose sizes are multiples of {GROUP}, and this model's are not. Leave --dtype out.")
    return INT8_AT_LOAD if cpu else INT8_AT_LOAD.for_gpu


def smaller_dtypes(spec: Spec, dtype: str, *, fp8: bool = True) -> list[str]:
    """Those that take less of a GPU than `dtype`, the nearest first: fp8 only where all matrices are rounded when they are read.

    fp8: whether the GPU multiplies such numbers.
    """
    rounded = fp8 and spec.quantization is None and (spec.experts is None or not spec.experts.stacked)
    return ["bfloat16"] * (itemsize_of(dtype, cpu=False) > 2) + ["fp8"] * (rounded and dtype not in ("fp8", "int8"))


def in_four_bits(spec: Spec) -> Spec | None:
    """The model as files of four bits (AWQ, GPTQ) have it; None where the engine reads none of it, or its own have fewer bits already."""
    own = spec.experts
    sizes = [
        spec.hidden,
        spec.heads * spec.head_dim,
        spec.inner if own is None or own.dense else spec.hidden,
        spec.hidden if own is None else own.inner,
    ]
    if spec.quantization is not None or spec.fused or (own is not None and own.stacked) or any(size % FOUR_BITS.group for size in sizes):
        return None
    return replace(spec, quantization=FOUR_BITS)


def with_kv(spec: Spec, kv: str | None) -> Spec:
    """The model with a cache of eight bits where it is asked for; else as its files have it. Raises UserError for what is not known."""
    if kv not in (None, "fp8"):
        raise UserError(f"--kv takes fp8, not {kv}; without it keys and values are kept as they are computed.")
    return replace(spec, kv_fp8=True) if kv else spec


def limits_of(spec: Spec, *, cpu: bool, max_len: int | None = None) -> BatchLimits:
    """Sizes of a batch. A CPU gains little beyond 64 rows, and a long chunk would make every other row wait.

    256 prompt tokens take a CPU about a second (SmolLM2-135M's shape, one thread; 1,024 took four), and a token no longer than in 1,024
    (`tests/benchmarks/engine_chunks.py`).
    """
    rope = spec.rope
    # Beyond what it was first trained with, all of a pool's contexts are turned by another set of factors: only where that is asked for.
    usual = min(DEFAULT_MAX_LEN, int(rope["original_max_position_embeddings"])) if _two_sets(rope) else DEFAULT_MAX_LEN
    length, firm = min(max_len or usual, spec.max_len), max_len is not None
    return BatchLimits(64, 256, length, firm=firm) if cpu else BatchLimits(256, 8192, length, firm=firm)


def _two_sets(rope: Mapping[str, Any]) -> bool:
    return rope.get("long_factor") != rope.get("short_factor")


@dataclass(frozen=True, slots=True)
class Device:
    """Devices of one kind: how many, and bytes each.

    `fp8`: whether they multiply FP8 numbers, as is assumed where their kind is not known.
    """

    count: int
    memory: int
    cpu: bool = False
    fp8: bool = True

    @classmethod
    def parse(cls, text: str) -> Device:
        """`4x24GB`, `80GB`. Decimal gigabytes, as devices are sold."""
        match = re.fullmatch(r"(?:(\d+)\s*[x×*]\s*)?(\d+(?:\.\d+)?)\s*G(?:i?B)?", text.strip(), re.IGNORECASE)
        if not match or int(match[1] or 1) < 1:
            raise UserError(f"--gpus {text} is not a number of devices and their memory, such as 4x24GB or 2xH100.")
        return cls(int(match[1] or 1), int(float(match[2]) * 1e9))

    def __str__(self) -> str:
        return "this CPU" if self.cpu else f"{self.count}x{self.memory / 1e9:g}GB"


@dataclass(frozen=True, slots=True)
class Fit:
    """One way to run a model. Bytes are of the fullest device; `kv_tokens` and `start_s` (an estimate) are of one replica.

    `kv_saves`: how many times less cache the longest rows take than if every layer kept all of their tokens.
    """

    dp: int
    tp: int
    pp: int
    dtype: str
    weights: int
    work: int
    kv: int
    kv_tokens: int
    start_s: float
    fits: bool
    kv_saves: float = 1.0


def _overhead(device: Device) -> int:
    return CPU_OVERHEAD_BYTES if device.cpu else GPU_OVERHEAD_BYTES


def fit(spec: Spec, device: Device, mesh: Mesh, dtype: str, limits: BatchLimits, *, share: float = SHARE) -> Fit:
    """How `spec` lies on devices, divided as `mesh` says. Raises UserError where it cannot be divided so."""
    spec, item = started(spec, dtype, cpu=device.cpu), itemsize_of(dtype, cpu=device.cpu)
    # The first rank of a stage holds at least as much as the others.
    cuts = [Mesh(mesh.tensor, mesh.pipe, preference).shard(spec) for preference in range(0, mesh.size, mesh.tensor)]
    weights = max(weights_bytes(spec, shard, item, cpu=device.cpu) for shard in cuts)
    work = max(work_bytes(spec, shard, limits, item) for shard in cuts) + _overhead(device)
    tokens, most, saves = limits.batch * limits.max_len, 0, 2.0**31
    for stage, shard in enumerate(cuts):
        groups = cache_groups(spec, Mesh(mesh.tensor, mesh.pipe, stage * mesh.tensor), limits.max_len)
        row = row_blocks(groups.windows, limits.max_len, BLOCK_TOKENS) * BLOCK_TOKENS * kv_bytes(spec, shard, item, groups.layers)
        free = device.memory - weights_bytes(spec, shard, item, cpu=device.cpu)
        space = cache_bytes(device.memory, free, share, work_bytes(spec, shard, limits, item) + _overhead(device), cpu=device.cpu)
        tokens = max(0, min(tokens, space * limits.max_len // row))
        most, saves = max(most, row), min(saves, groups.saves(limits.max_len))
    kind = "cpu" if device.cpu else "gpu"
    start = STARTUP_S[kind] + weights / LOAD_BYTES_PER_S[kind]
    enough = tokens >= limits.least_cache
    ways, kv = (device.count // mesh.size, mesh.tensor, mesh.pipe), tokens * most // limits.max_len
    return Fit(*ways, dtype, weights, work, kv, tokens, round(start, 1), enough, round(saves, 2))


def all_fits(spec: Spec, device: Device, dtype: str, limits: BatchLimits, share: float = SHARE) -> list[Fit]:
    """Every way to divide the model over these devices that fits. A layer over more than eight of them waits more than it computes."""
    total = weights_bytes(started(spec, dtype, cpu=device.cpu), Mesh().shard(spec), itemsize_of(dtype, cpu=device.cpu))
    candidates = [
        fit(spec, device, Mesh(t, p), dtype, limits, share=share)
        for t in tensor_sizes(spec)
        for p in range(max(1, int(total / (device.memory * t))), min(spec.layers, device.count // t) + 1)
        if t <= 8
    ]
    return [f for f in candidates if f.fits]


def preference(fit: Fit) -> tuple[int, int, int, int]:
    """Sort key, larger is better: devices used, replicas, tensor before pipeline (every token is faster), then KV cache."""
    return fit.dp * fit.tp * fit.pp, fit.dp, -fit.pp, fit.kv_tokens


def best_fit(spec: Spec, device: Device, dtype: str, limits: BatchLimits, share: float = SHARE) -> Fit | None:
    """The best way; None where there is none."""
    return max(all_fits(spec, device, dtype, limits, share), key=preference, default=None)


def spec_of_size(text: str) -> Spec:
    """A dense model of about so many weights (`70B`, `1.76T`), shaped like those people run: for planning without files.

    It has no context of its own: any `--max-len` is planned with.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MBT])", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{text} is neither a folder with config.json nor a size such as 70B.")
    wanted = float(match[1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[match[2].upper()]
    shapes = [Spec("LlamaForCausalLM", *s, max_len=ANY_LEN, tied=s[1] <= 2560, dtype="bfloat16") for s in SHAPES]
    near = min(shapes, key=lambda s: abs(log(s.weights / wanted)))
    layers = max(1, round((wanted - (near.weights - near.layers * near.layer_weights)) / near.layer_weights))
    return replace(near, layers=layers)
