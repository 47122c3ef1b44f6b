"""A client's connection, bounded: how long its head may be, how slow it may send, how many there may be. Knows HTTP; no pool.

uvicorn takes any amount of header fields, for any time, and before the application that asks for a token is called.
"""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holynb.pool.server.apierror import ApiError, error_body

__all__ = ["BoundedConnection", "PortConnection"]

#: Longest request line and header fields together; longest trailer, too, and what is read of a body that nobody wants.
MAX_HEAD_BYTES = 64 * 1024
#: Seconds for a request's head, from the connection or the head's first byte, and for its body.
HEAD_S, BODY_S = 30.0, 300.0
#: How long a refused client may take to read why.
_LINGER_S = 1.0
#: Connections to the port, where the system does not say how many files may be open.
_MAX_CONNECTIONS = 512


class BoundedConnection(HttpToolsProtocol):
    """One connection. What goes beyond a bound is answered in OpenAI's error shape, and the connection ends."""

    _timer: asyncio.TimerHandle | None = None
    _ended = False
    _part = "head"
    """Where in a request it is: head, body, or done."""
    _head = 0
    """Bytes of this request that are no body, as far as they are counted."""
    _unread = 0
    """Bytes of a body that came after its answer."""
    _moved = False
    """What came last was a whole field, or of a body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self.most_connections():
            self._refuse(503, "Too many connections are open. Try again, or end some.")
        else:
            self._expect("head", HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def most_connections(self) -> int:
        """How many connections there may be to this socket."""
        return 2**31

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._moved = self._part == "done"
        super().data_received(data)
        # A part of a field that is not whole yet, or what belongs to no body, such as a trailer.
        if not self._moved:
            self._head += len(data)
        if self._head > MAX_HEAD_BYTES:
            self._refuse(431, f"The request line and header fields are longer than {MAX_HEAD_BYTES:,} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._unread = 0, 0
        if self._part != "head":
            self._expect("head", HEAD_S)

    def on_url(self, url: bytes) -> None:
        self._head += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + 4
        self._moved = True
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head > MAX_HEAD_BYTES:
            self._refuse(431, f"The request line and header fields are longer than {MAX_HEAD_BYTES:,} bytes.")
        if not self._ended:
            self._expect("body", BODY_S)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._ended:
            return
        self._head, self._moved = 0, True
        if self.cycle.response_complete:
            self._unread += len(body)
            if self._unread > MAX_HEAD_BYTES:
                self._ended = True
                self.transport.close()
                return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ended:
            return
        self._end_timer()
        self._part, self._moved = "done", True
        super().on_message_complete()

    def _expect(self, part: str, seconds: float) -> None:
        """The next part of the request, within so many seconds."""
        if self._ended:
            return
        self._end_timer()
        self._part = part
        self._timer = self.loop.call_later(seconds, self._refuse, 408, f"The request's {part} did not come within {seconds:g} s.")

    def _refuse(self, status: int, message: str) -> None:
        """Answer once more, where nothing was answered yet, and end the connection."""
        if self._ended:
            return
        self._end()
        body = json.dumps(error_body(ApiError(status, message))).encode()
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(head.encode() + body)
        if cycle is not None:
            cycle.disconnected = True  # whoever waits for its body hears that there is no more
            cycle.message_event.set()
        self.transport.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()  # with bytes of it unread, a connection that is closed at once takes the answer along
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _end(self) -> None:
        self._ended = True
        self._end_timer()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PortConnection(BoundedConnection):
    """A connection to the port, which every user of this machine reaches: half of the files that may be open stay for the pool's owner."""

    def most_connections(self) -> int:
        try:
            import resource
        except ImportError:  # Windows
            return _MAX_CONNECTIONS
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return _MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(16, files // 2)
