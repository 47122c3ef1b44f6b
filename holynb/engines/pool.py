"""The local pool, found by its rendezvous file and asked over its private socket. Knows how a pool is started; no torch, no process of its own.

The wire is always streamed, so that what waits in the pool's queue can be told from what is silent: while a row waits, this
engine yields empty Deltas (the timeout counts from leaving the queue), and a pool that shows no sign of life is a Fault.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from holynb import pools
from holynb.engines import poolwire
from holynb.engines.http import Client, Reply
from holynb.engines.meter import Meter
from holynb.engines.poolwire import NO_MEMORY, TOLD, PoolEnding, StreamFold
from holynb.errors import BadRoute, Fault, closest
from holynb.pools import PoolInfo
from holynb.types import Delta, Done, Endpoint, Request, Secret, Timeouts
from kernels_support.jupyter import files, shortage
from kernels_support.jupyter.rendezvous import Record

__all__ = ["Pool"]

#: Seconds without even a comment after which a pool is taken for dead. It sends one every 2 s.
_LIFE_S = 20.0
#: Seconds between two looks at a pool that starts.
_LOOK_S = 0.1
#: Seconds that draining a finished stream may take; a stream that is broken off costs its connection.
_DRAIN_S = 1.0
#: Seconds in which the record of a pool that ends follows its socket.
_ENDS_S = 2.0
#: Seconds that rows wait where no further file may be opened: those under way end, and give theirs back.
_CROWDED_S = 0.5
_URL = "http://pool/v1/chat/completions"

#: Of each pool by its socket, for all runs of this process: they share its devices.
_meters: dict[str, Meter] = {}


class Pool:
    """One pool's endpoint. Owned by the io loop; other pools of the same name are found again after a restart."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        self.endpoint = endpoint
        self._word = self._name = endpoint.route.model
        self._key = key
        self._clients: dict[str, Client] = {}
        self._starting = asyncio.Lock()
        self._under_way = 0

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Wait for a pool that starts; start the embedded one. Raises BadRoute, with the command, where none runs."""
        loop = asyncio.get_running_loop()
        files.raise_limit()  # a pool takes hundreds of rows at a time

        def tell(text: str) -> None:  # from the thread that starts it
            loop.call_soon_threadsafe(notice, text)

        async with self._starting:
            info = await self._look()
            if info is None and self._word == pools.EMBEDDED:
                info = await asyncio.to_thread(pools.start, self._word, notice=tell, wait=False)
            if info is None:
                raise BadRoute(await asyncio.to_thread(self._none))
            await self._until_ready(info, notice)

    def _none(self) -> str:
        """That nothing runs under this word; where one is near that could be asked, that it may be meant."""
        could = {pools.EMBEDDED: None, **{word: None for p in pools.listing() for word in (p.name, p.model)}}
        near = closest(self._word, could)
        near, start = (near.replace("mean ", "mean pool/"), "If not, start") if near else ("", "Start")
        return f"{self.endpoint.route} is not running.{near} {start} it: %infer pool start {self._word}"

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        """Deltas and then Done. Where the request is not streamed, its Deltas are empty."""
        self._under_way += 1
        try:
            async with contextlib.aclosing(self._heard(request, timeouts)) as items:
                async for item in items:
                    yield item
        except Fault as fault:
            raise await self._crowded(fault) from fault
        finally:
            self._under_way -= 1

    async def _heard(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        """As `send`, each end of the pool as what a row hears of it."""
        reply, meter = await self._ask(request, timeouts)
        began: float | None = None
        try:
            if reply.status != 200:
                raise poolwire.refusal(await reply.read(), reply.status)
            answer = StreamFold()
            async with contextlib.aclosing(_alive(reply, timeouts.silence / 3, answer)) as events:
                async for event in events:
                    text = answer.hear(event) if event else None
                    if answer.admitted and began is None:
                        began = meter.begin()
                    if text is not None:
                        yield Delta(text if request.stream else "")
                    elif not answer.admitted:
                        yield Delta("")
            share, began = None if began is None else meter.end(began), None
            yield Done(answer.completion(share))
        except PoolEnding as fault:
            raise self._ended(fault) from fault
        finally:
            if began is not None:
                meter.end(began)
            await reply.aclose()

    async def aclose(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _ask(self, request: Request, timeouts: Timeouts) -> tuple[Reply, Meter]:
        record = await self._found()
        if record is None:
            why = await asyncio.to_thread(pools.epitaph, self._name)
            if not self._comes_back(why):
                raise self._gone(why)
            await self._again()
            record = await self._found()
        if record is None:
            raise self._gone("")
        self._name = record.name
        client = self._clients.get(str(record.socket))
        if client is None:
            client = self._clients[str(record.socket)] = Client(uds=str(record.socket))
        body = poolwire.body(request, record.name)
        if (meter := _meters.get(str(record.socket))) is None:
            # Two ranks on one device are one device; a machine's processors are one too.
            meter = _meters[str(record.socket)] = Meter(len(set(record.facts.get("devices", ()))) or 1)
        headers = [(b"host", b"pool"), (b"content-type", b"application/json")]
        try:
            return await client.send("POST", _URL, headers, body, connect=timeouts.connect), meter
        except Fault as fault:
            if fault.kind == "connection" and self._word != pools.EMBEDDED and await self._ends():
                raise self._gone(await asyncio.to_thread(pools.epitaph, self._name)) from fault
            raise

    async def _found(self) -> Record | None:
        """The pool's record, now. Raises Fault where nobody can look."""
        try:
            return await asyncio.to_thread(pools.find, self._word)
        except BadRoute as exc:
            raise Fault("connection", str(exc)) from exc

    async def _ends(self) -> bool:
        """Whether a pool that took no request is one that ends: its record goes a moment after its socket."""
        until = asyncio.get_running_loop().time() + _ENDS_S
        while await self._found() is not None:
            if asyncio.get_running_loop().time() >= until:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def _crowded(self, fault: Fault) -> Fault:
        """The fault, or where this process has no file left and holds some here, one that makes fewer rows go at a time."""
        if not shortage.is_out_of_files(fault) or (self._under_way == 1 and not self._clients):
            return fault
        if self._under_way == 1:
            await self.aclose()  # connections that are kept for the next row are files too
        return Fault("rate_limit", str(fault), wait=_CROWDED_S)

    def _comes_back(self, why: str) -> bool:
        """Whether a pool that ended so is started again for a row: the one that starts itself, unless somebody wanted its end."""
        return self._word == pools.EMBEDDED and TOLD not in why

    def _ended(self, fault: PoolEnding) -> Fault:
        """What a row hears that the pool refused because it ends."""
        if self._comes_back(str(fault)):
            return Fault(fault.kind, str(fault), retry=True, status=fault.status, raw=fault.raw)
        words = f"{fault}. Start it: {pools.command(self._word)}"
        return Fault(fault.kind, words, retry=False, stops=True, status=fault.status, raw=fault.raw)

    def _gone(self, why: str) -> Fault:
        """What a row hears of a pool that runs no more: why, in its own last words, and the command."""
        words = f"is not running any more{': ' + why if why else ''}. Start it: {pools.command(self._word)}"
        return Fault("oom" if NO_MEMORY in why else "connection", f"{self.endpoint.route} {words}", retry=False, stops=True)

    async def _again(self) -> None:
        """The embedded pool has ended (idle, stopped) since the run began: start it again."""
        try:
            await self.ready(lambda text: None)
        except BadRoute as exc:
            raise Fault("connection", str(exc), retry=False, stops=True) from exc

    async def _look(self) -> PoolInfo | None:
        try:
            return await asyncio.to_thread(pools.status, self._word)
        except BadRoute:
            return None

    async def _until_ready(self, info: PoolInfo | None, notice: Callable[[str], None]) -> None:
        name, said, silent = self._word, "", 0.0
        while info is None or info.state != "ready":
            silent = silent + _LOOK_S if info is not None and info.state == "silent" else 0.0
            if info is None or info.state in {"failed", "ended"} or silent > _LIFE_S:
                words = f": {info.why}" if info is not None and info.why else ""
                raise BadRoute(f"{self.endpoint.route} did not become ready{words}. Its log: %infer pool logs {name}")
            name = info.name
            if info.progress != said:
                said = info.progress
                notice(said)
            await asyncio.sleep(_LOOK_S)
            info = await self._look()


