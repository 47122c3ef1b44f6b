"""Main of a pool of our own processes: prepares the weights; starts, restarts and stops the replicas. No torch.

The pool ends when its last replica has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from pathlib import Path

from holynb.errors import UserError
from holynb.pool.fit import Forecast, Mesh, check_shapes, forecast, plan, read_spec
from holynb.pool.server import lifecycle
from holynb.pool.server.app import application
from holynb.pool.server.config import RUNNER, PoolConfig, load_model, parse_args, rank_command
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.pooling import read_pooling
from holynb.pool.server.prepare import weights_folder
from holynb.pool.server.replica import Replica
from holynb.pool.server.service import Identity, Service
from holynb.pool.server.tokenizer import ChatTokenizer, TokenizerFileError
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.rendezvous import Record

__all__ = ["Replicas", "main"]

#: Before a dead replica is started again: its process may still hold the device.
_RESTART_DELAY_S = 1.0


class Replicas:
    """The replicas of one pool (a `lifecycle.PoolBackend`)."""

    def __init__(self, config: PoolConfig, service: Service, record: Record) -> None:
        self.record = record
        self._config, self._service = config, service
        self._replicas: dict[int, Replica] = {}
        self._folder = Path()
        self._restarts_left = config.restart
        self._launches = 0
        self._restart_tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Prepare the weights, then load ranks and tokenizer concurrently. Raises StartError."""
        config, service = self._config, self._service
        self._folder = await weights_folder(config, service, look=lambda folder: _forecast(config, folder, whole=False))
        service.set_stage("loading the weights")
        if (fit := await _forecast(config, self._folder)) is not None:
            service.set_stage(fit.loading)
            lifecycle.log(fit.details)
        for number in range(config.dp):
            service.add_replica(await self._launch(number))
        self._write_record()
        try:
            tokenizer = await asyncio.to_thread(ChatTokenizer, self._folder)
        except TokenizerFileError as exc:
            raise StartError(str(exc)) from exc
        for line in tokenizer.unread:
            lifecycle.log(line)
        for ready in asyncio.as_completed([r.wait_ready() for r in self._replicas.values()]):
            if not await ready:  # the others may still load for minutes
                why = next((r.end_reason for r in self._replicas.values() if r.end_reason), None)
                raise StartError(f"a replica did not start: {why}")
        service.restart_replica = self._restart
        service.pipe, service.pooling = self._config.pp, read_pooling(self._folder)
        service.set_ready(tokenizer)
        lifecycle.log(f"ready: {config.name} serves {self._folder} on {', '.join(config.devices)}")

    async def stop(self) -> None:
        """Stop all replicas, also those that are being restarted."""
        restarts = list(self._restart_tasks)
        for task in restarts:
            task.cancel()
        await asyncio.gather(*restarts, return_exceptions=True)
        await asyncio.gather(*(r.stop() for r in self._replicas.values()))

    async def _launch(self, number: int) -> Replica:
        """Start a replica's processes and send them their loads. Raises OSError."""
        config = self._config
        self._launches += 1
        meet = Path(str(self.record.socket)).with_name(f"meet{self._launches}")
        ranks = range(number * config.size, (number + 1) * config.size)
        replica = Replica(
            [(rank_command(config, r), load_model(config, self._folder, r, meet)) for r in ranks], self._service.on_replica_end, number
        )
        self._replicas[number] = replica
        await replica.start()
        return replica

    def _write_record(self) -> None:
        """Put the processes that run now into the rendezvous file."""
        processes = tuple(p for r in self._replicas.values() for p in r.processes)
        rendezvous.write(self._config.run, replace(self.record, ranks=processes))

    def _restart(self, replica: Replica) -> bool:
        """Begin to restart a dead replica, where restarts are left. Returns whether."""
        number = next((n for n, r in self._replicas.items() if r is replica), None)
        if self._restarts_left < 1 or number is None:
            return False
        self._restarts_left -= 1
        task = asyncio.create_task(self._relaunch(number))
        self._restart_tasks.add(task)
        task.add_done_callback(self._restart_tasks.discard)
        return True

    async def _relaunch(self, number: int) -> None:
        await asyncio.sleep(_RESTART_DELAY_S)
        try:
            replica = await self._launch(number)
        except OSError:  # the replica has called on_replica_end
            return
        with contextlib.suppress(
            OSError
        ):  # a full disk: the record names the old ranks, and the new ones end with this process all the same
            self._write_record()
        if await replica.wait_ready():
            self._service.add_replica(replica, restarted=True)
            lifecycle.log(f"replica {number} was started again")


async def _forecast(config: PoolConfig, folder: Path, *, whole: bool = True) -> Forecast | None:
    """How the model fits these devices. Raises StartError where it does not fit, cannot be divided so, or is unknown.

    whole: the folder holds the weights, too.
    """
    if config.runner != RUNNER:
        return None
    mesh = Mesh(config.tp, config.pp)
    try:
        if whole:
            await asyncio.to_thread(lambda: check_shapes(folder, plan.with_kv(read_spec(folder), config.kv)))
        return await asyncio.to_thread(
            forecast, folder, config.devices, dtype=config.dtype, max_len=config.max_len, share=config.memory, mesh=mesh, kv=config.kv
        )
    except UserError as exc:
        raise StartError(str(exc)) from exc


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    config = parse_args(argv)
    service = Service(Identity(config.name, config.model))
    return lifecycle.run(config, service, application(service), lambda record: Replicas(config, service, record))


if __name__ == "__main__":
    sys.exit(main())
