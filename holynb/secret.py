"""An API key that never appears in a repr, a log or a traceback, and what finds it in a server's words. Standard library only."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from typing import NoReturn
from urllib.parse import quote

__all__ = ["NO_KEY_WORDS", "AnswerStream", "Mask", "Secret"]

#: Shortest run of a key's characters that is masked in a message or a name: a server may echo part of the key.
MIN_LEAK_CHARS = 8
#: Values that mean "no key" for a server of one's own: they keep nothing secret, and would be masked as the words they are.
NO_KEY_WORDS = ("EMPTY", "NONE", "NOKEY", "NO-KEY", "DUMMY")
#: Shortest run that is masked in an answer; a shorter one may be a word that the model chose.
MIN_ANSWER_LEAK_CHARS = 16
#: How many characters of a key are shown in an answer in front of what is masked: a stream can show them before it knows what follows.
SHOWN_CHARS = 3
#: What stands in place of a key.
MASKED = "***"
#: How many names of models and the like are remembered with their masked form, and how long they are at most.
MAX_NAMES, MAX_NAME_CHARS = 64, 200


class Secret:
    """A key that repr, str, format, pickle and a traceback's locals do not show; `reveal()` is for the wire alone."""

    __slots__ = ("_mask", "_value", "name")

    def __init__(self, value: str, name: str = "key") -> None:
        self._value = value
        self._mask: Mask | None = None
        self.name = name

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def mask(self, text: str) -> str:
        """`text` with this key, and any run of 8 or more of its characters, replaced by `***`."""
        if self._mask is None:
            self._mask = Mask((self,))
        return self._mask.message(text)

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


class Mask:
    """Replaces keys in what a server gives: as they are, URL-encoded, escaped for JSON or HTML, and in base64 behind whatever it is.

    It holds parts of keys, so that it is kept beside a Secret only, and has no `__dict__` to dump.
    """

    __slots__ = ("_answers", "_messages", "_names", "_short")

    def __init__(self, secrets: Iterable[Secret]) -> None:
        values = [secret.reveal() for secret in secrets]
        leaks = [v for v in values if len(v) >= MIN_LEAK_CHARS]
        self._messages = _Runs([f for v in leaks for f in (*_escaped(v), *_base64(v))], (), MIN_LEAK_CHARS, shown=0)
        keys = [v for v in values if len(v) >= MIN_ANSWER_LEAK_CHARS]
        self._answers = _Runs(
            [f for v in keys for f in _escaped(v)], [f for v in keys for f in _base64(v)], MIN_ANSWER_LEAK_CHARS, shown=SHOWN_CHARS
        )
        # Where it stands as a word of its own: `a` in the middle of one is hardly the key.
        short = [re.escape(v) for v in values if 0 < len(v) < MIN_LEAK_CHARS and v.upper() not in NO_KEY_WORDS]
        self._short = re.compile(rf"(?<![0-9A-Za-z])(?:{'|'.join(short)})(?![0-9A-Za-z])") if short else None
        self._names: dict[str, str] = {}

    def message(self, text: str) -> str:
        """`text` with every key, and any run of 8 or more of its characters, replaced by `***`; a shorter key as a whole."""
        return self._messages.masked(text if self._short is None else self._short.sub(MASKED, text))

    def name(self, text: str) -> str:
        """As `message`; quick for the few names that come with every answer, such as its model."""
        known = self._names.get(text)
        if known is None:
            known = self.message(text)
            if len(self._names) < MAX_NAMES and len(text) <= MAX_NAME_CHARS:
                self._names[text] = known
        return text if known == text else known  # the same object, so that nothing around it is built anew

    def answer(self, text: str) -> str:
        """`text` itself where no key is in it, else with any run of 16 or more of its characters replaced by its first three and `***`.

        A key of under 16 characters may be a word that the model chose, and is left alone. Quick, as every answer is searched.
        """
        return self._answers.masked(text) if self._answers.occur_in(text) else text

    def stream(self) -> AnswerStream:
        """For one answer that comes in pieces: together they come out as `answer` of the whole."""
        return AnswerStream(self._answers)


