"""A divided replica whose memory runs out ends with that reason: its rows go elsewhere or end with advice, and `--restart` starts it again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from pool_fake import Pool, Pools

from holynb.engines import poolwire
from holynb.engines.pool import Pool as Engine
from holynb.errors import Fault
from holynb.types import Endpoint, Message, Request, Route, Sampling, Timeouts
from kernels_support.jupyter import shortage

pytest.importorskip("torch")

LONG = {"prompt": [5, 6, 7], "max_tokens": 60, "temperature": 0, "ignore_eos": True}
ADVICE = "Start the pool with a smaller --max-len or --memory, or over more devices (--tp, --pp); fewer rows at once (-c) need less, too"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.talking(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    pools = Pools(tmp_path)
    yield pools
    pools.end()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test names the rank that runs out."""
    return tmp_path / "runs-out"


def start(pools: Pools, folder: Path, file: Path, *flags: str, replicas: int = 1) -> Pool:
    devices = ",".join(["cpu"] * (2 * replicas))
    more = ["--tp", "2", "--devices", devices, "--model", str(folder), "--runner", "oom_runner:Runner", *flags]
    return pools.start(*more, OMP_NUM_THREADS="1", HOLYNB_OOM=str(file))


def in_background(pool: Pool, **more: Any) -> tuple[threading.Thread, list[Any]]:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(pool.ask("/v1/completions", {**LONG, **more})))
    thread.start()
    return thread, got


@pytest.mark.parametrize("rank", [0, 1])
def test_the_row_hears_that_memory_ran_out_and_what_to_do(pools: Pools, folder: Path, file: Path, rank: int) -> None:
    pool = start(pools, folder, file)
    file.write_text(str(rank))
    status, answer = pool.ask("/v1/completions", LONG)
    assert (status, answer["error"]["code"]) == (500, "oom")
    message = answer["error"]["message"]
    assert f"rank {rank} of 2, process {pool.record.ranks[rank].pid} ran out of memory (MemoryError: can't allocate memory" in message
    assert message.endswith(ADVICE)
    assert "\n" not in message
    assert "Traceback" not in message
    fault = poolwire.fault(answer["error"], status)
    assert (fault.kind, fault.retry) == ("oom", True)
    assert pool.process.wait(10) == 1
    assert f"the pool echo ends: its last replica is gone: rank {rank} of 2" in pool.log()
    assert list((pool.home / "run").iterdir()) == []


def test_its_rows_are_written_by_the_others(pools: Pools, folder: Path, file: Path) -> None:
    pool = start(pools, folder, file, replicas=2)
    expected = pool.ask("/v1/completions", LONG)[1]["choices"][0]["text"]
    file.write_text("1")
    requests = [in_background(pool, prompt=[5, 6, 7 + i]) for i in range(3)]
    for thread, _ in requests:
        thread.join(60)
    assert [got[0][0] for _, got in requests] == [200] * 3
    assert ["oom"] in [got[0][1]["usage"].get("notes") for _, got in requests], "the rows that were begun again are marked"
    assert requests[0][1][0][1]["choices"][0]["text"] == expected
    health = pool.ask("/health")[1]
    assert len(health["replicas"]) == 1
    (how,) = health["deaths"]
    assert "ran out of memory" in how
    assert how.endswith(ADVICE)


def test_it_comes_back_where_that_is_wanted(pools: Pools, folder: Path, file: Path) -> None:
    pool = start(pools, folder, file, "--restart", "1")
    expected = pool.ask("/v1/completions", LONG)[1]["choices"][0]["text"]
    file.write_text("0")
    status, answer = pool.ask("/v1/completions", LONG)
    assert (status, answer["choices"][0]["text"]) == (200, expected), "the row waited for it and began anew"
    assert answer["usage"]["notes"] == ["oom"]
    assert len(pool.ask("/health")[1]["deaths"]) == 1
    file.write_text("1")
    status, answer = pool.ask("/v1/completions", LONG)
    assert (status, answer["error"]["code"]) == (500, "oom"), "it comes back as often as was asked for"
    assert pool.process.wait(10) == 1


def test_who_comes_later_hears_the_same(pools: Pools, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = start(pools, folder, file)
    (pool.home / "pool.log").rename(pool.home / "logs" / "pool-echo.log")  # where a pool that `start` started has it
    monkeypatch.setenv("HOLYNB_HOME", str(pool.home))

    async def ask() -> None:
        engine = Engine(Endpoint(Route("pool", "echo"), "pool"), lambda: None)
        request = Request(
            0, (Message("user", "hi"),), Route("pool", "echo"), Sampling(max_tokens=60, extra={"ignore_eos": True}), stream=True
        )
        try:
            async for _ in engine.send(request, Timeouts()):
                pass
        finally:
            await engine.aclose()

    asyncio.run(ask())
    file.write_text("0")
    with pytest.raises(Fault, match="ran out of memory") as first:
        asyncio.run(ask())
    assert (first.value.kind, first.value.retry) == ("oom", True)
    assert pool.process.wait(10) == 1
    with pytest.raises(
        Fault, match=r"is not running any more: .* ran out of memory .* Start it: %infer pool start MODEL --name echo"
    ) as later:
        asyncio.run(ask())
    assert (later.value.kind, later.value.retry, later.value.stops) == ("oom", False, True)
    assert "\n" not in str(later.value)


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            True,
        ),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("heads do not divide"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, ran_out: bool) -> None:
    assert shortage.is_out_of_memory(error) is ran_out
