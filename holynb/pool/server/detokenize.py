"""Reads a generation as text while it grows: detokenized, cut at stop strings, joined to about 20 pieces a second. No HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from holynb.pool.server.replica import Generation
from holynb.pool.server.tokenizer import ChatTokenizer, Detokenizer, StopStrings

__all__ = ["TextPiece", "TextReader"]

#: Between two pieces of a stream: 20 a second read as fluent text, and 256 streams of single tokens would overload the server.
PIECE_INTERVAL_S = 0.05
#: Without a piece for this long, a keep-alive is sent.
KEEPALIVE_S = 2.0


@dataclass(frozen=True, slots=True)
class TextPiece:
    """`kind`: quiet (nothing new), admitted (left the queue), again (drop the text so far), text, or end (finish reason, token count)."""

    kind: str
    text: str = ""
    finish: str | None = None
    tokens: int = 0


class TextReader:
    """Detokenizing reader of one generation. With `stream`, text is yielded as it comes; else only stop strings are watched."""

    def __init__(self, generation: Generation, tokenizer: ChatTokenizer, stops: Sequence[str], *, stream: bool) -> None:
        self.generation = generation
        self._tokenizer = tokenizer
        self._stop_strings = stops
        self._stream = stream
        self._interval = 0.0 if stops else PIECE_INTERVAL_S if stream else math.inf
        self._admitted = False
        self._reset()

    def _reset(self) -> None:
        self._detokenizer, self._stops = Detokenizer(self._tokenizer), StopStrings(self._stop_strings)
        self._seen, self._attempt = 0, self.generation.attempts
        self._due = math.inf if self._interval == math.inf else 0.0

    async def pieces(self, cancel: Callable[[Generation], None]) -> AsyncGenerator[TextPiece, None]:
        """The pieces; the last one is the end. Raises GenerationLost or GenerationRefused. Closed early, it cancels the row."""
        generation = self.generation
        try:
            while not self._stops.hit:
                if generation.attempts != self._attempt:
                    self._reset()
                    yield TextPiece("again")
                if generation.admitted and not self._admitted:
                    self._admitted = True
                    yield TextPiece("admitted")
                if self._nothing_due():
                    if await self._wait():
                        yield TextPiece("quiet")
                    continue
                if generation.error is not None:
                    raise generation.error
                if text := self._next_text():
                    yield TextPiece("text", text)
                if generation.finish is not None:
                    break
            yield TextPiece("end", finish="stop" if self._stops.hit else generation.finish, tokens=self._seen)
        finally:
            if not generation.done:
                cancel(generation)

    def _nothing_due(self) -> bool:
        """No new token, or the last piece is too recent."""
        return not self.generation.done and (len(self.generation.tokens) <= self._seen or time.monotonic() < self._due)

    def _next_text(self) -> str:
        """The text of the tokens since the last call."""
        generation = self.generation
        last = generation.finish is not None
        fresh, self._seen = generation.tokens[self._seen :], len(generation.tokens)
        text = self._stops.push(self._detokenizer.push(fresh, last=last), last=last)
        generation.streamed = generation.streamed or (self._stream and bool(text))
        self._due = time.monotonic() + self._interval
        return text

    async def _wait(self) -> bool:
        """Wait for an update of the generation. True where a keep-alive is due."""
        pending = len(self.generation.tokens) > self._seen and self._due < math.inf
        seconds = max(0.0, self._due - time.monotonic()) if pending else KEEPALIVE_S
        try:
            async with asyncio.timeout(seconds):
                await self.generation.wait_update(self._due)
        except TimeoutError:
            return not pending
        return False
