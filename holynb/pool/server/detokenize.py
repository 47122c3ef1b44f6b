"""A generation → its text as it grows: decoded across tokens, cut at stop strings, joined to about 20 pieces a second. No HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from holynb.pool.server.replica import Generation
from holynb.pool.server.tokenizer import ChatTokenizer, Detokenizer, StopStrings

__all__ = ["Reading", "TextPiece"]

#: Seconds between two pieces of a stream: 20 a second read as flowing, and 256 streams of single tokens would drown the server.
JOINED_S = 0.05
#: Seconds of quiet after which a sign of life goes out.
QUIET_S = 2.0


@dataclass(frozen=True, slots=True)
class TextPiece:
    """`kind`: quiet (nothing new), admitted (it left the queue), again (forget the text so far), text, or end with its reason and tokens."""

    kind: str
    text: str = ""
    finish: str | None = None
    tokens: int = 0


class Reading:
    """One consumer's place in a generation. With `stream`, text goes out as it comes; else only stop strings are watched."""

    def __init__(self, generation: Generation, text: ChatTokenizer, stops: Sequence[str], *, stream: bool) -> None:
        self.generation = generation
        self._text = text
        self._said = stops
        self._stream = stream
        self._interval = 0.0 if stops else JOINED_S if stream else math.inf
        self._admitted = False
        self._begin()

    def _begin(self) -> None:
        self._detokenizer, self._stops = Detokenizer(self._text), StopStrings(self._said)
        self._seen, self._times = 0, self.generation.times
        self._due = math.inf if self._interval == math.inf else 0.0

    async def pieces(self, cancel: Callable[[Generation], None]) -> AsyncGenerator[TextPiece, None]:
        """The pieces; the last is its end. Raises what the generation ended with (Lost, Refused). Closed early, it cancels the row."""
        generation = self.generation
        try:
            while not self._stops.hit:
                if generation.times != self._times:
                    self._begin()
                    yield TextPiece("again")
                if generation.admitted and not self._admitted:
                    self._admitted = True
                    yield TextPiece("admitted")
                if self._early():
                    if await self._quiet():
                        yield TextPiece("quiet")
                    continue
                if generation.error is not None:
                    raise generation.error
                if said := self._read():
                    yield TextPiece("text", said)
                if generation.finish is not None:
                    break
            yield TextPiece("end", finish="stop" if self._stops.hit else generation.finish, tokens=self._seen)
        finally:
            if not generation.over:
                cancel(generation)

    def _early(self) -> bool:
        """Nothing to say yet: no token, or the last piece was a moment ago."""
        return not self.generation.over and (len(self.generation.tokens) <= self._seen or time.monotonic() < self._due)

    def _read(self) -> str:
        """The text of the tokens that came since the last time."""
        generation = self.generation
        last = generation.finish is not None
        fresh, self._seen = generation.tokens[self._seen :], len(generation.tokens)
        said = self._stops.push(self._detokenizer.push(fresh, last=last), last=last)
        generation.given = generation.given or (self._stream and bool(said))
        self._due = time.monotonic() + self._interval
        return said

    async def _quiet(self) -> bool:
        """Wait for news. True where none came for so long that a stream should show a sign of life."""
        pending = len(self.generation.tokens) > self._seen and self._due < math.inf
        seconds = max(0.0, self._due - time.monotonic()) if pending else QUIET_S
        try:
            async with asyncio.timeout(seconds):
                await self.generation.news(self._due)
        except TimeoutError:
            return not pending
        return False
