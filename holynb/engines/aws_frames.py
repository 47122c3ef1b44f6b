"""The frames of AWS's binary event stream (application/vnd.amazon.eventstream). Knows no engine and no JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from holynb.errors import Fault

__all__ = ["CONTENT_TYPE", "Frame", "FrameDecoder"]

CONTENT_TYPE = "application/vnd.amazon.eventstream"


class Frame(NamedTuple):
    """One frame. `error`: AWS's name of the exception that it reports, "" for none; `status`: 200 for a part of the answer."""

    status: int
    error: str
    payload: bytes


class FrameDecoder:
    """Fed with bytes, yields the frames that they complete. Needs botocore."""

    def __init__(self) -> None:
        from botocore.eventstream import EventStreamBuffer

        self._buffer = EventStreamBuffer()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that end within `data`. Raises Fault for a broken frame."""
        from botocore.eventstream import ParserError

        try:
            self._buffer.add_data(data)
            for message in self._buffer:
                parts = message.to_response_dict()
                error = parts["headers"].get(":exception-type") or parts["headers"].get(":error-code")
                yield Frame(parts["status_code"], str(error or ""), bytes(parts["body"]))
        except ParserError as exc:
            raise Fault("server", f"the response stream is broken: {exc}") from exc
