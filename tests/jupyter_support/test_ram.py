"""What the system tells of its memory, and what it does not: cgroup v1 and v2, `max`, empty files, words, and a /proc that is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from holynb import doctor
from holynb.doctor import pool
from holynb.pool.fit.memory import bf16_is_fast, device_memory
from holynb.ui.live import memory as live
from kernels_support.jupyter import process, ram
from kernels_support.jupyter.ram import Ram

GB = 10**9

Container = Callable[..., None]


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    """A machine of 8 GB, 6 of them free, with these files of a cgroup; None: no such file."""

    def say(v2: tuple[str | None, str | None], v1: tuple[str | None, str | None] = (None, None)) -> None:
        names = [(str(tmp_path / f"{kind}-limit"), str(tmp_path / f"{kind}-usage")) for kind in ("v2", "v1")]
        for files, texts in zip(names, (v2, v1), strict=True):
            for file, text in zip(files, texts, strict=True):
                Path(file).unlink(missing_ok=True)
                if text is not None:
                    Path(file).write_bytes(text.encode("latin-1"))
        monkeypatch.setattr(ram, "CGROUPS", tuple(names))

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * GB, available=6 * GB))
    return say


NO_NUMBER = (None, "", "\n", "max", "garbage", "-1", "1e9", "0x40", "²", "1_000", "12 34", "9" * 5000)


def test_a_containers_limit_counts_where_it_is_less_than_the_machine(container: Container) -> None:
    for files in (((f"{2 * GB}\n", f"{GB}\n"),), ((None, None), (f"{2 * GB}", f"{GB}"))):
        container(*files)
        assert ram.ram() == Ram(2 * GB, GB)
    container((str(2 * GB), str(3 * GB)))
    assert ram.ram() == Ram(2 * GB, 0)
    container((str(7 * GB), "0"))
    assert ram.ram() == Ram(7 * GB, 6 * GB), "what the machine has free, no more"


@pytest.mark.parametrize("limit", [*NO_NUMBER, "0", str(2**63 - 4096), str(2**64 - 1), str(8 * GB)])
def test_no_limit_is_the_machines_own_whatever_the_usage_says(container: Container, limit: str | None) -> None:
    for usage in (*NO_NUMBER, "5"):
        container((limit, usage), (limit, usage))
        assert ram.ram() == Ram(8 * GB, 6 * GB)


@pytest.mark.parametrize("usage", NO_NUMBER)
def test_a_limit_without_a_usage_leaves_open_what_is_free(container: Container, usage: str | None) -> None:
    for files in (((str(2 * GB), usage),), ((None, None), (str(2 * GB), usage))):
        container(*files)
        assert ram.ram() == Ram(2 * GB, None)
        (local,) = pool.local_pool()
        assert local.state == "works"
        assert "free memory unknown" in local.says
        gauge = live.machine()
        assert (gauge.total, gauge.used) == (0, gauge.ours)
        assert 0 < device_memory("cpu").free < device_memory("cpu").total == 2 * GB


@pytest.mark.parametrize("failure", [FileNotFoundError("/proc/meminfo"), KeyError(b"MemTotal:"), ValueError("no number"), psutil.Error()])
def test_a_machine_that_tells_nothing_is_unknown(container: Container, failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise failure

    container(("max", "5"))
    monkeypatch.setattr(psutil, "virtual_memory", fail)
    assert ram.ram() == Ram(None, None)
    assert "free memory unknown" in next(pool.local_pool()).says
    with pytest.raises(OSError, match="does not report how much memory"):
        device_memory("cpu")
    container((str(2 * GB), str(GB)))
    assert ram.ram() == Ram(2 * GB, GB), "its container does"
    container(("max", "5"))
    with monkeypatch.context() as patched:
        patched.setattr(psutil, "Process", fail)
        assert ram.resident() is None
        assert (live.machine().used, live.machine().total, live.machine().ours) == (0, 0, None)


def test_the_real_one_has_some() -> None:
    total, free = ram.ram()
    assert total is not None
    assert free is not None
    assert 0 < free <= total
    assert 10**6 < (ram.resident() or 0) < total
    assert ram.resident(2**22 + 1) is None


def texts(monkeypatch: pytest.MonkeyPatch, text: str | OSError) -> None:
    """Every file of /proc says this."""
    real = Path.read_text

    def read(path: Path, *args: object, **options: object) -> str:
        if not str(path).startswith("/proc/"):
            return real(path, *args, **options)  # type: ignore[arg-type]
        if isinstance(text, OSError):
            raise text
        return text

    monkeypatch.setattr(Path, "read_text", read)


@pytest.mark.parametrize("text", ["", "garbage", "1 (a) S", "1 (a) S " + "x " * 40, FileNotFoundError(), PermissionError()])
def test_a_proc_that_says_nothing_useful_raises_nothing(text: str | OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(monkeypatch, text)
    assert bf16_is_fast() is False
    assert isinstance(process.boot_id(), str)
    assert process.boot_id()
    mine = process.Process.of(os.getpid())
    if not isinstance(text, OSError):
        assert mine is not None
        assert mine.alive, "its number is known"


def test_what_breaks_one_check_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise ZeroDivisionError("of no use")

    monkeypatch.setattr(pool, "_free_memory", broken)
    checks = {c.name: c for c in doctor.checks()}
    assert (checks["local pool"].state, checks["local pool"].says) == ("broken", "ZeroDivisionError: of no use")
    assert "Python" in checks
