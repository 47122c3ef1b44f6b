"""A pool's lifecycle around any backend: it is started, watched and stopped once, and lock, sockets and record go with it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from holynb.pool.server import lifecycle
from holynb.pool.server.app import application
from holynb.pool.server.config import PoolConfig
from holynb.pool.server.lifecycle import StartError, serve
from holynb.pool.server.service import Identity, Service
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record


class Stub:
    """A backend without processes. `during` is what it does while it starts."""

    def __init__(self, service: Service, record: Record, during: Callable[[Stub], None]) -> None:
        self.service, self.record, self.during = service, replace(record, facts={**record.facts, "engine": "stub"}), during
        self.stops = 0
        self.cancelled = False

    async def start(self) -> None:
        try:
            self.during(self)
            if self.service.state == "starting":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def stop(self) -> None:
        self.stops += 1
        self.service.fail("what was stopped ended")  # as from replicas, which do not know why they were stopped


def live(home: Path, during: Callable[[Stub], None], idle: float = 600.0) -> tuple[int, Stub, Service]:
    config = PoolConfig("n", "m", home, idle=idle)
    service = Service(Identity("n", "m"))
    stubs: list[Stub] = []

    def backend_of(record: Record) -> Stub:
        stubs.append(Stub(service, record, during))
        return stubs[0]

    async def run() -> int:
        async with asyncio.timeout(20):
            return await serve(config, service, application(service), backend_of)

    code = asyncio.run(run())
    assert list((home / "run").iterdir()) == [], "nothing is left"
    assert not Path(str(stubs[0].record.socket)).parent.exists()
    return code, stubs[0], service


def ready(stub: Stub) -> None:
    stub.service.state = "ready"


def test_it_ends_when_nobody_uses_it(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def during(stub: Stub) -> None:
        ready(stub)
        record = rendezvous.find(home / "run", "n")
        assert record is not None
        assert (record.process, record.facts["engine"]) == (Process.mine(), "stub"), "the record is the backend's"

    code, stub, service = live(home, during, idle=0.2)
    assert (code, stub.stops, service.state) == (0, 1, "ended")
    assert capfd.readouterr().out == "the pool n ends: it was idle for 0.2 s\n"


def test_it_ends_when_its_record_is_gone(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def during(stub: Stub) -> None:
        ready(stub)
        rendezvous.remove(home / "run", "n")

    code, stub, _ = live(home, during)
    assert (code, stub.stops) == (0, 1)
    assert "its rendezvous file is gone" in capfd.readouterr().out


def test_a_record_that_is_missed_once_does_not_end_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []
    find = rendezvous.find

    def every_other(folder: Path, name: str) -> Record | None:
        looks.append(1)
        if len(looks) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return find(folder, name) if len(looks) % 2 else None

    monkeypatch.setattr(rendezvous, "find", every_other)
    monkeypatch.setattr(lifecycle, "_CHECK_INTERVAL_S", 0.02)
    code, _, _ = live(home, ready)
    assert (code, len(looks) >= 9) == (0, True)
    assert capfd.readouterr().out == "the pool n ends: it was told to end (SIGTERM)\n"


def test_a_signal_ends_it_also_while_it_starts(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, stub, _ = live(home, lambda stub: os.kill(os.getpid(), signal.SIGTERM))
    assert (code, stub.stops, stub.cancelled) == (0, 1, True)
    assert capfd.readouterr().out == "the pool n ends: it was told to end (SIGTERM)\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StartError("the model does not fit"), "the model does not fit"),
        (
            OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
            "it cannot run: Resource temporarily unavailable. No further process may be started",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), "it cannot run: No space left on device (/x). Free some space there"),
    ],
)
def test_a_start_that_fails_is_one_line_and_is_buried(home: Path, error: Exception, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    def during(stub: Stub) -> None:
        raise error

    code, stub, service = live(home, during)
    assert (code, stub.stops, service.state) == (1, 1, "failed")
    output = capfd.readouterr().out
    assert output.startswith(f"error: the pool n ends: {words}")
    assert output.count("\n") == 1
    assert service.why is not None
    assert words in service.why, "who waits for it hears the same"


def test_a_fault_of_ours_keeps_its_traceback_and_is_buried_too(home: Path) -> None:
    seen: list[Stub] = []

    def during(stub: Stub) -> None:
        seen.append(stub)
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        live(home, during)
    assert seen[0].stops == 1
    assert list((home / "run").iterdir()) == []
