"""Said before anything is loaded: whether this model fits on the devices that were chosen, and what would fit if not. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from holynb.errors import UserError
from holynb.pool import gauge, plan
from holynb.pool.mesh import Mesh
from holynb.pool.spec import read

__all__ = ["forecast", "gpu_memory"]


def forecast(folder: Path, devices: Sequence[str], *, dtype: str | None, max_len: int | None, share: float, mesh: Mesh) -> str | None:
    """One line that says how it fits, `devices` being one a rank and `mesh` how a replica is divided; None where a GPU's memory cannot be asked for.

    Raises UserError where it does not fit, cannot be divided so, or is not known.
    """
    spec, cpu = read(folder), devices[0] == "cpu"
    mesh.cut(spec)
    # Ranks on the CPU share its memory; of GPUs the one with the least decides.
    held = [gauge.memory("cpu").free // len(devices)] if cpu else [gpu_memory(d) for d in dict.fromkeys(devices)]
    known = [m for m in held if m is not None]
    if len(known) < len(held):
        return None
    dtype = dtype or ("float32" if cpu else spec.dtype if spec.dtype in plan.ITEMSIZE else "bfloat16")
    limits = plan.limits_of(spec, cpu=cpu, max_len=max_len)
    these = plan.Device(len(devices), min(known), cpu=cpu)
    found = plan.fit(spec, these, mesh, dtype, limits, share=share)
    line = f"{folder.name} {plan.says(spec, these, found if found.fits else None, dtype, limits)}"
    if not found.fits:
        raise UserError(f"{line}.")
    return line


def gpu_memory(device: str) -> int | None:
    """Free bytes of `cuda:N` as NVML says; None where NVML is not there. CUDA_VISIBLE_DEVICES renumbers, so it is followed."""
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
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
