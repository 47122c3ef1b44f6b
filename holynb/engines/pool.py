"""The engine of a local pool: found by its rendezvous file, used over its private socket. Knows how a pool is started; imports no torch.

The wire is always streamed, so that a row in the pool's queue can be told from a silent one: while a row is queued, this engine yields
empty Deltas (the timeout counts from leaving the queue), and a pool without a sign of life is a Fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable

from holynb import pools
from holynb.engines import entry, poolwire
from holynb.engines.http import Client, Reply
from holynb.engines.meter import Meter
from holynb.engines.poolwire import NO_MEMORY, PoolEnding, StreamFold
from holynb.errors import BadRoute, Fault, NotRunning
from holynb.pools import PoolInfo
from holynb.types import Delta, Done, Endpoint, Request, Secret, Timeouts
from kernels_support.jupyter import files, shortage
from kernels_support.jupyter.rendezvous import Record

__all__ = ["Pool"]

#: Silence, without even a comment, after which a pool is taken for dead. It sends one every 2 s.
_DEAD_AFTER_S = 20.0
#: Polling interval for a pool that starts or ends.
_POLL_S = 0.1
#: Longest wait for the end of a finished stream; breaking it off costs its connection.
_DRAIN_S = 1.0
#: Longest time for which the record of a pool that ends outlives its socket.
_RECORD_GRACE_S = 2.0
#: Pause of rows where no further file can be opened: those in flight end and release theirs.
_OUT_OF_FILES_WAIT_S = 0.5

#: The meter of each pool by its socket, shared by all runs of this process, as the devices are.
_meters: dict[str, Meter] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_meters.clear)  # the requests in flight are the parent's


class Pool:
    """One pool's endpoint. Owned by the io loop. Finds a pool of the same name again after its restart."""

    path = "/v1/chat/completions"

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        self.endpoint = endpoint
        self._pool_name = self._name = endpoint.route.model
        self._key = key
        self._clients: dict[str, Client] = {}
        self._starting = asyncio.Lock()
        self._in_flight = 0
        self._notice: Callable[..., None] | None = None
        self._told = set[str]()

    async def ready(self, notice: Callable[..., None]) -> None:
        """Wait for a pool that is starting; start the embedded one. Raises NotRunning, with the command, where none runs; BadRoute."""
        self._notice = notice
        await self._start(notice)

    async def _start(self, notice: Callable[..., None]) -> None:
        loop = asyncio.get_running_loop()
        files.raise_limit()  # a pool takes hundreds of rows at a time

        def tell(text: str) -> None:  # from the thread that starts it
            loop.call_soon_threadsafe(notice, text)

        async with self._starting:
            info = await self._status()
            if info is None and self._pool_name == pools.EMBEDDED:
                info = await asyncio.to_thread(pools.start, self._pool_name, notice=tell, wait=False)
            if info is None:
                raise NotRunning(await asyncio.to_thread(pools.not_running, self._pool_name))
            await self._until_ready(info, notice)

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        """Deltas and then Done. Where the request is not streamed, its Deltas are empty. Raises Fault."""
        self._in_flight += 1
        try:
            async with contextlib.aclosing(self._stream(request, timeouts)) as items:
                async for item in items:
                    yield item
        except Fault as fault:
            raise await self._throttled(fault) from fault
        finally:
            self._in_flight -= 1

    async def _stream(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        """As `send`, with the pool's end translated into the row's Fault."""
        posting, started = asyncio.ensure_future(self._post(request, timeouts)), None
        try:
            while not (await asyncio.wait({posting}, timeout=timeouts.silence / 3))[0]:
                if (info := await self._status()) is not None and info.state == "starting":
                    yield Delta("")  # a pool on a cluster whose server comes again: that is no silence
            reply, meter = posting.result()
        except BaseException:  # nobody waits any more: a reply that came meanwhile is given back
            posting.cancel()
            (came,) = await asyncio.gather(posting, return_exceptions=True)
            if isinstance(came, tuple):
                await came[0].aclose()
            raise
        try:
            if reply.status != 200:
                raise poolwire.refusal(await reply.read(), reply.status)
            answer = StreamFold()
            async with contextlib.aclosing(_live_lines(reply, timeouts.silence / 3, answer)) as events:
                async for event in events:
                    text = answer.feed(event) if event else None
                    if answer.admitted and started is None:
                        started = meter.begin()
                    if text is not None:
                        yield Delta(text, answer.thought) if request.stream else Delta("")
                    elif not answer.admitted:
                        yield Delta("")
            share, started = None if started is None else meter.end(started), None
            done = entry.admit(Done(answer.completion(share)), None)
            self._tell(answer)
            yield done
        except PoolEnding as fault:
            raise self._ending_fault(fault) from fault
        finally:
            if started is not None:
                meter.end(started)
            await reply.aclose()

    def _tell(self, answer: StreamFold) -> None:
        """Say once a run where its model cannot think as it was asked: only the pool knows, so no plan can."""
        for line in answer.thinking_lines(self.endpoint.route):
            if self._notice is not None and line not in self._told:
                self._told.add(line)
                self._notice(line, level="warning")

    async def aclose(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _post(self, request: Request, timeouts: Timeouts) -> tuple[Reply, Meter]:
        record = await self._record()
        if record is None:
            why = await asyncio.to_thread(pools.end_reason, self._name)
            if not self._restarts(why):
                raise self._gone_fault(why)
            await self._restart(why)
            record = await self._record()
        if record is None:
            raise self._gone_fault("")
        self._name = record.name
        client = self._clients.get(str(record.socket))
        if client is None:
            client = self._clients[str(record.socket)] = Client(uds=str(record.socket))
        body = self._body(request, record.name, vllm=record.facts.get("engine") == "vllm")
        if (meter := _meters.get(str(record.socket))) is None:
            # Two ranks on one device count once; a machine's CPUs count as one device.
            meter = _meters[str(record.socket)] = Meter(len(set(record.facts.get("devices", ()))) or 1)
        headers = [(b"host", b"pool"), (b"content-type", b"application/json")]
        try:
            return await client.send("POST", f"http://pool{self.path}", headers, body, connect=timeouts.connect), meter
        except Fault as fault:
            if fault.kind == "connection" and self._pool_name != pools.EMBEDDED and await self._is_ending():
                raise self._gone_fault(await asyncio.to_thread(pools.end_reason, self._name)) from fault
            raise

    def _body(self, request: Request, name: str, *, vllm: bool) -> bytes:
        return poolwire.body(request, name, vllm=vllm)

    async def _record(self) -> Record | None:
        """The pool's current record. Raises Fault where it cannot be read."""
        try:
            return await asyncio.to_thread(pools.find, self._pool_name)
        except BadRoute as exc:
            raise Fault("connection", str(exc)) from exc

    async def _is_ending(self) -> bool:
        """Whether a pool that accepts no connection is ending: its record disappears shortly after its socket."""
        until = asyncio.get_running_loop().time() + _RECORD_GRACE_S
        while await self._record() is not None:
            if asyncio.get_running_loop().time() >= until:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _throttled(self, fault: Fault) -> Fault:
        """The fault; where this process has run out of files and holds some here, a rate_limit, which reduces the rows in flight."""
        if not shortage.is_out_of_files(fault) or (self._in_flight == 1 and not self._clients):
            return fault
        if self._in_flight == 1:
            await self.aclose()  # idle connections are files too
        return Fault("rate_limit", str(fault), wait=_OUT_OF_FILES_WAIT_S)

    def _restarts(self, why: str) -> bool:
        """Whether a pool that ended for this reason is restarted for a row: the embedded one, unless it was ended on request."""
        return self._pool_name == pools.EMBEDDED and pools.ENDED_ON_REQUEST not in why

    def _ending_fault(self, fault: PoolEnding) -> Fault:
        """The Fault of a row that the pool refused because it is ending."""
        if self._restarts(str(fault)):
            return Fault(fault.kind, str(fault), retry=True, status=fault.status, raw=fault.raw)
        words = f"{fault}. Start it: {pools.start_command(self._pool_name)}"
        away = fault.kind == "connection"  # it may be started again; memory that ran out would run out again
        return Fault(fault.kind, words, retry=False, stops=True, unreachable=away, status=fault.status, raw=fault.raw)

    def _gone_fault(self, why: str) -> Fault:
        """The Fault of a row whose pool is gone: its reason, and the command that starts it."""
        words = f"is not running any more{': ' + why if why else ''}. Start it: {pools.start_command(self._pool_name)}"
        kind = "oom" if NO_MEMORY in why else "connection"
        return Fault(kind, f"{self.endpoint.route} {words}", retry=False, stops=True, unreachable=kind == "connection")

    async def _restart(self, why: str) -> None:
        """Start the embedded pool again, which has ended (idle, killed) since the run began, and say so once. Raises Fault."""
        stages: list[str] = []
        try:
            await self._start(stages.append)
        except BadRoute as exc:
            raise Fault("connection", str(exc), retry=False, stops=True) from exc
        text = f"{self.endpoint.route} ended{f' ({why})' if why else ''} and was started again."
        if stages and self._notice is not None and text not in self._told:  # whoever waited for another row's start saw no stage of it
            self._told.add(text)
            self._notice(text, "warning")

    async def _status(self) -> PoolInfo | None:
        with contextlib.suppress(BadRoute):
            return await asyncio.to_thread(pools.status, self._pool_name)
        return None

    async def _until_ready(self, info: PoolInfo | None, notice: Callable[[str], None]) -> None:
        name, progress, silent_s = self._pool_name, "", 0.0
        while info is None or info.state != "ready":
            silent_s = silent_s + _POLL_S if info is not None and info.state == "silent" else 0.0
            if info is None or info.state in {"failed", "ended"} or silent_s > _DEAD_AFTER_S:
                words = f": {info.why}" if info is not None and info.why else ""
                raise (NotRunning if info is None or info.state == "ended" else BadRoute)(
                    f"{self.endpoint.route} did not become ready{words}. Its log: %infer pool logs {name}"
                )
            name = info.name
            if info.progress != progress:
                progress = info.progress
                notice(progress)
            await asyncio.sleep(_POLL_S)
            info = await self._status()


async def _live_lines(reply: Reply, pause: float, answer: StreamFold) -> AsyncGenerator[bytes, None]:
    """The stream's lines; until the row has left the queue also b"" every `pause` seconds, so that its silence timeout does not run yet.

    Raises Fault where not even a comment comes for _DEAD_AFTER_S.
    """
    lines = _lines(reply)
    try:
        async with contextlib.aclosing(_queued_lines(lines, pause, answer)) as waiting:
            async for line in waiting:
                yield line
        while True:
            async with asyncio.timeout(_DRAIN_S if answer.over else _DEAD_AFTER_S):
                line = await anext(lines)
            yield line
    except StopAsyncIteration:
        return
    except TimeoutError:
        if not answer.over:
            raise Fault("timeout", f"the pool did not respond for {_DEAD_AFTER_S:g} s; see %infer pool status") from None
    finally:
        await lines.aclose()


async def _queued_lines(lines: AsyncGenerator[bytes, None], pause: float, answer: StreamFold) -> AsyncGenerator[bytes, None]:
    """The part of `_live_lines` before the row has left the queue. Raises TimeoutError where no line comes for _DEAD_AFTER_S."""
    clock = asyncio.get_running_loop().time
    pending: asyncio.Future[bytes | None] | None = None
    last_line_at = clock()
    try:
        while not answer.admitted:
            pending = pending or asyncio.ensure_future(anext(lines, None))
            done, _ = await asyncio.wait({pending}, timeout=min(pause, _DEAD_AFTER_S))
            if not done and clock() - last_line_at >= _DEAD_AFTER_S:
                raise TimeoutError
            line = b""
            if done:
                result, pending, last_line_at = pending.result(), None, clock()
                if result is None:
                    return
                line = result
            yield line
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)


async def _lines(reply: Reply) -> AsyncGenerator[bytes, None]:
    """The non-empty lines of the body."""
    rest = b""
    async for chunk in reply.chunks():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
