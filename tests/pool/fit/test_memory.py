"""What a device has and who holds it: containers' limits, processes from outside, GPUs through an NVML that is played here."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from holynb.pool.fit import memory
from holynb.pool.fit.memory import Memory, bf16_is_fast, cpus, device_memory, device_memory_of
from kernels_support.jupyter import ram


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A container with this limit and this use."""

    def say(limit: str, used: str) -> None:
        (tmp_path / "max").write_text(f"{limit}\n")
        (tmp_path / "now").write_text(f"{used}\n")
        monkeypatch.setattr(ram, "CGROUPS", ((str(tmp_path / "nowhere"), "x"), (str(tmp_path / "max"), str(tmp_path / "now"))))

    return say


def test_a_containers_limit_counts_where_it_is_less_than_the_machine(cgroup: Any) -> None:
    cgroup("300000000", "100000000")
    said = device_memory("cpu")
    assert (said.total, said.free, said.used) == (300_000_000, 200_000_000, 100_000_000)
    cgroup("300000000", "400000000")
    assert device_memory("cpu").free == 0, "over its limit there is nothing free, never less"


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096), "garbage"])
def test_no_limit_is_the_machines_own(cgroup: Any, limit: str) -> None:
    cgroup(limit, "0")
    assert device_memory("cpu").total == psutil.virtual_memory().total


def test_what_this_process_holds_grows_with_it() -> None:
    gc.collect()
    before = device_memory("cpu").ours
    block = mmap.mmap(-1, 80_000_000)  # new pages, whatever the allocator still keeps of what earlier tests had
    block.write(os.urandom(1) * 80_000_000)
    after = device_memory("cpu").ours
    assert before is not None
    assert after is not None
    assert after - before > 60_000_000
    block.close()


def test_processes_are_weighed_from_outside_and_dead_ones_weigh_nothing() -> None:
    code = "import sys; b = bytearray(b'x') * 60_000_000; print(len(b), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"60000000"
        seen = device_memory_of("cpu", [child.pid, 2**22 + 7]).ours
        assert seen is not None
        assert seen > 60_000_000
        child.communicate(timeout=20)
    assert device_memory_of("cpu", [child.pid]).ours == 0


def test_cores_are_those_this_process_may_use() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert cpus() == 1
    finally:
        os.sched_setaffinity(0, mine)
    assert cpus() == len(mine)


@pytest.mark.parametrize(("flags", "fast"), [("avx512f avx512_bf16", True), ("amx_tile amx_bf16", True), ("avx2 avx512f", False)])
def test_bf16_by_the_processors_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, fast: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    monkeypatch.setattr(memory, "Path", lambda *parts: tmp_path / "cpuinfo")
    assert bf16_is_fast() == fast


class Nvml:
    """Two GPUs of 80 GB; on the second, processes 11 and 12 hold 3 and 4 GB."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, hidden: bool = False) -> None:
        self.asked: list[str] = []
        self.hidden = hidden

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        """Nothing to prepare."""

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802 - NVML's name
        if number > 1:
            raise self.NVMLError("no such device")
        return number

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:  # noqa: N802 - NVML's name
        self.asked.append(name)
        return 1

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802 - NVML's name
        return SimpleNamespace(total=80, used=10 * handle)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802 - NVML's name
        sizes = {11: 3, 12: 4} if handle else {}
        return [SimpleNamespace(pid=p, usedGpuMemory=None if self.hidden else n) for p, n in sizes.items()]


def test_a_gpu_is_asked_through_nvml_and_renumbered_as_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_memory_of("cuda:1", [11, 12, 99]) == Memory("cuda:1", 80, 70, 7)
    assert device_memory_of("cuda:0", [11]) == Memory("cuda:0", 80, 80, None), "nothing of ours can be told there"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-abc")
    assert device_memory_of("cuda:0", [12]).ours == 4
    assert device_memory_of("cuda:1", [12]).ours == 4
    assert nvml.asked == ["GPU-abc"]


def test_a_driver_that_hides_processes_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(hidden=True))  # type: ignore[arg-type]
    assert device_memory_of("cuda:1", [11]) == Memory("cuda:1", 80, 70, None)
    with pytest.raises(OSError, match="no such device"):
        device_memory_of("cuda:5", [11])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OSError, match="not installed"):
        device_memory_of("cuda:0", [11])
