"""An answer: server-sent events folded into text, finish reason and usage; how long it may be. Each wire defines what one event means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from sys import intern
from typing import Any

from holynb.engines import codec
from holynb.engines.classify import malformed
from holynb.engines.finish import ADVICE, CONTEXT_FULL, Finish, finish, worse
from holynb.engines.sse import Event, Splitter, TooLong
from holynb.errors import Fault
from holynb.full_context import full_context_note
from holynb.thoughts import ThoughtSplitter
from holynb.types import Completion, Sampling, Usage

__all__ = ["THOUGHT_GAP", "StreamReader", "conclude", "max_chars", "max_stream_bytes", "too_long"]

_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NOT_UTF8 = "the server's stream is not UTF-8, and its content-type names no charset"
_HIGH_SURROGATES = ("\ud800", "\udbff")

#: What stands between two parts of what was thought, where a wire sends it in parts.
THOUGHT_GAP = "\n\n"

#: Names of events that only say that the server still works, whatever they carry.
SIGNS_OF_LIFE = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})

#: Characters of an answer for each token that was asked for: more than the longest token of a tokenizer has. CHARS_AT_LEAST leaves room to
#: servers that count otherwise; MAX_CHARS holds whatever was asked for.
CHARS_PER_TOKEN, CHARS_AT_LEAST, MAX_CHARS = 256, 2**16, 2**24
#: Characters that text and thoughts may have together, at least: some servers do not count what is thought as part of max_tokens.
WHOLE_CHARS_AT_LEAST = 2**20
#: Bytes of a stream, thinking and comments included, for each token, and at least.
BYTES_PER_TOKEN, BYTES_AT_LEAST, MAX_TOKENS = 2**14, 2**26, 2**16


def max_chars(sampling: Sampling) -> int:
    """The longest text of a stream with this `max_tokens`, whatever name it has in `-p`. A whole body has a limit of its own."""
    tokens = _max_tokens(sampling)
    return MAX_CHARS if tokens is None else min(MAX_CHARS, CHARS_AT_LEAST + CHARS_PER_TOKEN * tokens)


def max_stream_bytes(sampling: Sampling) -> int:
    """The most bytes of a stream."""
    tokens = _max_tokens(sampling)
    return BYTES_AT_LEAST + BYTES_PER_TOKEN * min(MAX_TOKENS, MAX_TOKENS if tokens is None else tokens)


def _max_tokens(sampling: Sampling) -> int | None:
    if not sampling.extra:
        return sampling.max_tokens
    named = [v for name, v in sampling.extra.items() if "tokens" in name.lower() and isinstance(v, int)]
    return max([*named, sampling.max_tokens or 0]) if sampling.max_tokens or named else None


def too_long(what: str) -> Fault:
    """The Fault for an answer without end."""
    return Fault("server", f"the server sent more than {what}, far beyond what max_tokens allows; the rest was not read.", retry=False)


class StreamReader(ABC):
    """Fed with a stream's bytes; one per request. `done`: the server has marked the end of the stream, and what follows is not looked at.

    max_chars: limit for its text. silent_end: this server never sends a finish reason, so that its mark at the end has to do.
    thinking:  tokens went to thinking. said: the server's own words beside its finish reason. tier: its word for the service tier.
    unseen:    thoughts that `take_thoughts` has not given yet. tags: tells apart the thoughts that this server may leave in its text.
    """

    def __init__(self) -> None:
        self.done = False
        self.max_chars = MAX_CHARS
        self.silent_end = False
        self.thinking = False
        self.said = ""
        self.unseen: list[str] = []
        self.tags: ThoughtSplitter | None = None
        self._thoughts: list[str] = []
        self._half_thought = ""
        self._thought_chars = 0
        self.tier: str | None = None
        self._begun = False
        self._went_on = False  # text came after a finish reason
        self._chars = 0
        self.finish: Finish | None = None
        self.model: str | None = None
        self.usage = Usage()
        self._texts: list[str] = []
        self._pending = ""
        self._splitter = Splitter()

    @property
    def finished(self) -> bool:
        """Whether the text is complete. Its usage and the end of the stream may still follow.

        Relays give `stop` with pieces before the first word, or with every piece: such a reason says nothing.
        """
        if self.finish is None or self._went_on:
            return self.done
        return self.done or bool(self._chars) or self.finish.reason != "stop"

    @property
    def thoughts(self) -> str | None:
        """What was thought: "" where tokens went to thinking and the server does not say it, None where none did."""
        return "".join(self._thoughts) if self._thoughts else "" if self.thinking else None

    def think(self, piece: str) -> str | None:
        """A piece of what the model thinks. Returns what `on_event` does: a piece without a word says no more than a keep-alive."""
        if not piece:
            return None
        self.thinking = True
        piece, self._half_thought = _whole(self._half_thought + piece)
        self._thoughts.append(piece)
        self.unseen.append(piece)
        self._thought_chars += len(piece)
        if self._chars + self._thought_chars > (most := max(self.max_chars, WHOLE_CHARS_AT_LEAST)):
            raise too_long(f"{most:,} characters")
        return ""

    def take_thoughts(self) -> str:
        """What was thought since the last call."""
        new, self.unseen = "".join(self.unseen), []
        return new

    @abstractmethod
    def on_event(self, name: str, chunk: Any) -> str | None:
        """The text of one event; "" for progress without text (thinking, a tool call), None for neither. Raises Fault."""

    def feed(self, data: bytes) -> str | None:
        """The text in these bytes; "" for progress without text, None for neither. Raises Fault."""
        if not self._begun:
            self._begun = True
            if b"\0" in data[:2] or data.startswith(_BOMS_UTF16):
                raise malformed(b"", _NOT_UTF8, retry=False)
        try:
            events = self._splitter.feed(data)
        except TooLong as exc:
            raise Fault("server", f"the server sent {exc} in its stream, which is more than any model writes.", retry=False) from exc
        return self._fold(events)

    def end(self) -> Completion:
        """The whole answer. Raises Fault (truncated) without a finish reason, whatever the text looks like."""
        try:
            self._fold(self._splitter.end())
        except Fault as fault:
            if fault.status is not None:
                raise  # the server's last event is an error; half an event only means a cut stream
        if self.finish is None and not (self.done and self.silent_end):
            never = " (for a server that never sends one, set [provider.NAME.options] finish_reason = false)" if self.done else ""
            raise Fault("truncated", f"the stream ended without a finish reason, so the answer is not whole{never}")
        if self._pending:
            self._texts.append("\ufffd")
        if self.tags is not None:
            self._texts.append(self._apart("", last=True))
        if self._half_thought:
            self._thoughts.append("\ufffd")
        answer = conclude("".join(self._texts), self.finish, self.model, self.usage, said=self.said, thoughts=self.thoughts)
        return answer if self.tier is None else answer.on_tier(self.tier)

    def ended(self, word: Any) -> None:
        """The server gave this finish reason. Of several the worst counts, else the first."""
        if (new := finish(word)) is not None and (self.finish is None or worse(new, self.finish)):
            self.finish = new

    def _fold(self, events: list[Event]) -> str | None:
        text: str | None = None
        for event in events:
            ended = self.finish
            piece = self._event(event)
            if piece is not None:
                if piece and ended is not None:
                    self._went_on = True
                text = piece if text is None else text + piece
        if text and self.tags is not None:
            text = self._apart(text)
        if text:
            text, self._pending = _whole(self._pending + text if self._pending else text)
            self._texts.append(text)
            self._chars += len(text)
            if self._chars > self.max_chars:
                raise too_long(f"{self.max_chars:,} characters")
        return text

    def _apart(self, text: str, *, last: bool = False) -> str:
        """The text without thoughts that the server has left in it."""
        tags = self.tags
        if tags is None or (self.thinking and not (tags.thinking or tags.closings)):
            self.tags = None  # the server tells them apart itself
            return text
        thought, text = tags.push(text, last=last)
        self.think(thought)
        self.thinking = self.thinking or tags.thinking
        if tags.answering:
            self.tags = None
        return text

    def _event(self, event: Event) -> str | None:
        if self.done:
            return None  # a second answer in one body
        name, data = event
        if data == b"[DONE]":
            self.done = True
            return None
        if name != "message" and name in SIGNS_OF_LIFE:
            return None
        try:
            chunk = codec.loads(data, strict=True)
        except codec.NotUTF8 as exc:
            raise malformed(b"", _NOT_UTF8, retry=False) from exc
        except ValueError as exc:
            if (rest := data.strip()) in (b"", b"[DONE]"):
                self.done = bool(rest)
                return None  # nothing: relays send that as a sign of life
            raise malformed(data, "the server's stream holds an event that is not JSON") from exc
        if chunk.__class__ is dict:
            return self.on_event(name, chunk)  # nearly always, and once per piece of an answer
        return None if chunk is None or chunk == "" else self.on_event(name, chunk)


def _whole(text: str) -> tuple[str, str]:
    """The text, and half a surrogate pair at its end, held back: some servers send the other half in the next event."""
    if text.isascii():
        return text, ""
    if _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]:
        return codec.mend(text[:-1]), text[-1]
    return codec.mend(text), ""


#: Finish reasons that leave nothing to say.
_AS_IT_SHOULD = frozenset({"stop", "length", "end_turn", "max_tokens"})


def conclude(
    text: str, ended: Finish | None, model: str | None, counted: Usage, *, said: str = "", thoughts: str | None = None
) -> Completion:
    """The answer, `unknown` where nothing says why it ended. Raises Fault where a filter, a failure or a full context did.

    `thoughts`: "" where tokens went to thinking and the server does not say it.
    """
    model = model and intern(model)  # every answer names it, and every row keeps it
    reasoning = thoughts if thoughts and not thoughts.isspace() else None
    thinking = thoughts is not None or bool(counted.tokens_reasoning)
    if ended is None or ended.key in _AS_IT_SHOULD:
        return Completion(text, ended.reason if ended else "unknown", model, counted, None, thinking, reasoning)
    facts: dict[str, Any] = {"usage": counted if counted != Usage() else None, "model": model, "finish_reason": ended.reason}
    told_always = ended.reason in ("other", "pause_turn")
    named = ended.word if told_always or ended.key != ended.reason else ""
    told = ": ".join(w for w in (named, said[:300]) if w)
    word = f" ({told})" if told else ""
    if ended.reason == "content_filter":
        advice = ADVICE.get(ended.key, "rephrase the prompt, or use another model")
        facts["finish_reason"] = "refusal" if ended.key == "refusal" else ended.reason
        raise Fault("content_filter", f"the provider's content filter stopped the answer{word}: {advice}", **facts)
    if ended.reason == "error":
        raise Fault("server", f"the provider failed in the middle of the answer{word}", **facts)
    if ended.key in CONTEXT_FULL and not text.strip():
        full = f"the model's context was full before the answer began{word}; shorten the prompt, or split it with --chunk auto"
        raise Fault("context_length", full, **facts)
    note = f'the server\'s finish reason was "{told}"' if told_always else None
    if ended.key in CONTEXT_FULL:
        parts = counted.tokens_in, counted.tokens_out
        note = full_context_note(None if parts[0] is None or parts[1] is None else parts[0] + parts[1])
    return Completion(text, ended.reason, model, counted, note, thinking, reasoning)
