"""Main of a pool: brings its weights, its ranks and its sockets up, watches them, and leaves nothing when it ends. No torch.

It ends when told (SIGTERM), after an idle time, when its rendezvous file is gone, and when its last rank has died; then
ranks, sockets and files go with it. Its last line in the log says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from holynb.errors import UserError
from holynb.pool import orders
from holynb.pool.app import application
from holynb.pool.forecast import forecast
from holynb.pool.listen import Doors, PortTaken, bind, serving
from holynb.pool.mesh import Mesh
from holynb.pool.orders import Plan, plan_of
from holynb.pool.replica import Replica
from holynb.pool.service import Identity, Service
from holynb.pool.text import Text
from holynb.pool.weights import WeightsError, ready
from kernels_support.jupyter import rendezvous, shortage
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

__all__ = ["Failed", "folder_of", "house", "main", "more_files", "serve", "watch"]

#: Seconds between two looks at the idle clock and at the rendezvous file.
_TICK = 1.0

#: Seconds before a replica that died is started again: what killed it may still hold its device.
_PAUSE = 1.0


class Failed(Exception):
    """The pool cannot start; one line that says why."""


async def serve(plan: Plan) -> int:
    """Run the pool until it ends. The exit code: 0 where it was told to end or idled, 1 where it failed."""
    service = Service(Identity(plan.name, plan.model))
    return await house(plan, service, application(service), lambda record: _Life(plan, service, record).run())


async def house(plan: Plan, service: Service, app: ASGIApp, live: Callable[[Record], Awaitable[None]]) -> int:
    """Lock, sockets and record of a pool around its life, and none of them afterwards. `live` may raise Failed. The exit code."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end, f"it was told to end ({number.name})")
    me = Process.mine()
    lock = rendezvous.lock(plan.run, plan.name)
    if not lock.take(0):
        _say(f"error: a pool named {plan.name} is already running or starting; stop it first or use --name.")
        return 1
    house: Path | None = None
    try:
        house = rendezvous.socket_dir()
        doors = bind(house, plan.port)
        async with serving(app, doors):
            try:
                await live(_record(plan, doors))
            except Failed as exc:
                service.fail(str(exc))  # before the sockets close: what waits must hear why
    except PortTaken as exc:
        service.fail(str(exc))
    finally:
        with contextlib.suppress(OSError):  # what cannot be removed now is stale, and the next one cleans it
            rendezvous.remove(plan.run, plan.name, owner=me)
        if house is not None:
            shutil.rmtree(house, ignore_errors=True)
        lock.free(remove=True)
    _say(f"{'error: ' if service.state == 'failed' else ''}the pool {plan.name} ends: {service.why}")
    return 1 if service.state == "failed" else 0


def _record(plan: Plan, doors: Doors) -> Record:
    """What others find this pool by."""
    facts = {"model": plan.model, "devices": list(plan.devices), "started": time.time(), "dp": plan.dp, "tp": plan.tp, "pp": plan.pp}
    return Record(plan.name, Process.mine(), str(doors.path), doors.port, doors.token, facts=facts)


