"""Main of a pool: brings its weights, its ranks and its sockets up, watches them, and leaves nothing when it ends. No torch.

It ends when told (SIGTERM), after an idle time, when its rendezvous file is gone, and when its last rank has died; then
ranks, sockets and files go with it. Its last line in the log says why.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holynb.errors import UserError
from holynb.pool.app import application
from holynb.pool.forecast import forecast
from holynb.pool.listen import Doors, PortTaken, bind, serving
from holynb.pool.replica import Replica
from holynb.pool.service import Identity, Service
from holynb.pool.text import Text
from holynb.pool.weights import WeightsError, ready
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Command

__all__ = ["Plan", "main", "serve"]

#: Seconds between two looks at the idle clock and at the rendezvous file.
_TICK = 1.0

#: What computes, where nothing else is asked for.
RUNNER = "holynb.pool.runner:Runner"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `devices` has one entry a rank; `runner` is the class that computes (`module:Class`)."""

    name: str
    model: str
    home: Path
    devices: tuple[str, ...] = ("cpu",)
    dtype: str | None = None
    max_len: int | None = None
    memory: float = 0.9
    port: int | None = None
    idle: float = 1800.0
    runner: str = RUNNER

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def tag(self) -> str:
        return f"holynb-pool:{self.name}"

    def log(self, rank: int | None = None) -> Path:
        return self.home / "logs" / f"pool-{self.name.replace('/', '_')}{'' if rank is None else f'.rank{rank}'}.log"


class Failed(Exception):
    """The pool cannot start; one line that says why."""


async def serve(plan: Plan) -> int:
    """Run the pool until it ends. The exit code: 0 where it was told to end or idled, 1 where it failed."""
    service = Service(Identity(plan.name, plan.model))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end, f"it was told to end ({number.name})")
    me = Process.mine()
    lock = rendezvous.lock(plan.run, plan.name)
    if not lock.take(0):
        print(f"error: a pool named {plan.name} is already running or starting; stop it first or use --name.", flush=True)
        return 1
    house: Path | None = None
    try:
        house = rendezvous.socket_dir()
        doors = bind(house, plan.port)
        async with serving(application(service), doors):
            try:
                await _live(plan, service, _record(plan, doors))
            except Failed as exc:
                service.fail(str(exc))  # before the sockets close: what waits must hear why
    except PortTaken as exc:
        service.fail(str(exc))
    finally:
        rendezvous.remove(plan.run, plan.name, owner=me)
        if house is not None:
            shutil.rmtree(house, ignore_errors=True)
        lock.free(remove=True)
    print(f"{'error: ' if service.state == 'failed' else ''}the pool {plan.name} ends: {service.why}", flush=True)
    return 1 if service.state == "failed" else 0


def _record(plan: Plan, doors: Doors) -> Record:
    """What others find this pool by."""
    facts = {"model": plan.model, "devices": list(plan.devices), "started": time.time(), "dp": len(plan.devices)}
    return Record(plan.name, Process.mine(), str(doors.path), doors.port, doors.token, facts=facts)


async def _live(plan: Plan, service: Service, record: Record) -> None:
    """Start, watch, end. Raises Failed."""
    rendezvous.write(plan.run, record)
    replicas: list[Replica] = []
    starting = asyncio.create_task(_start(plan, service, record, replicas))
    watching = asyncio.create_task(_watch(plan, service))
    over = asyncio.create_task(service.over.wait())
    try:
        await asyncio.wait({starting, over}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        await over
    finally:
        tasks = (starting, watching, over)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(r.stop() for r in replicas))


async def _start(plan: Plan, service: Service, record: Record, replicas: list[Replica]) -> None:
    """Weights, then ranks and the tokenizer side by side. Raises Failed."""
    folder = await _folder(plan, service)
    service.at("loading the weights")
    for line in dict.fromkeys([await _forecast(plan, folder, device) for device in plan.devices]):
        if line is not None:
            service.at(f"loading the weights: {line}")
            print(line, flush=True)
    for number, device in enumerate(plan.devices):
        replica = Replica(_rank(plan, number), _load(plan, folder, device), service.lost)
        replicas.append(replica)
        service.join(replica)
        await replica.start()
    ranks = tuple(r.child.process for r in replicas if r.child and r.child.process)
    rendezvous.write(plan.run, replace(record, ranks=ranks))
    try:
        text = await asyncio.to_thread(Text, folder)
    except Exception as exc:
        raise Failed(f"the tokenizer of {plan.model} cannot be read: {exc}") from exc
    await asyncio.gather(*(r.ready.wait() for r in replicas))
    service.open(text)
    print(f"ready: {plan.name} serves {folder} on {', '.join(plan.devices)}", flush=True)


