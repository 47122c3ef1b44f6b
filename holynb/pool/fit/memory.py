"""How much memory a device has and who holds it. Reads /proc, cgroups and NVML; knows nothing of models."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from kernels_support.jupyter import ram

__all__ = ["Memory", "bf16_is_fast", "cpus", "device_memory", "device_memory_of"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device. `free` is what a new holder could take; `ours` is what this process holds, where that can be told."""

    device: str
    total: int
    free: int
    ours: int | None = None

    @property
    def used(self) -> int:
        return self.total - self.free


def device_memory(device: str = "cpu") -> Memory:
    """The memory of `cpu` or of a GPU (`cuda:0`)."""
    return _cpu() if device == "cpu" else _gpu(device)


def device_memory_of(device: str, pids: Collection[int]) -> Memory:
    """The memory of a device and what these processes hold of it, asked from outside them: psutil for `cpu`, NVML for a GPU.

    `ours` is None where the driver does not name processes to us (in containers with process numbers of their own). Raises
    OSError where there is no NVML.
    """
    if device != "cpu":
        return _gpu_by_nvml(device, pids)
    return replace(_cpu(), ours=sum(size for pid in pids if (size := ram.resident(pid)) is not None))


def cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bf16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 in hardware. Without, prefill is several times slower than in float32."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in info for flag in ("avx512_bf16", "amx_bf16"))


def _cpu() -> Memory:
    """The machine's memory, or the container's where that is less. Raises OSError where the system tells of none."""
    (total, free), ours = ram.ram(), ram.resident()
    if total is None:
        raise OSError("the system does not report how much memory this machine has (/proc/meminfo)")
    return Memory("cpu", total, total - (ours or 0) if free is None else free, ours)


def _gpu_by_nvml(device: str, pids: Collection[int]) -> Memory:
    """A GPU through NVML; `cuda:N` counts among those that CUDA_VISIBLE_DEVICES leaves."""
    try:
        import pynvml
    except ImportError as exc:
        raise OSError("nvidia-ml-py is not installed") from exc
    number = device.removeprefix("cuda:")
    visible = [w.strip() for w in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if w.strip()]
    name = visible[int(number)] if int(number) < len(visible) else number
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
        usage = pynvml.nvmlDeviceGetMemoryInfo(handle)
        sizes = [p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid in pids]
    except pynvml.NVMLError as exc:
        raise OSError(f"NVML does not answer: {exc}") from exc
    ours = sum(sizes) if sizes and None not in sizes else None
    return Memory(device, int(usage.total), int(usage.total) - int(usage.used), ours)


def _gpu(device: str) -> Memory:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return Memory(device, int(total), int(free), int(torch.cuda.memory_reserved(device)))
