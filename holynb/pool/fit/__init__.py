"""Whether a model fits: its spec, the device mesh, the plan and the memory. Imports no torch at module level."""

from holynb.pool.fit.cache_groups import BLOCK_TOKENS, CacheGroups, cache_groups
from holynb.pool.fit.families import decoder_of
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.fit.memory import bf16_is_fast, cpus, device_memory
from holynb.pool.fit.mesh import Mesh, Shard, check_divisible
from holynb.pool.fit.plan import Device, Fit
from holynb.pool.fit.preflight import (
    Forecast,
    best_dtype,
    describe_fit,
    flags,
    forecast,
    free_gpu_memory,
    gpu_has_fp8,
    gpu_memory,
    would_fit,
)
from holynb.pool.fit.shapes import check_shapes
from holynb.pool.fit.spec import Spec, parse_spec, read_spec

__all__ = [
    "BLOCK_TOKENS",
    "BatchLimits",
    "CacheGroups",
    "Device",
    "Fit",
    "Forecast",
    "Mesh",
    "Shard",
    "Spec",
    "best_dtype",
    "bf16_is_fast",
    "cache_groups",
    "check_divisible",
    "check_shapes",
    "cpus",
    "decoder_of",
    "describe_fit",
    "device_memory",
    "flags",
    "forecast",
    "free_gpu_memory",
    "gpu_has_fp8",
    "gpu_memory",
    "parse_spec",
    "read_spec",
    "would_fit",
]
