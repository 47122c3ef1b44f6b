"""Memory while a run goes on, as events of its journal: the pool's devices, else this machine's GPUs and RAM. Reads; starts nothing.

Sampled at most twice a second on a thread of the io loop's and appended there, because the journal has one writer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb import loop
from holynb.types import Gauge, Noted
from holynb.ui.output import BACK, SHORT
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["gpus", "machine", "sample", "watch"]

PAUSE = 0.5
#: The limit of the container, where there is one below the machine's memory (cgroup v2, v1).
CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))

Sampler = Callable[[], Sequence[Gauge | Noted]]


def watch(run: Run, sampler: Sampler | None = None, pause: float = PAUSE) -> Future[None]:
    """Append gauges to the run's journal until it is done, and a note where a pool's memory runs out. Cancelling the future ends it sooner."""
    names = sorted({e.route.model for e in run.plan.targets.endpoints if e.route.provider == "pool"})
    return loop.submit(_follow(run, sampler or _Pools(names), pause))


async def _follow(run: Run, sampler: Sampler, pause: float) -> None:
    await asyncio.sleep(pause)  # a run that is over by then has no use for a chart
    while not run.done:
        try:
            found = await asyncio.to_thread(sampler)
        except Exception as exc:  # noqa: BLE001 - a device that cannot be read must not cost the run; it is told once
            run.journal.note(f"Memory cannot be read: {exc!r}", "warning")
            return
        for event in found:
            run.journal.append(event)
        await asyncio.sleep(pause)


class _Pools:
    """Looks at a run's pools: their memory each time, and notes where that changes what they can do."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._short = {name: Shortage(name) for name in names}

    def __call__(self) -> list[Gauge | Noted]:
        from holynb.pools import glance

        found = {name: info for name in self._names if (info := glance(name)) is not None}
        notes = [note for name, info in found.items() for note in self._short[name].look(info.replicas)]
        return [*_memory([g for info in found.values() for g in info.memory], pools=bool(self._names)), *notes]


class Shortage:
    """A pool's memory as it runs out and comes back: two notes, one for each turn. Written by one watcher."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: dict[int, int] = {}
        """Times by replica, as of the first look or of the last note."""
        self._peak: dict[int, int] = {}
        """Rows that each replica ran at once before."""
        self._since: dict[int, int] = {}

    def look(self, replicas: Sequence[Mapping[str, int]]) -> list[Noted]:
        out = []
        for number, said in enumerate(replicas):
            times, batch = said.get("oom"), said.get("batch")
            if times is None or batch is None:
                continue
            if times < self._seen.get(number, 0):  # another replica in the place of one that died
                self._seen[number] = times
                self._since.pop(number, None)
            where = f"pool/{self._name}{f' (replica {number})' if len(replicas) > 1 else ''}"
            if number in self._since:
                if batch >= self._peak.get(number, 1):
                    count = times - self._since.pop(number)
                    self._seen[number] = times
                    out.append(
                        _note(
                            f"{where} {BACK}. Its memory ran out {counted(count, 'time')}, and cost no row.",
                            "info",
                        )
                    )
            elif times > self._seen.setdefault(number, times):
                self._since[number] = self._seen[number]
                out.append(
                    _note(
                        f"{where} {SHORT}: it writes at most {counted(batch, 'row')} at once now, and keeps the others waiting.",
                        "warning",
                    )
                )
            else:
                self._peak[number] = max(self._peak.get(number, 0), said.get("running", 0))
        return out


def _note(text: str, level: str) -> Noted:
    return Noted(text, time.time(), level)


def sample(pools: Sequence[str] = ()) -> list[Gauge]:
    """Memory now: of these pools' devices; where they do not say, of the GPUs that are there; without either, this machine's RAM."""
    from holynb.pools import gauges

    return _memory([g for name in pools for g in gauges(name)], pools=bool(pools))


def _memory(found: Sequence[Gauge], *, pools: bool) -> list[Gauge]:
    return joined(found) if found else (gpus() if pools else []) or [machine()]


def joined(found: Iterable[Gauge]) -> list[Gauge]:
    """One gauge per device: ranks that share one hold what they hold together. Devices are named as people name them.

    A part is kept where every rank of the device says it.
    """
    groups: dict[str, list[Gauge]] = {}
    for g in found:
        name = "RAM" if g.device == "cpu" else f"GPU {g.device.removeprefix('cuda:')}" if g.device.startswith("cuda") else g.device
        groups.setdefault(name, []).append(g)
    out = []
    for name, ranks in groups.items():
        held = [g.ours for g in ranks if g.ours is not None]
        parts = {k: sum(g.parts[k] for g in ranks) for k in ("weights", "kv", "rest") if all(k in g.parts for g in ranks)}
        out.append(Gauge(name, max(g.used for g in ranks), ranks[-1].total, ranks[-1].at, sum(held) if held else None, parts))
    return out


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
