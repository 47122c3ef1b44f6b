"""What a model thinks, told from its answer where both come as one text: by tags, or by harmony's channels. Knows text; no tokens, no HTTP.

Shared by the pool's server and by the engines of servers that leave tags in the text. However a text is cut, its parts come out the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["HARMONY", "HARMONY_ENDS", "TAGS", "ChannelSplitter", "HeadSplitter", "TagSplitter", "Tags", "ThoughtSplitter"]


@dataclass(frozen=True, slots=True)
class Tags:
    """What stands before and after what is thought."""

    opening: str
    closing: str


#: Qwen3's and DeepSeek-R1's; Mistral's.
TAGS = (Tags("<think>", "</think>"), Tags("[THINK]", "[/THINK]"))

#: Marks of harmony, gpt-oss' format: `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>`.
HARMONY = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>", "<|call|>", "<|constrain|>")
#: Those that end an answer: it is given back, or a tool is called.
HARMONY_ENDS = ("<|return|>", "<|call|>")
_MESSAGE = "<|message|>"
#: What a message's head begins with, and what ends its body.
_HEADS = ("<|channel|>", "<|start|>")
_ENDS = ("<|end|>", "<|return|>", "<|call|>", *_HEADS)
_END = re.compile("|".join(map(re.escape, _ENDS)))
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
#: A message's head has so many characters at most; what goes on longer is text.
_MAX_HEAD = 512


class ThoughtSplitter(Protocol):
    """Takes one answer's pieces.

    `thinking`: what came last is thought, or stands before what is; `closings`: how often a thought has ended; `answering`: nothing more
    can be thought; `headed`: the text has begun behind marks that are none of it; `over`: the text has ended, whatever may come.
    """

    @property
    def thinking(self) -> bool: ...

    @property
    def closings(self) -> int: ...

    @property
    def answering(self) -> bool: ...

    @property
    def headed(self) -> bool: ...

    @property
    def over(self) -> bool: ...

    def push(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """What is certainly thought, and what is certainly text, of what has come and was not returned yet. Both without outer blanks."""


class TagSplitter:
    """Thoughts between tags, at the head of an answer only: a text that speaks of tags later stays as it is.

    `begun`: the prompt ends with the opening tag of the first of `tags`. An answer without a tag at its head keeps its white space, too.
    """

    headed = over = False

    def __init__(self, tags: Sequence[Tags] = TAGS, *, begun: bool = False) -> None:
        self.thinking, self.answering, self.closings = begun, False, 0
        self._tags, self._closing = tags, tags[0].closing
        self._rest = ""
        """What may be the beginning of a tag."""
        self._blanks: list[str] = []
        """White space that belongs to what comes next, if anything does."""
        self._thought = False
        """Something was thought that is not blank."""

    def push(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        if self.answering:
            return "", piece
        thoughts, text, piece, self._rest = "", "", self._rest + piece, ""
        while piece and not self.answering:
            if self.thinking:
                thought, piece = self._think(piece)
                thoughts += thought
            else:
                text, piece = self._begin(piece)
        if last and (self._rest or not (self.thinking or self.closings)):
            rest = self._joined(self._rest)
            thoughts, text = (thoughts + rest, text) if self.thinking else (thoughts, text + rest)
            self._rest = ""
        return thoughts, text

    def _begin(self, piece: str) -> tuple[str, str]:
        """Before the answer: its text once it begins, and what is left to look at."""
        words = piece.lstrip()
        if not self.closings:
            self._blanks.append(piece[: len(piece) - len(words)])
        for tags in self._tags:
            if words.startswith(tags.opening):
                self.thinking, self._closing, self._blanks = True, tags.closing, ["\n\n"]
                return "", words[len(tags.opening) :]
        if not words or any(tags.opening.startswith(words) for tags in self._tags):
            self._rest = words
            return "", ""
        self.answering = True
        return self._joined(words), ""

    def _think(self, piece: str) -> tuple[str, str]:
        """Inside of a thought: what of it is certain, and what is left to look at behind its end."""
        thought, closing, rest = piece.partition(self._closing)
        if not closing:
            begins = _may_begin(piece, self._closing)
            thought, self._rest = piece[:begins], piece[begins:]
        words = thought.rstrip()
        blanks = thought[len(words) :]
        if words:
            words = self._joined(words) if self._thought else words.lstrip()
            self._thought, self._blanks = True, []
        if closing:
            self.thinking, self._blanks = False, []
            self.closings += 1
        elif self._thought and blanks:
            self._blanks.append(blanks)
        return words, rest

    def _joined(self, words: str) -> str:
        """The white space that waited, and these words."""
        blanks, self._blanks = self._blanks, []
        return "".join([*blanks, words])


class ChannelSplitter:
    """Harmony's messages: what comes in the channel `final` is text, and what comes in any other is thought.

    A message in `final` that has ended ends the answer (`over`): what comes after it is nobody's.
    """

    def __init__(self) -> None:
        self.thinking = self.answering = self.over = self.headed = False
        self.closings = 0
        self._where = "start"
        """start, head (of a later message), thought, text, or plain: it is no harmony."""
        self._rest = ""
        self._blanks: list[str] = []
        self._begun: set[str] = set()

    def push(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        if self.answering:
            return "", piece
        out = {"thought": "", "text": ""}
        piece, self._rest = self._rest + piece, ""
        while piece and not self.over:
            if self._where in out:
                piece = self._body(piece, out)
            elif self.answering:
                out["text"], piece = out["text"] + piece, ""
            else:
                piece = self._head(piece)
        if last and self._rest and self._where != "head":
            where = "text" if self._where == "start" else self._where
            out[where] += self._rest if self._where == "start" else self._spaced(self._rest)
            self._rest = ""
        return out["thought"], out["text"]

    def _head(self, piece: str) -> str:
        """Before a message's body; returns what is left to look at."""
        words = piece.lstrip()
        at = piece[: _MAX_HEAD + len(_MESSAGE)].find(_MESSAGE)
        strange = self._where == "start" and not any(words.startswith(h) or h.startswith(words) for h in _HEADS)
        if strange or (at < 0 and len(piece) >= _MAX_HEAD + len(_MESSAGE)):
            self.answering, self._where = True, "plain"
            return piece
        if at < 0:
            self._rest = piece
            return ""
        # The last: where a budget ends a thought, a head that has begun is followed by the answer's.
        named = _CHANNEL.findall(piece[:at])
        final = not named or named[-1] == "final"
        self.closings += final and self.thinking
        self.headed = self.headed or final
        self._where, self.thinking = "text" if final else "thought", not final
        self._blanks = ["\n\n"]
        return piece[at + len(_MESSAGE) :]

    def _body(self, piece: str, out: dict[str, str]) -> str:
        """Inside of a message; returns what is left to look at."""
        at, end = len(piece), ""
        if "<" in piece:
            match = _END.search(piece)
            at, end = (match.start(), match[0]) if match else (_may_begin(piece, *_ENDS), "")
        out[self._where] += self._spaced(piece[:at])
        if not end:
            self._rest = piece[at:]
            return ""
        self.over = self._where == "text" and end not in _HEADS
        self._where = "head"
        return piece[at:] if end in _HEADS else piece[at + len(end) :]

    def _spaced(self, words: str) -> str:
        """These words after the white space before them. What stands at the end waits for more, and what begins all is left out."""
        kept = words.rstrip()
        if not kept:
            self._blanks.append(words)
            return ""
        blanks, self._blanks = self._blanks, [words[len(kept) :]]
        if self._where not in self._begun:
            self._begun.add(self._where)
            return kept.lstrip()
        return "".join([*blanks, kept])


