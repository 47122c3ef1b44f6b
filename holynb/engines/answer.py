"""A streamed answer: server-sent events folded into text, finish reason and usage. Each wire defines what one event means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from holynb.engines import codec
from holynb.engines.classify import malformed
from holynb.engines.sse import Event, Splitter, TooLong
from holynb.errors import Fault
from holynb.types import Completion, Usage

__all__ = ["StreamReader", "ensure_usable"]

_HIGH_SURROGATES = ("\ud800", "\udbff")


class StreamReader(ABC):
    """Fed with a stream's bytes; one per request. `done`: the server has marked the end of the stream."""

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
        """Whether the text is complete. Its usage and the end of the stream may still follow."""
        return self.done or self.finish_reason is not None

    @abstractmethod
    def on_event(self, name: str, chunk: Any) -> str | None:
        """The text of one event; "" for progress without text (thinking, a tool call), None for neither. Raises Fault."""

    def feed(self, data: bytes) -> str | None:
        """The text in these bytes; "" for progress without text, None for neither. Raises Fault."""
        try:
            events = self._splitter.feed(data)
        except TooLong as exc:
            raise Fault("server", f"the server sent {exc} in its stream, which no model writes.", retry=False) from exc
        return self._fold(events)

    def end(self) -> Completion:
        """The whole answer. Raises Fault (truncated) without a finish reason, whatever the text looks like."""
        try:
            self._fold(self._splitter.end())
        except Fault as fault:
            if fault.status is not None:
                raise  # the server's last event is an error; half an event only means a cut stream
        if self.finish_reason is None:
            raise Fault("truncated", "the stream ended without a finish reason, so the answer is not whole")
        if self._pending:
            self._texts.append("\ufffd")
        return ensure_usable(Completion("".join(self._texts), self.finish_reason, self.model, self.usage))

    def _fold(self, events: list[Event]) -> str | None:
        text: str | None = None
        for event in events:
            piece = self._event(event)
            if piece is not None:
                text = piece if text is None else text + piece
        if text:
            text = self._join_surrogates(text)
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
        return self.on_event(event.name, chunk)

    def _join_surrogates(self, text: str) -> str:
        """Hold back half a surrogate pair at the end: some servers send the other half in the next event."""
        text, self._pending = self._pending + text, ""
        if _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]:
            text, self._pending = text[:-1], text[-1]
        return codec.mend(text)


def ensure_usable(completion: Completion) -> Completion:
    """The completion. Raises Fault, with its usage, where the finish reason is an error or a content filter."""
    usage = completion.usage if completion.usage != Usage() else None
    if completion.finish_reason == "content_filter":
        raise Fault("content_filter", "the provider's content filter stopped the answer", usage=usage)
    if completion.finish_reason == "error":
        raise Fault("server", "the provider failed in the middle of the answer", usage=usage)
    return completion
