"""Attachments read when their row is sent, so that a million rows hold none of them; how much may be in memory at once is held here.

Lives on the io loop; files are read, pictures scaled and JSON written on a thread, since each of them would stop the streams meanwhile.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

from holynb import attachments
from holynb.attached import Attachment
from holynb.engines import fetching, parts
from holynb.engines.parts import Part
from holynb.errors import Fault
from holynb.types import Request

__all__ = ["written"]

T = TypeVar("T")

#: Bytes of attachments, as text of requests, that are in flight at once; one alone may have more.
MAX_IN_FLIGHT = 24 * 2**20
#: Attachments that are made into requests at once: each is there several times while its text is written.
MAX_WRITTEN = 2


class _Gate:
    """As many bytes at once as there is room for, first come, first served. Owned by one loop."""

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.writing = asyncio.Semaphore(MAX_WRITTEN)

    async def enter(self, size: int) -> None:
        if self._waiting or not self._fits(size):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave(size)  # its turn came as it was given up
                else:
                    with suppress(ValueError):
                        self._waiting.remove((size, turn))
                    self._wake()
                raise
            return
        self.used += size

    def leave(self, size: int) -> None:
        self.used -= size
        self._wake()

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self.room

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


_gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = weakref.WeakKeyDictionary()


class written(Generic[T]):  # noqa: N801 - it reads as a function: `async with written(…) as body`
    """What `write` makes of the request with its attachments read; as long as this is open, they count as in memory.

    Raises Fault: bad_request with the name of what is missing, broken, too large, or not for this wire. Such a row alone ends. One without
    attachments, as nearly all are, is written at once.
    """

    __slots__ = ("_gate", "_request", "_size", "_wire", "_write")

    def __init__(self, request: Request, wire: str, write: Callable[[Request], T]) -> None:
        self._request, self._wire, self._write = request, wire, write
        self._gate: _Gate | None = None
        self._size = 0

    async def __aenter__(self) -> T:
        request = self._request
        if not (attached := request.attachments):
            return self._write(request)
        different = dict.fromkeys(attached)
        loop = asyncio.get_running_loop()
        gate = _gates.get(loop) or _gates.setdefault(loop, _Gate(MAX_IN_FLIGHT))
        self._size = sum(map(attachments.weight, different))
        await gate.enter(self._size)
        self._gate = gate
        try:
            given = {a: await _of_address(a, self._wire, request) for a in different}
            async with gate.writing:
                return await asyncio.to_thread(_written, request, self._wire, given, self._write)
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._gate is not None:
            self._gate.leave(self._size)
            self._gate = None


async def _of_address(attachment: Attachment, wire: str, request: Request) -> Part | bytes | None:
    """The part, or the bytes, of an attachment that is an address; None for any other."""
    source = attachment.source
    if attachment.problem is not None or not isinstance(source, attachments.Url):
        return None
    if request.attach_urls and (part := parts.as_address(wire, source.url)) is not None:
        return part
    try:
        return await fetching.fetch(source.url, attachments.MAX_BYTES)
    except ValueError as exc:
        raise _fault(attachment, exc) from None


def _written(request: Request, wire: str, ready: Mapping[Attachment, Part | bytes | None], write: Callable[[Request], T]) -> T:
    """On a thread. Raises Fault."""
    takes = parts.takes(wire)
    done: dict[Attachment, Part] = {}
    for attachment, given in ready.items():
        if isinstance(given, Part):
            done[attachment] = given
            continue
        try:
            kind, data, name = attachments.loaded(attachment, takes, given)
        except ValueError as exc:
            raise _fault(attachment, exc) from None
        except MemoryError:
            raise _fault(attachment, "does not fit into memory") from None
        done[attachment] = Part(kind, name, data)
    return write(parts.with_parts(request, done))


def _fault(attachment: Attachment, words: object) -> Fault:
    return Fault("bad_request", f"{attachment.name} {words}", retry=False)