class HeadSplitter:
    """For a server of which nothing is known: what stands at the head of an answer says how its thoughts are marked, if they are."""

    def __init__(self) -> None:
        self._head = ""
        self._way: ThoughtSplitter | None = None

    @property
    def thinking(self) -> bool:
        return self._way is not None and self._way.thinking

    @property
    def closings(self) -> int:
        return 0 if self._way is None else self._way.closings

    @property
    def answering(self) -> bool:
        return self._way is not None and self._way.answering

    @property
    def headed(self) -> bool:
        return self._way is not None and self._way.headed

    @property
    def over(self) -> bool:
        return self._way is not None and self._way.over

    def push(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        if self._way is None:
            self._head += piece
            piece, words = self._head, self._head[:_MAX_HEAD].lstrip()[: len(_HEADS[0])]
            if not last and len(self._head) < _MAX_HEAD and any(h.startswith(words) for h in _HEADS) and words not in _HEADS:
                return "", ""
            self._way, self._head = ChannelSplitter() if words.startswith(_HEADS) else TagSplitter(), ""
        return self._way.push(piece, last=last)


def _may_begin(text: str, *tags: str) -> int:
    """Where the beginning of a tag may stand, at the end of a text without the whole of one; the text's length where it does not.

    All tags begin with the same character, and have it only there.
    """
    at = text.rfind(tags[0][0])
    return at if at >= 0 and any(tag.startswith(text[at:]) for tag in tags) else len(text)
