"""What the servers of one thread share: a loop of their own from `with` until its end, and every conversation ended with it."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import Self


class Threaded(ABC):
    """A server listens in `listen` and talks in `talk`, once for each connection; `port` is set by `listen`."""

    @abstractmethod
    async def listen(self) -> asyncio.Server: ...

    @abstractmethod
    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _main(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(ready))
        finally:
            self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await self.listen()
        ready.set()
        await self._stop.wait()
        # Who connects in the last moment is on the way through asyncio's own tasks and callbacks. A server, or its loop, that closes under
        # them leaves their transports open, and whatever test runs when they are collected is told so.
        for sock in server.sockets:
            self._loop.remove_reader(sock.fileno())
        await self._turns()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._turns()

    async def _turns(self) -> None:
        """As many turns of the loop as there are from a socket that is taken to the task that talks on it, and some more."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self.talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one of both sides is gone, or the test is over
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()
