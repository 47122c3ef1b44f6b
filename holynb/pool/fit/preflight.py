"""Preflight: whether a model fits on the chosen devices, before anything is loaded, and what would fit if not. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from holynb import units
from holynb.errors import UserError
from holynb.pool.fit import memory, plan
from holynb.pool.fit.four_bits import FourBits
from holynb.pool.fit.fp8_units import check_units
from holynb.pool.fit.groups import GroupQuantization, multiplies_groups
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.fit.mesh import Mesh
from holynb.pool.fit.row_length import longest_row, own_context, too_short
from holynb.pool.fit.spec import Spec, read_spec

__all__ = ["Forecast", "best_dtype", "describe_fit", "flags", "forecast", "free_gpu_memory", "gpu_has_fp8", "gpu_memory", "would_fit"]

Answer = TypeVar("Answer")

#: Most GPUs of one machine that are looked for.
_MAX_GPUS = 64


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a person reads while the model loads, and what its log says of how it fits."""

    loading: str
    details: str


def forecast(
    folder: Path, devices: Sequence[str], *, dtype: str | None, max_len: int | None, share: float, mesh: Mesh, kv: str | None = None
) -> Forecast | None:
    """How it fits; None if a GPU's memory is not known. `devices`: one per rank; `mesh`: how a replica is divided.

    Raises UserError where it does not fit, cannot be divided so, or is not known.
    """
    spec, cpu = plan.with_kv(read_spec(folder), kv), devices[0] == "cpu"
    mesh.shard(spec)
    # Ranks on the CPU share its memory; of GPUs the one with the least decides.
    free_bytes = [memory.device_memory("cpu").free // len(devices)] if cpu else [gpu_memory(d) for d in dict.fromkeys(devices)]
    known = [m for m in free_bytes if m is not None]
    if len(known) < len(free_bytes):
        return None
    dtype = dtype or best_dtype(spec, cpu=cpu)
    limits = plan.limits_of(spec, cpu=cpu, max_len=max_len)
    device = plan.Device(len(devices), min(known), cpu=cpu, fp8=cpu or all(map(gpu_has_fp8, dict.fromkeys(devices))))
    check_units(spec, device, dtype)
    result = plan.fit(spec, device, mesh, dtype, limits, share=share)
    line = f"{folder.name} {describe_fit(spec, device, result, dtype, limits, share=share)}"
    if not result.fits:
        raise UserError(f"{line}.")
    # GPUs that are as free as the chosen ones could work too.
    free = [] if cpu else [m for m in free_gpu_memory() if m >= 0.9 * min(known)]
    more = plan.best_fit(spec, plan.Device(len(free), min(free)), dtype, limits, share) if len(free) > len(devices) else None
    others = f"; with all {len(free)} free GPUs:{flags(more)}" if more else ""
    loading = f"loading {folder.name} ({units.memory(result.weights)}), about {result.start_s:.0f} s{others}"
    cut = own_context(spec, max_len)
    return Forecast(loading, f"{line}{others}{'.' if cut else ''}{cut}")


def free_gpu_memory() -> list[int]:
    """Free bytes of each GPU of this machine, as far as they can be asked for."""
    visible, free_bytes = os.environ.get("CUDA_VISIBLE_DEVICES"), list[int]()
    most = _MAX_GPUS if visible is None else len([w for w in visible.split(",") if w.strip() not in ("", "-1")])
    while len(free_bytes) < most and (free := gpu_memory(f"cuda:{len(free_bytes)}")) is not None:
        free_bytes.append(free)
    return free_bytes


def best_dtype(spec: Spec, *, cpu: bool) -> str:
    """The default dtype to compute in: on CPU float32, or the bits of a file that are multiplied as they are; the weights' own on a GPU."""
    if isinstance(spec.quantization, GroupQuantization) and (multiplies_groups() or not cpu):
        return "int8"
    return "float32" if cpu else spec.dtype if spec.dtype in plan.ITEMSIZE else "bfloat16"


def describe_fit(
    spec: Spec, device: plan.Device, result: plan.Fit | None, dtype: str, limits: BatchLimits, *, share: float = plan.SHARE
) -> str:
    """One line for a person: what to start, or what is missing and what would do. `result`: a way that fits, or one that falls short."""
    if result and result.fits:
        # Of a mixture of experts all lie there, and a token is multiplied by few.
        active = int(result.weights * _active_share(spec, dtype, cpu=device.cpu))
        part = "" if spec.experts is None else f" ({units.memory(active)} for a token)"
        weights = f"{units.memory(result.weights)} of weights per device{part}"
        kind = dtype
        how = plan.started(spec, dtype, cpu=device.cpu).quantization
        if isinstance(how, GroupQuantization) and not how.at_load:
            kind = f"{dtype}, to which its own four to eight bits are widened" if how.widened else "its own four to eight bits"
        slides = " (rows of up to that many)" if result.kv_tokens < limits.max_len else ""
        slides += f" (windows: {result.kv_saves:.1f} times less than all layers would keep)" if result.kv_saves > 1 else ""
        return (
            f"fits on {device}{' as' * bool(flags(result))}{flags(result)} in {kind}: {weights}, "
            f"{result.kv_tokens:,} tokens of KV cache per replica{slides}, ready in about {result.start_s:.0f} s"
        )
    would = would_fit(spec, device, dtype, limits, share)
    if result and (why := too_short(result, limits)):
        rows = longest_row(spec, device, result, limits, share)
        would = ", or ".join(filter(None, [would, f"with --max-len {rows}{_as(result)}" if rows else ""]))
        line = f"does not fit on {device}{' as' * bool(flags(result))}{flags(result)} in {dtype}: {why}"
        return f"{line}. It would fit {would}" if would else line
    total = plan.weights_bytes(plan.started(spec, dtype, cpu=device.cpu), Mesh().shard(spec), plan.itemsize_of(dtype, cpu=device.cpu))
    line, alone = f"does not fit on {device} in {dtype}", units.memory(total)
    if total < device.memory:
        line += f": beside {alone} of weights, {share:.0%} of {units.memory(device.memory)} has no room for keys, values and work"
    else:
        # Files hold these in fewer bits, so that they are smaller.
        wide = " with scales and zeros in float32" if isinstance(how := spec.quantization, FourBits) and not how.at_load else ""
        line += f": the weights alone are {alone}{wide}"
    return f"{line}. It would fit {would}" if would else line


def _active_share(spec: Spec, dtype: str, *, cpu: bool) -> float:
    """Of a model with experts, the part of its bytes that one token is multiplied by."""
    if spec.experts is None or not spec.experts.mxfp4:
        return spec.active_weights / spec.weights
    few, item = replace(spec, experts=replace(spec.experts, count=spec.experts.top)), plan.itemsize_of(dtype, cpu=cpu)
    active, every = (plan.weights_bytes(plan.started(one, dtype, cpu=cpu), Mesh().shard(one), item) for one in (few, spec))
    return active / every


def would_fit(spec: Spec, device: plan.Device, dtype: str, limits: BatchLimits, share: float = plan.SHARE) -> str:
    """The nearest that fits: these devices used otherwise or in full, a smaller dtype, four bits, more devices. Empty: nothing does."""
    if device.cpu:
        return ""
    if other := plan.best_fit(spec, device, dtype, limits, share):
        holds = f" ({other.kv_tokens:,} tokens of KV cache per replica)" if limits.firm else ""
        return f"as{flags(other) or ' one replica on one device'}{holds}"
    if share < plan.SHARE and (other := plan.best_fit(spec, device, dtype, limits)):
        return f"with --memory {plan.SHARE:g}{_as(other)}"
    ways = [
        f"in {s}{_as(less)}"
        for s in plan.smaller_dtypes(spec, dtype, fp8=device.fp8)
        if (less := plan.best_fit(spec, device, s, limits, share))
    ][:1]
    four = plan.in_four_bits(spec)
    more = "" if ways else _on_more(spec, device, dtype, limits, share)
    if four and (less := plan.best_fit(four, device, "bfloat16", limits, share)):
        ways.append(f"in four bits (files of AWQ or GPTQ){_as(less)}")
    return ", or ".join(filter(None, [*ways, more]))


def _as(fit: plan.Fit) -> str:
    return f", as{flags(fit)}" if flags(fit) else ""


def _on_more(spec: Spec, device: plan.Device, dtype: str, limits: BatchLimits, share: float) -> str:
    """The fewest devices of this kind on which it fits."""
    total = plan.weights_bytes(plan.started(spec, dtype, cpu=device.cpu), Mesh().shard(spec), plan.itemsize_of(dtype, cpu=device.cpu))
    fewest = max(device.count + 1, int(total / (share * device.memory)))
    fits = plan.all_fits(spec, replace(device, count=2 * fewest + 7), dtype, limits, share)
    count = max(fewest, min((fit.tp * fit.pp for fit in fits), default=0))
    more = plan.best_fit(spec, replace(device, count=count), dtype, limits, share) if fits else None
    return f"on {count}x{device.memory / 1e9:g}GB{_as(more)}" if more else ""


def flags(fit: plan.Fit) -> str:
    """The flags of `pool start` for it, a space before each."""
    return "".join(f" --{name} {n}" for name, n in (("dp", fit.dp), ("tp", fit.tp), ("pp", fit.pp)) if n > 1)


def gpu_memory(device: str) -> int | None:
    """Free bytes of `cuda:N` as NVML says; None where NVML is not there."""
    return _by_nvml(device, lambda nvml, handle: int(nvml.nvmlDeviceGetMemoryInfo(handle).free))


def gpu_has_fp8(device: str) -> bool:
    """Whether `cuda:N` multiplies FP8 numbers: NVIDIA's Ada and Hopper, and later; as is assumed where NVML is not there."""
    capability = _by_nvml(device, lambda nvml, handle: tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)))
    return capability is None or capability >= (8, 9)


def _by_nvml(device: str, question: Callable[[Any, Any], Answer]) -> Answer | None:
    """NVML's answer about `cuda:N`; None where NVML is not there. CUDA_VISIBLE_DEVICES renumbers, so it is followed."""
    try:
        import pynvml
    except ImportError:
        return None
    number = int(device.removeprefix("cuda:"))
    visible = [w.strip() for w in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if w.strip()]
    try:
        pynvml.nvmlInit()
        try:
            name = visible[number] if number < len(visible) else str(number)
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
            return question(pynvml, handle)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
