"""Memory is sampled while a run lives, and said per device."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from holynb import loop
from holynb.journal import Journal
from holynb.types import Endpoint, Gauge, Route
from holynb.ui import gauges


class Running:
    """As much of a run as is watched."""

    def __init__(self, looks: int, route: str = "sim/echo") -> None:
        self.journal = Journal(1)
        self.plan = SimpleNamespace(endpoints=[Endpoint(Route.parse(route), "sim")])
        self._looks = looks

    @property
    def done(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.fixture(autouse=True)
def _closed() -> object:
    yield
    loop.close()


def test_gauges_are_appended_on_the_io_thread_until_the_run_is_done() -> None:
    threads = set()

    def sampler() -> list[Gauge]:
        threads.add(threading.current_thread().name)
        return [Gauge("RAM", 1, 2, 0.0)]

    run = Running(looks=3)
    gauges.watch(run, sampler, pause=0.001).result(10)
    events, _ = run.journal.since(0)
    assert events == [Gauge("RAM", 1, 2, 0.0)] * 3
    assert threading.main_thread().name not in threads
    assert "holynb-io" not in threads, "a slow device must not hold up requests"


def test_a_hosted_run_shows_this_machine() -> None:
    run = Running(looks=1)
    gauges.watch(run, pause=0.001).result(10)
    (gauge,) = run.journal.since(0)[0]
    assert gauge.device == "RAM"
    assert 10 * 2**20 < gauge.ours <= gauge.used + 2**30
    assert gauge.used < gauge.total


def test_a_pool_shows_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"mine": (Gauge("cuda:0", 70, 80, 1.0, 30), Gauge("cuda:0", 71, 80, 1.0, 25), Gauge("cuda:1", 5, 80, 1.0, 4))}
    monkeypatch.setattr("holynb.pools.gauges", lambda name: said.get(name, ()))
    assert gauges.sample(["mine"]) == [Gauge("GPU 0", 71, 80, 1.0, 55), Gauge("GPU 1", 5, 80, 1.0, 4)]
    monkeypatch.setattr(gauges, "gpus", lambda: [Gauge("GPU 0", 1, 80, 1.0, 0)])
    assert [g.device for g in gauges.sample(["starting"])] == ["GPU 0"]
    assert [g.device for g in gauges.sample()] == ["RAM"]


def test_gpus_are_read_through_nvml_ours_against_others(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SimpleNamespace(pid=os.getpid(), usedGpuMemory=30)
    other = SimpleNamespace(pid=1, usedGpuMemory=11)
    nvml = SimpleNamespace(
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=41, total=80),
        nvmlDeviceGetComputeRunningProcesses=lambda h: [mine, other],
    )
    monkeypatch.setattr(gauges, "_nvml", lambda: nvml)
    monkeypatch.setattr(gauges, "_ours", lambda pid: pid == os.getpid())
    (gauge,) = gauges.gpus()
    assert (gauge.device, gauge.used, gauge.total, gauge.ours) == ("GPU 0", 41, 80, 30)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_nvml", lambda: None)
    assert gauges.gpus() == []
    assert not gauges._ours(2**30), "a process that is gone is not ours"


def test_a_device_that_cannot_be_read_is_told_once_and_costs_nothing_else() -> None:
    def broken() -> list[Gauge]:
        raise OSError("no such device")

    run = Running(looks=5)
    gauges.watch(run, broken, pause=0.001).result(10)
    assert [e.text for e in run.journal.since(0)[0]] == ["Memory cannot be read: OSError('no such device')"]
