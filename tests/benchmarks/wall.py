"""Where one notebook ends: what a row costs at 10³ to 10⁶ rows, 1 to 1,000 replicas and 1 to 10 providers, in virtual time.

    .venv/bin/python tests/benchmarks/wall.py runs [--rows 1000,10000,100000,1000000] [--providers 1,3,10]
    .venv/bin/python tests/benchmarks/wall.py replicas [--replicas 1,10,100,1000] [--rate 1000] [--seconds 15]
    .venv/bin/python tests/benchmarks/wall.py draw               # the README's figure, from what --out tests/benchmarks/wall.jsonl has gathered

runs: the real plan, scheduler, limiters, prices, journal and run log, a process for each cell; only the servers are simulated. Each answers in
0.2 to 1.2 s and has a quota a minute that its headers tell; one request in fifty fails; every ten minutes the first provider is gone for ten
seconds and each other one for a minute. The clock jumps to whatever is due next, but no further than 50 ms past a commit under way.

replicas: the pool's real dispatch and the server's side of its replicas, whose ranks are simulated: so many rows a second arrive, eight
beginnings among them, and take 10 s and 400 tokens each, 10 in a frame. Share of a core: processor time of the dispatch in a virtual second.

Each prints JSON, a line for a cell, and `--out FILE` adds it to a file. Seconds of the processor are compared, since others use the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]

from servers import virtual  # noqa: E402 - as above
from tables import MB, Peak, table  # noqa: E402 - the path comes first
from wall_figure import draw  # noqa: E402 - as above

QUOTA_RPM = 60_000
DISK_S = 0.05


class Clock(virtual.VirtualLoop):
    """Virtual time that waits for what is real: with a commit or a thread under way it goes on by DISK_S at most."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self._now
        self._under_way, self._since, self._lock = 0, self._now, threading.Lock()

    def count(self, change: int) -> None:
        """So many real things more or fewer are under way. From any thread."""
        with self._lock:
            self._under_way += change
            self._since = self._now
        if change < 0 and not self.is_closed():
            self.call_soon_threadsafe(int)

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        self.count(1)
        future = super().run_in_executor(executor, function, *args)
        future.add_done_callback(lambda _: self.count(-1))
        return future

    def _run_once(self) -> None:
        timers, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            heapq.heappop(timers)._scheduled = False
        if not ready and timers:
            due = timers[0]._when
            if self._under_way and due > self._since + DISK_S:
                self._process_events(self._selector.select(0.05))  # type: ignore[attr-defined]
                return
            self._now = max(self._now, due)
        asyncio.SelectorEventLoop._run_once(self)  # type: ignore[attr-defined]


@contextmanager
def commits_take_time(clock: Clock) -> Iterator[None]:
    """The clock counts what waits for the run log's disk."""
    from holynb.runlog import statements, writer

    add, done = writer.LogWriter.add, statements.Statement.done

    def waited_for(statement: Any) -> bool:
        return statement.on_done is not None and not statement.replay

    def added(self: Any, statement: Any) -> None:
        if waited_for(statement):
            clock.count(1)
        add(self, statement)

    def ended(self: Any, failure: Exception | None) -> None:
        first = not self._done
        done(self, failure)
        if first and waited_for(self):
            clock.count(-1)

    with mock.patch.object(writer.LogWriter, "add", added), mock.patch.object(statements.Statement, "done", ended):
        yield