async def _alive(reply: Reply, pause: float, answer: StreamFold) -> AsyncGenerator[bytes, None]:
    """The stream's lines; until the row has left the queue also b"" every `pause` seconds, so that its clock does not run yet.

    Raises Fault where not even a comment comes for _LIFE_S.
    """
    lines = _lines(reply)
    try:
        async with contextlib.aclosing(_queued(lines, pause, answer)) as waiting:
            async for line in waiting:
                yield line
        while True:
            async with asyncio.timeout(_DRAIN_S if answer.over else _LIFE_S):
                line = await anext(lines)
            yield line
    except StopAsyncIteration:
        return
    except TimeoutError:
        if not answer.over:
            raise Fault("timeout", f"the pool gave no sign of life for {_LIFE_S:g} s; %infer pool status shows how it is") from None
    finally:
        await lines.aclose()


async def _queued(lines: AsyncGenerator[bytes, None], pause: float, answer: StreamFold) -> AsyncGenerator[bytes, None]:
    """The part of `_alive` before the row has left the queue. Raises TimeoutError where no line comes for _LIFE_S."""
    clock = asyncio.get_running_loop().time
    pending: asyncio.Future[bytes | None] | None = None
    heard = clock()
    try:
        while not answer.admitted:
            pending = pending or asyncio.ensure_future(anext(lines, None))
            done, _ = await asyncio.wait({pending}, timeout=min(pause, _LIFE_S))
            if not done and clock() - heard >= _LIFE_S:
                raise TimeoutError
            line = b""
            if done:
                found, pending, heard = pending.result(), None, clock()
                if found is None:
                    return
                line = found
            yield line
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)


async def _lines(reply: Reply) -> AsyncGenerator[bytes, None]:
    """The lines of the body that are not empty, whatever the pieces they come in."""
    rest = b""
    async for chunk in reply.chunks():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