class _Life:
    """The replicas of one pool: started, started again where that is wanted, and ended."""

    def __init__(self, plan: Plan, service: Service, record: Record) -> None:
        self._plan, self._service, self._record = plan, service, record
        self._replicas: dict[int, Replica] = {}
        self._folder = Path()
        self._left = plan.restart
        self._starts = 0
        self._reviving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start, watch, end. Raises Failed."""
        rendezvous.write(self._plan.run, self._record)
        over = asyncio.create_task(self._service.over.wait())
        tasks = (asyncio.create_task(self._start()), asyncio.create_task(watch(self._plan, self._service)), over)
        try:
            await asyncio.wait({tasks[0], over}, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
            await over
        finally:
            for task in (*tasks, *self._reviving):
                task.cancel()
            await asyncio.gather(*tasks, *self._reviving, return_exceptions=True)
            await asyncio.gather(*(r.stop() for r in self._replicas.values()))

    async def _start(self) -> None:
        """Weights, then ranks and the tokenizer side by side. Raises Failed."""
        plan, service = self._plan, self._service
        self._folder = await folder_of(plan, service)
        service.at("loading the weights")
        if (line := await _forecast(plan, self._folder)) is not None:
            service.at(f"loading the weights: {line}")
            _say(line)
        for number in range(plan.dp):
            service.join(await self._launch(number))
        self._write()
        try:
            text = await asyncio.to_thread(Text, self._folder)
        except Exception as exc:
            raise Failed(f"the tokenizer of {plan.model} cannot be read: {exc}") from exc
        if not all(await asyncio.gather(*(r.ready() for r in self._replicas.values()))):
            why = next((r.ended for r in self._replicas.values() if r.ended), None)
            raise Failed(f"a replica did not start: {why}")
        service.revive = self._revive
        service.open(text)
        _say(f"ready: {plan.name} serves {self._folder} on {', '.join(plan.devices)}")

    async def _launch(self, number: int) -> Replica:
        """A replica's processes, started and told what to load. Raises OSError."""
        plan = self._plan
        self._starts += 1
        meet = Path(str(self._record.socket)).with_name(f"meet{self._starts}")
        ranks = range(number * plan.size, (number + 1) * plan.size)
        replica = Replica([(orders.command(plan, r), orders.load(plan, self._folder, r, meet)) for r in ranks], self._service.lost)
        self._replicas[number] = replica
        await replica.start()
        return replica

    def _write(self) -> None:
        """What runs now is what others find."""
        processes = tuple(p for r in self._replicas.values() for p in r.processes)
        rendezvous.write(self._plan.run, replace(self._record, ranks=processes))

    def _revive(self, replica: Replica) -> bool:
        """Begin to start a dead replica again, where that is wanted still."""
        number = next((n for n, r in self._replicas.items() if r is replica), None)
        if self._left < 1 or number is None:
            return False
        self._left -= 1
        task = asyncio.create_task(self._again(number))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)
        return True

    async def _again(self, number: int) -> None:
        await asyncio.sleep(_PAUSE)
        with contextlib.suppress(OSError):  # the service has heard of it from the replica
            replica = await self._launch(number)
            self._write()
            if not await replica.ready():
                return
            self._service.join(replica, again=True)
            _say(f"replica {number} was started again")


async def folder_of(plan: Plan, service: Service) -> Path:
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


async def _forecast(plan: Plan, folder: Path) -> str | None:
    """The plan's line about these devices. Raises Failed where the model does not fit, cannot be divided so, or is not known."""
    if plan.runner != orders.RUNNER:
        return None
    mesh = Mesh(plan.tp, plan.pp)
    try:
        return await asyncio.to_thread(
            forecast, folder, plan.devices, dtype=plan.dtype, max_len=plan.max_len, share=plan.memory, mesh=mesh
        )  # fmt: skip
    except UserError as exc:
        raise Failed(str(exc)) from exc


async def watch(plan: Plan, service: Service) -> None:
    """End the pool when nobody uses it, or when its rendezvous file is gone: nobody could find it any more."""
    while True:
        await asyncio.sleep(min(_TICK, plan.idle))
        if service.requests == 0 and service.state == "ready" and time.monotonic() - service.used_at >= plan.idle:
            service.end(f"nobody used it for {plan.idle:g} s")
        with contextlib.suppress(OSError):  # no file can be opened now: many requests, and no sign that it is gone
            if rendezvous.find(plan.run, plan.name) is None:
                service.end("its rendezvous file is gone")


def more_files() -> None:
    """As many open files as the system grants: each row has a connection, and the usual 1,024 are soon spent."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS grants less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(line: str) -> None:
    """Into the log. A disk that is full then takes the line, and not the pool."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    plan = plan_of(argv)
    more_files()
    try:
        return asyncio.run(serve(plan))
    except OSError as exc:
        _say(f"error: the pool {plan.name} cannot run: {shortage.words(exc)}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
