"""Memory during a run, as events of its journal: the pool's devices, else this machine's GPUs and RAM. Reads; starts nothing.

Sampled at most twice a second in a thread; appended on the io loop, because the journal has one writer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb import loop
from holynb.engines import servers
from holynb.events import Gauge, Noted
from holynb.ui.output import OUT_OF_MEMORY_TEXT, RECOVERED_TEXT, REPLICA_TEXTS
from holynb.words import counted
from kernels_support.jupyter import ram

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["gpus", "machine", "sample", "watch"]

PAUSE_S = 0.5

Sampler = Callable[[], Sequence[Gauge | Noted]]


def watch(run: Run, sampler: Sampler | None = None, pause: float = PAUSE_S) -> Future[None]:
    """Append gauges to the run's journal until it is done, and notes where a pool's memory runs out. Cancel the future to end it sooner.

    Of a run that hosted providers alone answer there is nothing to show: its models are on none of this machine's devices.
    """
    endpoints = run.plan.targets.endpoints
    if sampler is None and not any(e.wire in ("pool", "sim") or servers.is_self_hosted(e) for e in endpoints):
        nothing: Future[None] = Future()
        nothing.set_result(None)
        return nothing
    names = sorted({e.route.model for e in endpoints if e.route.provider == "pool"})
    return loop.submit(_follow(run, sampler or _PoolSampler(names), pause))


async def _follow(run: Run, sampler: Sampler, pause: float) -> None:
    await asyncio.sleep(pause)  # a run that is over by then has no use for a chart
    while not run.done:
        try:
            events = await asyncio.to_thread(sampler)
        except Exception as exc:  # noqa: BLE001 - a device that cannot be read must not cost the run; noted once
            run.journal.note(f"Memory cannot be read: {exc!r}", "warning")
            return
        for event in events:
            run.journal.append(event)
        await asyncio.sleep(pause)


class _PoolSampler:
    """Samples a run's pools: their memory, and notes where a shortage begins or ends."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._monitors = {name: ShortageMonitor(name) for name in names}
        self._moves = {name: MoveMonitor(name) for name in names}

    def __call__(self) -> list[Gauge | Noted]:
        from holynb.pools import find_status

        infos = {name: info for name in self._names if (info := find_status(name)) is not None}
        notes = [note for name, info in infos.items() for note in self._monitors[name].update(info.replicas)]
        notes += [note for name, info in infos.items() for note in self._moves[name].update(info.moves)]
        return [*_memory([g for info in infos.values() for g in info.memory], pools=bool(self._names)), *notes]


class ShortageMonitor:
    """Notes when a pool's memory runs out and when it has recovered. Owned by one sampler."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ooms: dict[int, int] = {}
        """Out-of-memories by replica, as of the first update or of the last note."""
        self._peak_batch: dict[int, int] = {}
        """Rows that each replica ran at once before its shortage."""
        self._ooms_before: dict[int, int] = {}
        """Of replicas in a shortage."""

    def update(self, replicas: Sequence[Mapping[str, int]]) -> list[Noted]:
        """The notes that the replicas' metrics call for."""
        notes = []
        for number, metrics in enumerate(replicas):
            ooms, batch = metrics.get("oom"), metrics.get("batch")
            if ooms is None or batch is None:
                continue
            if ooms < self._ooms.get(number, 0):  # another replica in the place of one that died
                self._ooms[number] = ooms
                self._ooms_before.pop(number, None)
            where = f"pool/{self._name}{f' (replica {number})' if len(replicas) > 1 else ''}"
            if number in self._ooms_before:
                if batch >= self._peak_batch.get(number, 1):
                    count = ooms - self._ooms_before.pop(number)
                    self._ooms[number] = ooms
                    text = f"{RECOVERED_TEXT}. Its memory ran out {counted(count, 'time')}, and cost no row."
                    notes.append(_note(f"{where} {text}", "info"))
            elif ooms > self._ooms.setdefault(number, ooms):
                self._ooms_before[number] = self._ooms[number]
                text = f"{OUT_OF_MEMORY_TEXT}: it writes at most {counted(batch, 'row')} at once now, and keeps the others waiting."
                notes.append(_note(f"{where} {text}", "warning"))
            else:
                self._peak_batch[number] = max(self._peak_batch.get(number, 0), metrics.get("running", 0))
        return notes