class AnswerStream:
    """Masks an answer that comes in pieces. What may be the middle of a key is held back until it is known not to be one.

    The first characters of a key are shown, so that nothing is held back before four in a row are a key's: a word hardly ever waits.
    """

    __slots__ = ("_done", "_kept", "_masked_to", "_runs")

    def __init__(self, runs: _Runs) -> None:
        self._runs = runs
        self._kept = ""  # the end of what came so far, in which a run may begin
        self._done = 0  # how much of it is shown or masked
        self._masked_to = -1  # up to where in it a run was masked

    def feed(self, piece: str) -> str:
        """What can be shown now. Called for every piece of every answer: mostly one look at its last characters."""
        kept, runs = self._kept, self._runs
        text = kept + piece
        if piece and self._done == len(kept) and text[-SHOWN_CHARS - 1 :] not in runs.text and not runs.occur_in(text):
            self._kept = text = text[-SHOWN_CHARS:]
            self._done, self._masked_to = len(text), -1
            return piece
        out, done, masked_to = runs.fold(text, self._done, self._masked_to)
        waiting = runs.waiting(text)
        shown_to = len(text) - waiting + SHOWN_CHARS if waiting else len(text)
        keep_from = max(0, len(text) - max(waiting, SHOWN_CHARS))
        out.append(text[done:shown_to])
        self._kept, self._done, self._masked_to = text[keep_from:], max(done, shown_to) - keep_from, masked_to - keep_from
        return "".join(out)

    def end(self) -> str:
        """What was held back and turned out to be no key."""
        rest, self._done = self._kept[self._done :], len(self._kept)
        return rest


class _Runs:
    """Where keys are in a text: any `length` characters in a row of one of `texts`, or one of `wholes`. Of each the first `shown` stay."""

    __slots__ = ("_length", "_longest", "_probes", "_shown", "_wholes", "_windows", "text")

    def __init__(self, texts: Iterable[str], wholes: Iterable[str], length: int, shown: int) -> None:
        texts, wholes = list(texts), list(wholes)
        self._length = length
        self.text = "\0".join([*texts, *wholes])
        self._shown = shown
        self._wholes = wholes
        self._windows = frozenset(t[i : i + length] for t in texts for i in range(len(t) - length + 1))
        self._longest = max([length, *map(len, wholes)])
        # Every run holds one of these. To search for a few strings takes a hundredth of looking at every position.
        size = length // 2 + 1
        probes = [t[i : i + size] for t in texts for i in range(0, len(t) - size + 1, length - size + 1)]
        self._probes = tuple(dict.fromkeys([*probes, *(w[len(w) // 2 - size // 2 :][:size] for w in wholes)]))

    def occur_in(self, text: str) -> bool:
        """Whether a run may be in `text`. False for nearly every text, and quickly."""
        if len(text) >= self._length:
            for probe in self._probes:
                if probe in text:
                    return True
        return False

    def masked(self, text: str) -> str:
        """`text` with every run masked."""
        out, done, _ = self.fold(text, 0, -1)
        return "".join([*out, text[done:]]) if out else text

    def fold(self, text: str, done: int, masked_to: int) -> tuple[list[str], int, int]:
        """What to show of `text` from `done` on, up to the end of its last run; that end as the new `done`, and as `masked_to`.

        A run that reaches back to `masked_to` goes on with the one before it.
        """
        out: list[str] = []
        for start, stop in self._found(text):
            if start > masked_to:
                out += [text[done:start], MASKED]
            masked_to = max(masked_to, stop)
            done = max(done, masked_to)
        return out, done, masked_to

    def waiting(self, text: str) -> int:
        """How long the end of `text` is that may be the beginning of a run, of which more than the first characters are there; else 0."""
        size = self._shown
        while size < min(len(text), self._longest - 1) and text[-size - 1 :] in self.text:
            size += 1
        return size if size > self._shown else 0

    def _found(self, text: str) -> list[tuple[int, int]]:
        """Where runs are to be masked, in order; they overlap."""
        length, windows = self._length, self._windows
        spans = [(i + self._shown, i + length) for i in range(len(text) - length + 1) if text[i : i + length] in windows]
        for whole in self._wholes:
            at = text.find(whole)
            while at >= 0:
                spans.append((at + self._shown, at + len(whole)))
                at = text.find(whole, at + 1)
        return sorted(spans)


def _escaped(value: str) -> list[str]:
    """A key as it is, and as it looks in an address, in JSON and in HTML where that differs."""
    in_json = json.dumps(value)[1:-1]
    return list(dict.fromkeys((value, quote(value, safe="", errors="replace"), in_json, in_json.replace("/", r"\/"), escape(value))))


def _base64(value: str) -> list[str]:
    """A key in base64, behind any number of bytes: modulo three they decide how its bits are cut."""
    out: dict[str, None] = {}
    data = value.encode("utf-8", "replace")
    for before in range(3):
        bits = (before + len(data)) * 8
        text = b64encode(b"\0" * before + data).decode()[(before * 8 + 5) // 6 : bits // 6]
        out |= dict.fromkeys((text, text.replace("+", "-").replace("/", "_")))
    return list(out)
