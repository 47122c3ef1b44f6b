"""An answer that arrives in pieces: server-sent events folded into text, finish reason and usage. Each wire says what one event means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from holynb.engines import codec
from holynb.engines.classify import malformed
from holynb.engines.sse import Event, Splitter, TooLong
from holynb.errors import Fault
from holynb.types import Completion, Usage

__all__ = ["StreamReader", "checked"]

_HIGH = ("\ud800", "\udbff")


class StreamReader(ABC):
    """Fed with a stream's bytes; one per request. `done`: the server said that nothing more will come."""

    def __init__(self) -> None:
        self.done = False
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.usage = Usage()
        self._texts: list[str] = []
        self._pending = ""
        self._splitter = Splitter()

    @property
    def finished(self) -> bool:
        """The text is whole. Its usage may still come, and the connection's end."""
        return self.done or self.finish_reason is not None

    @abstractmethod
    def take(self, name: str, chunk: Any) -> str | None:
        """The text of one event; "" for a sign of work without text (thinking, a tool's call), None for neither. Raises Fault."""

    def feed(self, data: bytes) -> str | None:
        """The text that came with these bytes; "" where there was only a sign of work, None where there was neither. Raises Fault."""
        try:
            events = self._splitter.feed(data)
        except TooLong as exc:
            raise Fault("server", f"the server sent {exc} in its stream, which no model writes.", retry=False) from exc
        return self._fold(events)

    def end(self) -> Completion:
        """The whole answer. Raises Fault (truncated) where no finish reason came, whatever the text looks like."""
        try:
            self._fold(self._splitter.end())
        except Fault as fault:
            if fault.status is not None:
                raise  # an error that the server sent last; half an event is only the cut
        if self.finish_reason is None:
            raise Fault("truncated", "the stream ended without a finish reason, so the answer is not whole")
        if self._pending:
            self._texts.append("\ufffd")
        return checked(Completion("".join(self._texts), self.finish_reason, self.model, self.usage))

    def _fold(self, events: list[Event]) -> str | None:
        text: str | None = None
        for event in events:
            piece = self._event(event)
            if piece is not None:
                text = piece if text is None else text + piece
        if text:
            text = self._whole(text)
            self._texts.append(text)
        return text

    def _event(self, event: Event) -> str | None:
        if event.data == b"[DONE]":
            self.done = True
            return None
        try:
            chunk = codec.loads(event.data)
        except ValueError as exc:
            raise malformed(event.data, "the server's stream holds an event that is not JSON") from exc
        return self.take(event.name, chunk)

    def _whole(self, text: str) -> str:
        """Half a surrogate pair at the end waits for the other half, which some servers send in the next event."""
        text, self._pending = self._pending + text, ""
        if _HIGH[0] <= text[-1] <= _HIGH[1]:
            text, self._pending = text[:-1], text[-1]
        return codec.mend(text)


def checked(completion: Completion) -> Completion:
    """The completion, unless its finish reason says that it is none. Raises Fault, with the usage that it cost all the same."""
    usage = completion.usage if completion.usage != Usage() else None
    if completion.finish_reason == "content_filter":
        raise Fault("content_filter", "the provider's content filter stopped the answer", usage=usage)
    if completion.finish_reason == "error":
        raise Fault("server", "the provider failed in the middle of the answer", usage=usage)
    return completion