# -- a run over providers ------------------------------------------------------------------------------------------------------
class Provider:
    """An engine: a server with a quota, faults and outages, in virtual time."""

    def __init__(self, endpoint: Any, number: int) -> None:
        self.endpoint = endpoint
        self._quota = virtual.Quota(QUOTA_RPM, latency=0.2, seed=number)
        self._rng, self._number = random.Random(number), number

    async def ready(self, notice: Callable[..., None]) -> None:
        """Nothing to prepare."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def _is_gone(self, now: float) -> bool:
        return (now - 1000.0 - 60 * self._number) % 600 < (60 if self._number else 10) and now > 1060.0

    async def send(self, request: Any, timeouts: Any) -> AsyncIterator[Any]:
        from holynb.errors import Fault
        from holynb.types import Completion, Done, Usage

        if self._is_gone(asyncio.get_running_loop().time()):
            await asyncio.sleep(0.01)
            raise Fault("connection", "refused", retry=True, unreachable=True)
        admitted, wait, limits = await self._quota.ask()
        if not admitted:
            raise Fault("rate_limit", "too many requests", status=429, retry=True, wait=wait, limits=limits)
        await asyncio.sleep(self._rng.random())
        if self._rng.random() < 0.02:
            raise Fault("server", "internal error", status=500, retry=True)
        text = request.messages[-1].content
        yield Done(Completion(text, "stop", "m", Usage(9, 9)), limits)


def run(rows: int, providers: int) -> dict[str, Any]:
    """One run, in this process."""
    import pyarrow as pa  # noqa: F401 - loaded before memory is looked at

    import holynb
    from holynb import runlog
    from holynb.config import Options
    from holynb.run import assembly, plan
    from holynb.run.run import Run
    from holynb.scheduler import Limiter

    names = [f"p{i}" for i in range(providers)]
    home = Path(os.environ["HOLYNB_HOME"])
    tables = [f'[provider.{n}]\nbase = "https://{n}.example.com/v1"\nkey = "WALL_KEY"' for n in names]
    tables += [f'[price."{n}/m"]\ninput = 0.4\noutput = 1.6' for n in names]
    (home / "config.toml").write_text("\n".join(tables) + "\n", "utf-8")
    holynb.infer(["warm"], "sim/echo").wait()
    given = table(rows)
    peak, worked, started = Peak(), time.process_time(), time.perf_counter()
    options = Options.parse({"df": given, "spread": [f"{n}/m" for n in names]} if providers > 1 else {"df": given})
    planned = plan.make("{{ what }}!", "p0/m", options)
    plan_s, one = time.process_time() - worked, Run(planned)

    def engines(made: Any) -> dict[Any, Any]:
        return {e.route: Provider(e, n) for n, e in enumerate(made.targets.endpoints)}

    with asyncio.Runner(loop_factory=Clock) as runner:
        clock: Any = runner.get_loop()
        limiter = partial(Limiter, clock=clock.time)
        with commits_take_time(clock), mock.patch.multiple(assembly, engines=engines, Limiter=limiter):
            runner.run(one._main())
        worked, virtual_s = time.process_time() - worked, clock.time() - clock.start
    summary = one.check().summary()
    if summary.ok != rows:
        raise AssertionError(summary)
    runlog.close()
    return {
        "what": "run",
        "rows": rows,
        "providers": providers,
        "cpu_ms_a_row": 1000 * worked / rows,
        "plan_ms_a_row": 1000 * plan_s / rows,
        "peak_mb": peak.above(),
        "log_mb": sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) / MB,
        "attempts": int(one.frame()["attempts"].sum()),
        "virtual_s": virtual_s,
        "wall_s": time.perf_counter() - started,
    }


# -- a pool of many replicas ---------------------------------------------------------------------------------------------------
class SimulatedRank:
    """Says so many tokens a second for every job it has, in frames as a rank's come."""

    STEP_S, TOKENS, STEPS = 0.25, (7,) * 10, 40

    def __init__(self, replica: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.stats: dict[str, Any] = {}
        self._replica, self._loop, self._jobs, self._stepping = replica, loop, {}, False
        self.frames_s, self.emits = 0.0, 0

    def send(self, frame: Any) -> None:
        if frame.kind == "add":
            self._jobs[frame.job.id] = 0
            if not self._stepping:
                self._stepping = True
                self._loop.call_later(self.STEP_S, self._step)

    def _step(self) -> None:
        from holynb.pool.protocol import Emit, StepOutput

        emits = []
        for number, done in list(self._jobs.items()):
            self._jobs[number] = done + 1
            ended = done + 1 == self.STEPS
            emits.append(Emit(number, self.TOKENS, "stop" if ended else None, "admitted" if not done else None))
            if ended:
                del self._jobs[number]
        began = time.thread_time()
        self._replica._on_frame(self, StepOutput(tuple(emits)))
        self.frames_s += time.thread_time() - began
        self.emits += len(emits)
        self._stepping = bool(self._jobs)
        if self._stepping:
            self._loop.call_later(self.STEP_S, self._step)


def replicas(count: int, rate: int, seconds: float) -> dict[str, Any]:
    """Rows to a pool of so many replicas, in this process."""
    from holynb.pool.job import Job
    from holynb.pool.server.replica import Replica
    from holynb.pool.server.service import Identity, Service

    async def main() -> dict[str, Any]:
        loop, service = asyncio.get_running_loop(), Service(Identity("pool", "model"))
        ranks = []
        for number in range(count):
            replica = Replica([], lambda *_: None, number)
            ranks.append(SimulatedRank(replica, loop))
            replica.ranks = [ranks[-1]]  # type: ignore[list-item]
            service.add_replica(replica)
        most, dispatch_s, rows, rng = 0, 0.0, int(rate * seconds), random.Random(7)
        heads = [tuple(rng.randrange(1000) for _ in range(40)) for _ in range(8)]
        for number in range(rows):
            job = Job(number, (*heads[number % 8], number), 512)
            began = time.thread_time()
            service.submit([job])
            dispatch_s += time.thread_time() - began
            await asyncio.sleep(1 / rate)
        most = max(len(r.generations) for r in service._replicas)
        fewest = min(len(r.generations) for r in service._replicas)
        frames_s, emits = sum(r.frames_s for r in ranks), sum(r.emits for r in ranks)
        return {
            "what": "replicas",
            "replicas": count,
            "rows": rows,
            "dispatch_us_a_row": 1e6 * dispatch_s / rows,
            "share_of_a_core": dispatch_s / seconds,
            "frames_us_an_emit": 1e6 * frames_s / max(1, emits),
            "most_rows_of_one": most,
            "fewest": fewest,
        }

    with asyncio.Runner(loop_factory=Clock) as runner:
        return runner.run(main())


# -- the grid ------------------------------------------------------------------------------------------------------------------
def cell(*args: str) -> dict[str, Any]:
    """One cell, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="wall-", ignore_cleanup_errors=True) as home:
        done = subprocess.run(
            [sys.executable, __file__, "one", *args],
            env={**os.environ, "HOLYNB_HOME": home, "WALL_KEY": "sk-simulated-0123456789"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["runs", "replicas", "draw", "one"])
    parser.add_argument("args", nargs="*")
    parser.add_argument("--rows", type=numbers, default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--providers", type=numbers, default=[1, 3, 10])
    parser.add_argument("--replicas", type=numbers, default=[1, 10, 100, 1_000])
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.what == "draw":
        draw(
            Path(asked.args[0]) if asked.args else ROOT / "tests" / "benchmarks" / "wall.jsonl",
            ROOT / "notebooks" / "pictures" / "wall.svg",
        )
        return
    if asked.what == "one":
        kind, *values = asked.args
        print(json.dumps(run(*map(int, values)) if kind == "run" else replicas(int(values[0]), int(values[1]), float(values[2]))))
        return
    grid = (
        [("run", str(r), str(p)) for r, p in itertools.product(asked.rows, asked.providers)]
        if asked.what == "runs"
        else [("replicas", str(n), str(asked.rate), str(asked.seconds)) for n in asked.replicas]
    )
    for args in grid:
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in cell(*args).items()})
        print(line, flush=True)
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