class MoveMonitor:
    """Notes what became of a Ray pool's replicas since the run began. Owned by one sampler."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: set[tuple[float, int]] | None = None

    def update(self, moves: Sequence[Mapping[str, Any]]) -> list[Noted]:
        """The notes of moves that are new; those before the first call are old."""
        now = {(m["at"], m["replica"]) for m in moves}
        new = [m for m in moves if self._seen is not None and (m["at"], m["replica"]) not in self._seen and m["what"] in REPLICA_TEXTS]
        self._seen = now | (self._seen or set())
        return [_note(self._text(m), "warning" if m["what"] == "lost" else "info") for m in new]

    def _text(self, move: Mapping[str, Any]) -> str:
        nodes = f" on {', '.join(move['nodes'])}" if move["nodes"] else ""
        rows = f"; {counted(move['rows'], 'row')} of it went elsewhere" if move["rows"] else ""
        return f"pool/{self._name} {REPLICA_TEXTS[move['what']]}{nodes}{rows}."


def _note(text: str, level: str) -> Noted:
    return Noted(text, time.time(), level)


def sample(pools: Sequence[str] = ()) -> list[Gauge]:
    """Memory now, of these pools' devices; where they report none, of this machine's GPUs; without either, its RAM."""
    from holynb.pools import gauges

    return _memory([g for name in pools for g in gauges(name)], pools=bool(pools))


def _memory(reported: Sequence[Gauge], *, pools: bool) -> list[Gauge]:
    return per_device(reported) if reported else (gpus() if pools else []) or [machine()]


def per_device(gauges: Iterable[Gauge]) -> list[Gauge]:
    """One gauge per device: `ours` and `parts` of ranks that share one are added up. Devices get the names that people use.

    A part is kept where every rank of the device reports it.
    """
    groups: dict[str, list[Gauge]] = {}
    for g in gauges:
        name = "RAM" if g.device == "cpu" else f"GPU {g.device.removeprefix('cuda:')}" if g.device.startswith("cuda") else g.device
        groups.setdefault(name, []).append(g)
    out = []
    for name, ranks in groups.items():
        ours = [g.ours for g in ranks if g.ours is not None]
        parts = {k: sum(g.parts[k] for g in ranks) for k in ("weights", "kv", "rest") if all(k in g.parts for g in ranks)}
        out.append(Gauge(name, max(g.used for g in ranks), ranks[-1].total, ranks[-1].at, sum(ours) if ours else None, parts))
    return out


def machine() -> Gauge:
    """This machine's RAM, or the container's where that is less; ours is what this kernel holds. `total` 0: nobody tells."""
    (total, free), ours = ram.ram(), ram.resident()
    if total is None or free is None:
        return Gauge("RAM", ours or 0, 0, time.time(), ours)
    return Gauge("RAM", total - free, total, time.time(), ours)


def gpus() -> list[Gauge]:
    """Every NVIDIA GPU; ours is what holynb's processes hold. Empty where there is none, or `nvidia-ml-py` is not installed."""
    nvml = _nvml()
    if nvml is None:
        return []
    out = []
    for i in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(i)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        ours = [p.usedGpuMemory or 0 for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if _ours(p.pid)]
        out.append(Gauge(f"GPU {i}", int(memory.used), int(memory.total), time.time(), sum(ours)))
    return out


@cache
def _nvml() -> Any | None:
    """The library, initialised; None where it is not installed or there is no driver. Cached."""
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
    """Whether a process belongs to a pool: each has the word in its command line."""
    try:
        return b"holynb-pool" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