async def _folder(plan: Plan, service: Service) -> Path:
    """The weights' folder; fetched or converted by a process of its own, whose progress is passed on. Raises Failed."""
    try:
        found = ready(plan.model, plan.home)
    except WeightsError as exc:
        raise Failed(str(exc)) from exc
    if found is not None:
        return found
    command = [
        sys.executable,
        "-P",
        "-m",
        "holynb.pool.weights",
        plan.model,
        "--home",
        str(plan.home),
        "--tag",
        plan.tag,
        "--parent",
        str(os.getpid()),
    ]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    last: dict[str, Any] = {}
    try:
        assert child.stdout is not None  # noqa: S101 - it was asked for
        async for line in child.stdout:
            last = json.loads(line)
            if "stage" in last:
                service.at(last["stage"], last["share"])
        await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if "folder" not in last:
        raise Failed(last.get("error") or f"the weights of {plan.model} could not be made ready (see the log)")
    return Path(last["folder"])


async def _forecast(plan: Plan, folder: Path, device: str) -> str | None:
    """The plan's line about one device. Raises Failed where the model does not fit or is not known."""
    if plan.runner != RUNNER:
        return None
    try:
        return await asyncio.to_thread(forecast, folder, device, dtype=plan.dtype, max_len=plan.max_len, share=plan.memory)
    except UserError as exc:
        raise Failed(str(exc)) from exc


def _rank(plan: Plan, number: int) -> Command:
    argv = [sys.executable, "-P", "-m", "holynb.pool.worker", "--tag", plan.tag, "--runner", plan.runner]
    log = plan.log(number)
    log.unlink(missing_ok=True)
    # Spinning OpenMP threads take a shared core away from everybody, themselves included (92 → 18 tokens/s).
    return Command(argv, env={"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}, log=log, cores=_cores(plan, number))


def _cores(plan: Plan, number: int) -> frozenset[int] | None:
    """The cores of one of several replicas on CPU: each its own share, or their threads would take turns on all of them."""
    if len(plan.devices) == 1 or plan.devices[number] != "cpu" or not hasattr(os, "sched_getaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))
    count = plan.devices.count("cpu")
    at = plan.devices[:number].count("cpu")
    return frozenset(mine[at::count] or [mine[at % len(mine)]])


def _load(plan: Plan, folder: Path, device: str) -> dict[str, Any]:
    return {"folder": str(folder), "device": device, "dtype": plan.dtype, "max_len": plan.max_len, "memory": plan.memory}


async def _watch(plan: Plan, service: Service) -> None:
    """End the pool when nobody uses it, or when its rendezvous file is gone: nobody could find it any more."""
    while True:
        await asyncio.sleep(min(_TICK, plan.idle))
        if service.requests == 0 and service.state == "ready" and time.monotonic() - service.used_at >= plan.idle:
            service.end(f"nobody used it for {plan.idle:g} s")
        if rendezvous.find(plan.run, plan.name) is None:
            service.end("its rendezvous file is gone")


def plan_of(argv: list[str] | None) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.server", description=__doc__)
    parser.add_argument("--tag", default="holynb-pool", help="what a list of processes shows")
    for name, kind in (("name", str), ("model", str), ("home", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--devices", default="cpu", help="one a replica, with commas")
    parser.add_argument("--dtype")
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=0.9)
    parser.add_argument("--port", type=int)
    parser.add_argument("--idle", type=float, default=1800.0, help="seconds without a request after which the pool ends")
    parser.add_argument("--runner", default=os.environ.get("HOLYNB_POOL_RUNNER", RUNNER), help="module:Class that computes")
    said = vars(parser.parse_args(argv))
    del said["tag"]
    return Plan(**{**said, "devices": tuple(said["devices"].split(","))})


def _more_files() -> None:
    """As many open files as the system grants: each row has a connection, and the usual 1,024 are soon spent."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS grants less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    plan = plan_of(argv)
    _more_files()
    try:
        return asyncio.run(serve(plan))
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        print(f"error: the pool {plan.name} cannot run: {exc.strerror or exc}{where}", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
