"""Main of a pool of our own processes: weights made ready, replicas started, started again where that is wanted, and ended. No torch.

Where the last replica has died the pool ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from pathlib import Path

from holynb.errors import UserError
from holynb.pool.fit import Mesh, forecast
from holynb.pool.server import config, lifecycle
from holynb.pool.server.app import application
from holynb.pool.server.config import PoolConfig, plan_of
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.prepare import weights_folder
from holynb.pool.server.replica import Replica
from holynb.pool.server.service import Identity, Service
from holynb.pool.server.tokenizer import ChatTokenizer, TextError
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.rendezvous import Record

__all__ = ["Replicas", "main"]

#: Seconds before a replica that died is started again: what killed it may still hold its device.
_PAUSE = 1.0


class Replicas:
    """The replicas of one pool, as what computes in it (`lifecycle.PoolBackend`)."""

    def __init__(self, plan: PoolConfig, service: Service, record: Record) -> None:
        self.record = record
        self._plan, self._service = plan, service
        self._replicas: dict[int, Replica] = {}
        self._folder = Path()
        self._left = plan.restart
        self._starts = 0
        self._reviving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Weights, then ranks and the tokenizer side by side. Raises StartError."""
        plan, service = self._plan, self._service
        self._folder = await weights_folder(plan, service)
        service.at("loading the weights")
        if (line := await _forecast(plan, self._folder)) is not None:
            service.at(f"loading the weights: {line}")
            lifecycle.say(line)
        for number in range(plan.dp):
            service.join(await self._launch(number))
        self._write()
        try:
            text = await asyncio.to_thread(ChatTokenizer, self._folder)
        except TextError as exc:
            raise StartError(str(exc)) from exc
        for there in asyncio.as_completed([r.ready() for r in self._replicas.values()]):
            if not await there:  # the others may still load for minutes
                why = next((r.ended for r in self._replicas.values() if r.ended), None)
                raise StartError(f"a replica did not start: {why}")
        service.revive = self._revive
        service.open(text)
        lifecycle.say(f"ready: {plan.name} serves {self._folder} on {', '.join(plan.devices)}")

    async def bury(self) -> None:
        """End them all, also those that are on their way back."""
        reviving = list(self._reviving)
        for task in reviving:
            task.cancel()
        await asyncio.gather(*reviving, return_exceptions=True)
        await asyncio.gather(*(r.stop() for r in self._replicas.values()))

    async def _launch(self, number: int) -> Replica:
        """A replica's processes, started and told what to load. Raises OSError."""
        plan = self._plan
        self._starts += 1
        meet = Path(str(self.record.socket)).with_name(f"meet{self._starts}")
        ranks = range(number * plan.size, (number + 1) * plan.size)
        replica = Replica([(config.command(plan, r), config.load(plan, self._folder, r, meet)) for r in ranks], self._service.lost, number)
        self._replicas[number] = replica
        await replica.start()
        return replica

    def _write(self) -> None:
        """What runs now is what others find."""
        processes = tuple(p for r in self._replicas.values() for p in r.processes)
        rendezvous.write(self._plan.run, replace(self.record, ranks=processes))

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
        try:
            replica = await self._launch(number)
        except OSError:  # the service has heard of it from the replica
            return
        with contextlib.suppress(OSError):  # a disk that is full: the record names the old ranks, and the new ones end with us all the same
            self._write()
        if await replica.ready():
            self._service.join(replica, again=True)
            lifecycle.say(f"replica {number} was started again")


async def _forecast(plan: PoolConfig, folder: Path) -> str | None:
    """The plan's line about these devices. Raises StartError where the model does not fit, cannot be divided so, or is not known."""
    if plan.runner != config.RUNNER:
        return None
    mesh = Mesh(plan.tp, plan.pp)
    try:
        return await asyncio.to_thread(forecast, folder, plan.devices, dtype=plan.dtype, max_len=plan.max_len, share=plan.memory, mesh=mesh)
    except UserError as exc:
        raise StartError(str(exc)) from exc


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    plan = plan_of(argv)
    service = Service(Identity(plan.name, plan.model))
    return lifecycle.run(plan, service, application(service), lambda record: Replicas(plan, service, record))


if __name__ == "__main__":
    sys.exit(main())
