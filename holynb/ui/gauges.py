"""Memory while a run goes on, as events of its journal: the pool's devices, else this machine's GPUs and RAM. Reads; starts nothing.

Sampled at most twice a second on a thread of the io loop's and appended there, because the journal has one writer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb import loop
from holynb.types import Gauge

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["gpus", "machine", "sample", "watch"]

PAUSE = 0.5
#: The limit of the container, where there is one below the machine's memory (cgroup v2, v1).
CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))

Sampler = Callable[[], Sequence[Gauge]]


def watch(run: Run, sampler: Sampler | None = None, pause: float = PAUSE) -> Future[None]:
    """Append gauges to the run's journal until it is done. Cancelling the future ends it sooner."""
    names = sorted({e.route.model for e in run.plan.endpoints if e.route.provider == "pool"})
    return loop.submit(_follow(run, sampler or (lambda: sample(names)), pause))


async def _follow(run: Run, sampler: Sampler, pause: float) -> None:
    await asyncio.sleep(pause)  # a run that is over by then has no use for a chart
    while not run.done:
        try:
            found = await asyncio.to_thread(sampler)
        except Exception as exc:  # noqa: BLE001 - a device that cannot be read must not cost the run; it is told once
            run.journal.note(f"Memory cannot be read: {exc!r}", "warning")
            return
        for gauge in found:
            run.journal.append(gauge)
        await asyncio.sleep(pause)


def sample(pools: Iterable[str] = ()) -> list[Gauge]:
    """Memory now: of these pools' devices; where they do not say, of the GPUs that are there; without either, this machine's RAM."""
    from holynb import pools as known

    found = [g for name in pools for g in known.gauges(name)]
    return joined(found) if found else (gpus() if pools else []) or [machine()]


def joined(found: Iterable[Gauge]) -> list[Gauge]:
    """One gauge per device: replicas that share one hold what they hold together. Devices are named as people name them."""
    out: dict[str, Gauge] = {}
    for g in found:
        name = "RAM" if g.device == "cpu" else f"GPU {g.device.removeprefix('cuda:')}" if g.device.startswith("cuda") else g.device
        before = out.get(name)
        ours = g.ours if before is None or before.ours is None else before.ours + (g.ours or 0)
        out[name] = Gauge(name, max(g.used, before.used if before else 0), g.total, g.at, ours)
    return list(out.values())


def machine() -> Gauge:
    """This machine's RAM, or the container's where that is less; ours is what this kernel holds."""
    import psutil

    said = psutil.virtual_memory()
    total, used = int(said.total), int(said.total - said.available)
    for limit, usage in CGROUPS:
        try:
            most = int(Path("/sys/fs/cgroup", limit).read_text(encoding="ascii"))
            now = int(Path("/sys/fs/cgroup", usage).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such cgroup, or `max`: no limit here
            continue
        if most < total:
            total, used = most, now
    return Gauge("RAM", used, total, time.time(), int(psutil.Process(os.getpid()).memory_info().rss))


def gpus() -> list[Gauge]:
    """Every NVIDIA GPU; ours is what holynb's processes hold. Empty where there is none, or `nvidia-ml-py` is not installed."""
    nvml = _nvml()
    if nvml is None:
        return []
    out = []
    for i in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(i)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        held = [p.usedGpuMemory or 0 for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if _ours(p.pid)]
        out.append(Gauge(f"GPU {i}", int(memory.used), int(memory.total), time.time(), sum(held)))
    return out


@cache
def _nvml() -> Any | None:
    """The library, initialised; None where it is not installed or there is no driver. Asked once."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _ours(pid: int) -> bool:
    """Whether a process is of a pool: each carries the word in its command line."""
    try:
        return b"holynb-pool" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
