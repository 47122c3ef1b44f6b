"""Reads generations as text while they grow: thoughts apart, cut at stop strings, joined to about 20 pieces a second. No HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise

from holynb.pool.protocol import TokenScore
from holynb.pool.server.answertext import AnswerText
from holynb.pool.server.api import ApiRequest
from holynb.pool.server.replica import Generation, GenerationLost, GenerationRefused
from holynb.pool.server.tokenizer import ChatTokenizer, StopStrings

__all__ = ["TextPiece", "TextReader", "merged"]

Cancel = Callable[[Generation], None]

#: Between two pieces of a stream: 20 a second read as fluent text, and 256 streams of single tokens would overload the server.
PIECE_INTERVAL_S = 0.05
#: Without a piece for this long, a keep-alive is sent.
KEEPALIVE_S = 2.0


@dataclass(frozen=True, slots=True)
class TextPiece:
    """`kind`: quiet (nothing new), admitted (left the queue), again (drop the text so far), thought, text, or end (finish reason, tokens).

    `thought`: at the end, how many of the tokens were thought. `scores`: where asked for, those of the tokens that the text is of, never
    of a thought; `prompt`: it is the prompt's, whose first token has none. `stopped`: at the end, the stop string that was found.
    """

    kind: str
    text: str = ""
    finish: str | None = None
    tokens: int = 0
    thought: int = 0
    scores: tuple[TokenScore, ...] = ()
    prompt: bool = False
    stopped: str = ""


class TextReader:
    """Detokenizing reader of one generation. A stream's text is yielded as it comes; else only stop strings are watched, in the answer.

    `echo`: the prompt's text, which comes before the answer's.
    """

    def __init__(self, generation: Generation, tokenizer: ChatTokenizer, request: ApiRequest, echo: str | None = None) -> None:
        self.generation = generation
        self._tokenizer, self._split = tokenizer, request.chat
        self._stop_strings, self._min_tokens, self._stream = request.stop, request.min_tokens, request.stream
        self._echo = echo
        self._prompt_only = request.max_tokens == 0
        self._interval = 0.0 if request.stop else PIECE_INTERVAL_S if request.stream else math.inf
        self._admitted = False
        self._reset()

    def _reset(self) -> None:
        job = self.generation.job
        self._answer = AnswerText(self._tokenizer, job.ids, split=self._split, guided=job.grammar is not None)
        self._stops, self._begun = StopStrings(self._stop_strings), False
        self._seen, self._attempt = 0, self.generation.attempts
        self._due = math.inf if self._interval == math.inf else 0.0
        self._echoed = self._echo is None
        self._scores: list[TokenScore] = []
        """Of the tokens whose text is not yielded yet."""

    async def pieces(self, cancel: Cancel) -> AsyncGenerator[TextPiece, None]:
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
                if not self._echoed:
                    self._echoed, generation.streamed = True, generation.streamed or self._stream
                    yield TextPiece("text", self._echo or "", scores=tuple(generation.prompt_scores), prompt=True)
                if self._prompt_only:
                    break
                thought, text = self._next()
                if thought:
                    yield TextPiece("thought", thought)
                if text:
                    yield TextPiece("text", text, scores=self._take_scores(text))
                if generation.finish is not None or self._answer.over:
                    break
            yield self._end()
        finally:
            if not generation.done:
                cancel(generation)

    def _end(self) -> TextPiece:
        if self._prompt_only:
            return TextPiece("end", finish="length")
        scores = [] if self._stops.hit else self._own_scores()
        if self._echo is not None and not self._stops.hit:
            scores = scores + self.generation.scores[self._seen :]  # of the end token: whoever echoes counts on one for each
        finish = "stop" if self._stops.hit or (self._answer.over and self.generation.finish != "error") else self.generation.finish
        thought, stopped = self._answer.thought, self._stops.matched
        return TextPiece("end", finish=finish, tokens=self._seen, thought=thought, scores=tuple(scores), stopped=stopped)

    def _nothing_due(self) -> bool:
        """No new token, or the last piece is too recent."""
        return not self.generation.done and (len(self.generation.tokens) <= self._seen or time.monotonic() < self._due)

    def _next(self) -> tuple[str, str]:
        """The thought and the text of the tokens since the last call."""
        generation = self.generation
        last = generation.finish is not None
        before, self._seen = self._seen, len(generation.tokens)
        fresh = generation.tokens[before:]
        # A stop string within the first min_tokens is text.
        free = max(0, min(self._min_tokens - before, len(fresh)))
        thought, text = self._answer.push(fresh[:free]) if free else ("", "")
        # Several may come at once, and none counts behind the one that ends a stop string.
        ends = list(range(free + 1, len(fresh) + 1)) if self._stop_strings and free < len(fresh) else [len(fresh)]
        for start, end in pairwise([free, *ends]):
            more, answer = self._answer.push(fresh[start:end], last=last and end == len(fresh))
            thought, text = thought + more, text + self._stops.push(answer, last=last and end == len(fresh))
            if self._stops.hit:
                self._seen = before + end
                break
        self._scores += generation.scores[before : self._seen]
        generation.streamed = generation.streamed or (self._stream and bool(text or thought))
        self._due = time.monotonic() + self._interval
        return thought, text

    def _own_scores(self) -> list[TokenScore]:
        """Those of the scores that wait which are of tokens of the answer itself."""
        scores, thought = self._scores, self._answer.thought
        if thought and not self._begun:
            scores = scores[max(0, thought - self._seen + len(scores)) :]
            while scores and self._tokenizer.decode([scores[0][0]]).isspace():
                scores = scores[1:]  # what stands between a thought and the text is neither
        return scores

    def _take_scores(self, text: str) -> tuple[TokenScore, ...]:
        """The scores so far; where a stop string has cut the text, those of the tokens that begin before the cut."""
        scores, self._scores, self._begun = self._own_scores(), [], True
        if self._stops.hit:
            begin = 0
            for i, (token, *_) in enumerate(scores):
                if begin >= len(text):
                    return tuple(scores[:i])
                begin += len(self._tokenizer.decode([token]))
        return tuple(scores)

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


async def merged(readers: list[TextReader], cancel: Cancel) -> AsyncGenerator[tuple[int, TextPiece], None]:
    """The pieces of all choices as they come, each with the index of its choice. Raises GenerationLost or GenerationRefused."""
    if len(readers) == 1:
        async with aclosing(readers[0].pieces(cancel)) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    queue: asyncio.Queue[tuple[int, TextPiece | Exception | None]] = asyncio.Queue()

    async def pump(choice: int, reader: TextReader) -> None:
        try:
            async with aclosing(reader.pieces(cancel)) as pieces:
                async for piece in pieces:
                    queue.put_nowait((choice, piece))
            queue.put_nowait((choice, None))
        except (GenerationLost, GenerationRefused) as exc:
            queue.put_nowait((choice, exc))

    tasks, left = [asyncio.create_task(pump(i, r)) for i, r in enumerate(readers)], len(readers)
    try:
        while left:
            choice, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield choice, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
