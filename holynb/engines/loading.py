"""Attachments read when their row is sent, so that a million rows hold none of them; how much may be in memory at once is held here.

Lives on the io loop; files are read, pictures scaled and JSON written on a thread, since each of them would stop the streams meanwhile.
"""

from __future__ import annotations

import asyncio
import binascii
import mmap
import os
import re
import secrets
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING

from holynb import attachments
from holynb.attached import Attachment
from holynb.engines import fetching, parts
from holynb.engines.codec import Body
from holynb.engines.parts import Part
from holynb.errors import Fault
from holynb.types import Request

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["written"]

#: Bytes of attachments, as text of requests, that are in flight at once; one alone may have more.
MAX_IN_FLIGHT = 24 * 2**20
#: Threads that read and write them: each keeps what it once needed, so they are few.
THREADS = 2
#: A smaller body is sent from bytes at once; a larger one piece by piece.
LEAST_MAPPED = 2**20


class _Gate:
    """As many bytes at once as there is room for, first come, first served. Owned by one loop."""

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

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


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # it cannot be imported while a program ends, and few rows need it

    return ThreadPoolExecutor(THREADS, "holynb-attachments")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of its parent's threads

_gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = weakref.WeakKeyDictionary()


class written:  # noqa: N801 - it reads as a function: `async with written(…) as body`
    """The body that `write` makes of the request, its attachments in it; as long as this is open, they count as in memory.

    Raises Fault: bad_request with the name of what is missing, broken, too large, or not for this wire. Such a row alone ends. One without
    attachments, as nearly all are, is written at once.
    """

    __slots__ = ("_body", "_gate", "_request", "_size", "_wire", "_write")

    def __init__(self, request: Request, wire: str, write: Callable[[Request], bytes]) -> None:
        self._request, self._wire, self._write = request, wire, write
        self._gate: _Gate | None = None
        self._size = 0
        self._body: Body = b""

    async def __aenter__(self) -> Body:
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
            self._body = await loop.run_in_executor(_threads(), _written, request, self._wire, given, self._write)
        except BaseException:
            self._leave()
            raise
        return self._body

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if isinstance(self._body, mmap.mmap):
            self._body.close()
        self._body = b""
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


def _written(request: Request, wire: str, given: Mapping[Attachment, Part | bytes | None], write: Callable[[Request], bytes]) -> Body:
    """On a thread: the body, with a token in each attachment's place at first. Raises Fault."""
    word, ready, contents = secrets.token_hex(8), dict[Attachment, Part](), list[tuple[Attachment, attachments.Loaded]]()
    for attachment, part in given.items():
        if isinstance(part, Part):
            ready[attachment] = part
            continue
        with _named(attachment):
            content = attachments.loaded(attachment, parts.takes(wire), part)
        ready[attachment] = Part(content.kind, content.name, token=f"@{word}:{len(contents)}@")
        contents.append((attachment, content))
    texts = re.split(f"@{word}:(\\d+)@".encode(), write(parts.with_parts(request, ready)))
    return _spliced(texts[::2], [contents[int(n)] for n in texts[1::2]])


def _spliced(texts: Sequence[bytes], between: Sequence[tuple[Attachment, attachments.Loaded]]) -> Body:
    """The texts with the base64 of an attachment between each two: in pages of its own, which go back to the system at once, where an
    allocator would keep what a thousand pictures once needed.
    """
    size = sum(map(len, texts)) + sum(-(-content.size // 3) * 4 for _, content in between)
    body = mmap.mmap(-1, size) if size >= LEAST_MAPPED else bytearray(size)
    place = 0
    with memoryview(body) as view:
        for text, *following in zip_longest(texts, between):
            view[place : place + len(text)] = text
            place += len(text)
            for attachment, content in filter(None, following):
                with _named(attachment):
                    for piece in content.pieces:
                        encoded = binascii.b2a_base64(piece, newline=False)
                        view[place : place + len(encoded)] = encoded
                        place += len(encoded)
    return body if isinstance(body, mmap.mmap) else bytes(body)


@contextmanager
def _named(attachment: Attachment) -> Iterator[None]:
    """What is wrong with an attachment's content, as the Fault of its row."""
    try:
        yield
    except ValueError as exc:
        raise _fault(attachment, exc) from None
    except OSError as exc:
        raise _fault(attachment, f"cannot be read: {exc.strerror or exc}") from None
    except MemoryError:
        raise _fault(attachment, "does not fit into memory") from None


def _fault(attachment: Attachment, words: object) -> Fault:
    return Fault("bad_request", f"{attachment.name} {words}", retry=False)
