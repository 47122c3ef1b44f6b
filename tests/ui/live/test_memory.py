"""Memory is sampled while a run lives, and said per device."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from holynb import loop
from holynb.events import Gauge, Noted
from holynb.journal import Journal
from holynb.pool.fit import memory as device_memory
from holynb.pools.info import PoolInfo
from holynb.types import Endpoint, Route
from holynb.ui.live import memory


class Running:
    """As much of a run as is watched."""

    def __init__(self, samples: int, route: str = "sim/echo") -> None:
        self.journal = Journal(1)
        endpoints = [Endpoint(Route.parse(route), route.partition("/")[0])]
        self.plan = SimpleNamespace(targets=SimpleNamespace(endpoints=endpoints))
        self._samples_left = samples

    @property
    def done(self) -> bool:
        self._samples_left -= 1
        return self._samples_left < 0


@pytest.fixture(autouse=True)
def _closed() -> object:
    yield
    loop.close()


def test_gauges_are_appended_on_the_io_thread_until_the_run_is_done() -> None:
    threads = set()

    def sampler() -> list[Gauge]:
        threads.add(threading.current_thread().name)
        return [Gauge("RAM", 1, 2, 0.0)]

    run = Running(samples=3)
    memory.watch(run, sampler, pause=0.001).result(10)
    events, _ = run.journal.events_since(0)
    assert events == [Gauge("RAM", 1, 2, 0.0)] * 3
    assert threading.main_thread().name not in threads
    assert "holynb-io" not in threads, "a slow device must not hold up requests"


HOSTED = Endpoint(Route("openai", "m"), "openai", "https://api.openai.com/v1")


def test_a_run_that_hosted_providers_alone_answer_has_no_memory_to_show() -> None:
    run = Running(samples=1)
    run.plan.targets.endpoints = [HOSTED, replace(HOSTED, route=Route("anthropic", "m"), wire="anthropic")]
    assert memory.watch(run, pause=0.001).done()
    assert run.journal.events_since(0)[0] == []


@pytest.mark.parametrize(
    "here", [Endpoint(Route("sim", "echo"), "sim"), Endpoint(Route("vllm", "m"), "openai", "http://127.0.0.1:8000/v1")], ids=["sim", "vllm"]
)
def test_a_run_that_something_here_answers_shows_this_machine(here: Endpoint) -> None:
    run = Running(samples=1)
    run.plan.targets.endpoints = [HOSTED, here]
    memory.watch(run, pause=0.001).result(10)
    (gauge,) = run.journal.events_since(0)[0]
    assert gauge.device == "RAM"
    assert 10 * 2**20 < gauge.ours <= gauge.used + 2**30
    assert gauge.used < gauge.total


def test_a_pool_shows_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = {"mine": (Gauge("cuda:0", 70, 80, 1.0, 30), Gauge("cuda:0", 71, 80, 1.0, 25), Gauge("cuda:1", 5, 80, 1.0, 4))}
    monkeypatch.setattr("holynb.pools.gauges", lambda name: reported.get(name, ()))
    assert memory.sample(["mine"]) == [Gauge("GPU 0", 71, 80, 1.0, 55), Gauge("GPU 1", 5, 80, 1.0, 4)]
    monkeypatch.setattr(memory, "gpus", lambda: [Gauge("GPU 0", 1, 80, 1.0, 0)])
    assert [g.device for g in memory.sample(["starting"])] == ["GPU 0"]
    assert [g.device for g in memory.sample()] == ["RAM"]


def test_what_a_device_is_held_by_is_kept_where_all_of_its_ranks_say_it() -> None:
    one = Gauge("cuda:0", 70, 80, 1.0, 30, {"weights": 20.0, "kv": 8.0, "rest": 2.0})
    two = Gauge("cuda:0", 71, 80, 1.0, 25, {"weights": 20.0})
    (both,) = memory.per_device([one, two])
    assert (both.used, both.ours, dict(both.parts)) == (71, 55, {"weights": 40.0})
    (alone,) = memory.per_device([one])
    assert dict(alone.parts) == {"weights": 20.0, "kv": 8.0, "rest": 2.0}
    assert memory.per_device([Gauge("cuda:1", 5, 80, 1.0)])[0].ours is None


def test_a_pool_that_runs_out_of_memory_is_noted_and_so_is_its_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = iter(
        [
            [{"running": 16, "batch": 256, "oom": 0}, {"running": 12, "batch": 256, "oom": 0}],
            [{"running": 8, "batch": 8, "oom": 1}, {"running": 12, "batch": 256, "oom": 0}],
            [{"running": 4, "batch": 4, "oom": 2}, {"running": 12, "batch": 256, "oom": 0}],
            [{"running": 16, "batch": 16, "oom": 2}, {"running": 12, "batch": 256, "oom": 0}],
            [{"running": 16, "batch": 20, "oom": 2}, {"running": 12, "batch": 256, "oom": 0}],
        ]
    )
    info = PoolInfo("mine", "m", "ready", 1, "h", memory=(Gauge("cuda:0", 70, 80, 1.0, 30),))
    monkeypatch.setattr("holynb.pools.find_status", lambda name: replace(info, replicas=tuple(next(metrics))))
    run = Running(samples=5, route="pool/mine")
    memory.watch(run, pause=0.001).result(10)
    events, _ = run.journal.events_since(0)
    assert sum(isinstance(e, Gauge) for e in events) == 5
    assert [(e.level, e.text) for e in events if isinstance(e, Noted)] == [
        ("warning", "pool/mine (replica 0) ran out of memory: it writes at most 8 rows at once now, and keeps the others waiting."),
        ("info", "pool/mine (replica 0) has room for as many rows at once as before. Its memory ran out 2 times, and cost no row."),
    ]


def test_a_shortage_before_the_run_and_a_replica_that_is_new_are_no_news() -> None:
    monitor = memory.ShortageMonitor("mine")
    assert monitor.update([{"running": 1, "batch": 8, "oom": 5}]) == []
    assert monitor.update([{"running": 1, "batch": 8, "oom": 0}]) == []
    assert monitor.update([{"running": 1, "waiting": 3}]) == [], "an engine that does not say"
    assert len(monitor.update([{"running": 1, "batch": 4, "oom": 1}])) == 1


class NvmlError(Exception):
    """What the library raises."""


def nvml_of(processes: dict[int, int | None]) -> SimpleNamespace:
    """As much of nvidia-ml-py as is asked: two GPUs, and processes with their bytes on the second."""

    def handle(index: int) -> int:
        if index > 1:
            raise NvmlError("Invalid Argument")
        return index

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetHandleByUUID={"GPU-b": 1}.__getitem__,
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=41 + h, total=80),
        nvmlDeviceGetComputeRunningProcesses=lambda h: (
            [SimpleNamespace(pid=p, usedGpuMemory=m) for p, m in processes.items()] if h == 1 else []
        ),
    )


def test_a_pool_asks_nvml_what_its_processes_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_of({1: 11, 20: 13, 21: 17}))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_memory.device_memory_of("cuda:1", [20, 21]) == device_memory.Memory("cuda:1", 80, 38, 30)
    assert device_memory.device_memory_of("cuda:0", [20]).ours is None, "no process is named: unknown, not 0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert device_memory.device_memory_of("cuda:0", [20]) == device_memory.Memory("cuda:0", 80, 38, 13), (
        "the first of those that are visible"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b,0")
    assert device_memory.device_memory_of("cuda:0", [1]).ours == 11
    with pytest.raises(OSError, match="NVML does not answer: Invalid Argument"):
        device_memory.device_memory_of("cuda:7", [1])
    monkeypatch.setitem(sys.modules, "pynvml", nvml_of({20: None}))
    assert device_memory.device_memory_of("cuda:1", [20]).ours is None, "a driver that does not say how much"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OSError, match="nvidia-ml-py is not installed"):
        device_memory.device_memory_of("cuda:0", [])


def test_a_pool_asks_the_system_what_its_processes_hold_of_the_ram() -> None:
    mine = device_memory.device_memory_of("cpu", [os.getpid(), 2**22 + 1])
    assert mine.ours is not None
    assert 10 * 2**20 < mine.ours < mine.total
    assert device_memory.device_memory_of("cpu", []).ours == 0


def test_gpus_are_read_through_nvml_ours_against_others(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SimpleNamespace(pid=os.getpid(), usedGpuMemory=30)
    other = SimpleNamespace(pid=1, usedGpuMemory=11)
    nvml = SimpleNamespace(
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=41, total=80),
        nvmlDeviceGetComputeRunningProcesses=lambda h: [mine, other],
    )
    monkeypatch.setattr(memory, "_nvml", lambda: nvml)
    monkeypatch.setattr(memory, "_ours", lambda pid: pid == os.getpid())
    (gauge,) = memory.gpus()
    assert (gauge.device, gauge.used, gauge.total, gauge.ours) == ("GPU 0", 41, 80, 30)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_nvml", lambda: None)
    assert memory.gpus() == []
    assert not memory._ours(2**30), "a process that is gone is not ours"


def test_a_device_that_cannot_be_read_is_told_once_and_costs_nothing_else() -> None:
    def broken() -> list[Gauge]:
        raise OSError("no such device")

    run = Running(samples=5)
    memory.watch(run, broken, pause=0.001).result(10)
    assert [e.text for e in run.journal.events_since(0)[0]] == ["Memory cannot be read: OSError('no such device')"]
