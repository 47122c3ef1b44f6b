r"""Server-sent events from bytes in any pieces: \n, \r\n and \r, multi-line data, comments, a BOM. Knows no JSON and no HTTP.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html. Lines are split as bytes, which splits no character: the bytes
of a line end occur in no multi-byte character of UTF-8.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Event", "Splitter", "TooLong"]

_LINE_ENDS = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """A line, or the data of one event, exceeds the limit."""


class Event(NamedTuple):
    """One event. `name` is `message` where the server gave none; several data lines are joined by a newline."""

    name: str
    data: bytes


class Splitter:
    """Fed with bytes, returns the events that they complete. `max_bytes`: limit for one line and for one event."""

    def __init__(self, max_bytes: int = 4 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []  # of the line that has not ended
        self._line_bytes = 0
        self._after_cr = False
        self._started = False
        self._name = b""
        self._data: list[bytes] = []
        self._event_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that end within `data`. Raises TooLong."""
        if self._after_cr and data:
            # The \r at the end of the last piece ended its line; a \n right after it belongs to it.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            pieces = _LINE_ENDS.split(data)
        else:
            pieces = data.split(b"\n")
        if len(pieces) == 1:
            self._append(pieces[0])
            return []
        if self._parts:
            self._append(pieces[0])
            pieces[0] = b"".join(self._parts)
            self._parts, self._line_bytes = [], 0
        rest = pieces.pop()
        out: list[Event] = []
        for line in pieces:
            self._line(line, out)
        self._append(rest)
        return out

    def end(self) -> list[Event]:
        """The last event, where the stream ended without an empty line: some servers leave it out after [DONE]."""
        out: list[Event] = []
        if self._parts:
            line = b"".join(self._parts)
            self._parts, self._line_bytes = [], 0
            self._line(line, out)
        self._line(b"", out)
        return out

    def _append(self, piece: bytes) -> None:
        if piece:
            self._line_bytes += len(piece)
            if self._line_bytes > self._max_bytes:
                raise TooLong(f"a line of more than {self._max_bytes:,} bytes")
            self._parts.append(piece)

    def _line(self, line: bytes, out: list[Event]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                out.append(Event(self._name.decode("utf-8", "replace") if self._name else "message", data))
                self._data, self._event_bytes = [], 0
            self._name = b""
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._event_bytes += len(value) + 1
            if self._event_bytes > self._max_bytes:
                raise TooLong(f"an event of more than {self._max_bytes:,} bytes")
            self._data.append(value)
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        # Comments (an empty field), id, retry and unknown fields are ignored, as the specification says.
