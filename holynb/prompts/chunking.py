"""Long prompts: pieces that a server accepts, and the plan that makes one answer of theirs. Pure; knows texts and prompts, sends nothing.

A cut falls between paragraphs where it can, else between lines, sentences, words, and only then inside a word. Pieces keep their order,
nothing but white space at a cut is left out, and each may repeat the end of the one before it (`overlap`).

Map and reduce: the words around the long text (what is asked of it) go with every piece; the pieces' answers are then put together, in
as many rounds as it takes for them to fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from holynb.errors import BadOption
from holynb.prompts import tokens
from holynb.types import Message, Prompt

__all__ = [
    "MIN_PIECE_TOKENS",
    "Chunk",
    "ChunkPlan",
    "plan",
    "prompt_tokens",
    "reduced_size",
    "request_size",
    "split",
    "stated_context_limit",
]

Count = Callable[[str], int]

#: Fewest tokens a piece may be asked to hold: below this not even an overlap fits.
MIN_PIECE_TOKENS = 64
#: Where a context length is nobody's knowledge, the size that `auto` begins with.
DEFAULT_CONTEXT_TOKENS = 3000
#: A cut between paragraphs, lines or sentences counts only where the piece before it is filled this far.
FILLED = 0.25
#: Tokens set aside for the heading of an answer among others.
HEADING = 12
#: Longest instruction before or after a long text, in tokens, and as a share of what a request may hold.
ASKED, ASKED_SHARE = 400, 0.25

PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
LINE = re.compile(r"\n+")
SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]»]*\s+|[。！？][\"”’」』）]*\s*")
WORD = re.compile(r"\s+")
#: Marks that belong to the character before them: a cut must not come between.
JOINED = re.compile(r"[\u0300-\u036f\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]")

TOLD = (
    re.compile(
        r"(?:maximum context length|context length|context window|context size|max_model_len)[^0-9]{0,40}?(\d[\d,]{2,})", re.IGNORECASE
    ),
    re.compile(r"\d[\d,]* tokens? > (\d[\d,]*)"),
    re.compile(r"(?:limit|maximum)(?: of| is)? (\d[\d,]{2,}) tokens", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a text: `source[start:end]`, of which the first `overlap` characters stand in the piece before it too."""

    text: str
    start: int
    end: int
    overlap: int = 0


# -- pieces ------------------------------------------------------------------------------------------------------------
def split(text: str, most: int, *, overlap: int = 0, count: Count = tokens.count_high) -> list[Chunk]:
    """Pieces of at most `most` tokens, by `count`, in order; of a text that fits one piece, of a blank one none.

    `overlap`: about so many tokens of a piece's end are repeated at the beginning of the next, whole sentences where they fit.
    Raises BadOption where `most` is too small or the overlap more than half of it.
    """
    if most < MIN_PIECE_TOKENS or not 0 <= overlap <= most // 2:
        raise BadOption(f"A piece holds at least {MIN_PIECE_TOKENS} tokens and an overlap at most half a piece, not {most} and {overlap}.")
    pieces: list[Chunk] = []
    start = done = 0
    while done < len(text):
        end = _end(text, start, done, most, count)
        if text[done:end].strip():
            pieces.append(Chunk(text[start:end], start, end, done - start))
        done = end
        start = _back(text, done, overlap, count) if overlap and pieces else done
    return pieces


def _end(text: str, start: int, done: int, most: int, count: Count) -> int:
    """Where the piece that begins at `start` ends: after `done`, and at the best place that leaves it within `most` tokens."""
    furthest = _furthest(text, start, most, count)
    if furthest >= len(text):
        return len(text)
    least = done + int((furthest - done) * FILLED)
    for mark in (PARAGRAPH, LINE, SENTENCE):
        if (cut := _last(mark, text, least, furthest)) is not None:
            return cut
    if (cut := _last(WORD, text, done, furthest)) is not None:
        return cut
    return _whole(text, done, furthest)


def _furthest(text: str, start: int, most: int, count: Count) -> int:
    """The end of the longest run from `start` that `count` lets pass. It counts at most some 15 times a piece's length."""
    step = most * 4
    while start + step < len(text) and count(text[start : start + step]) <= most:
        step *= 2
    low, high = start + 1, min(len(text), start + step)
    if count(text[start:high]) <= most:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(text[start:middle]) <= most else (low, middle)
    return low


def _last(mark: re.Pattern[str], text: str, after: int, until: int) -> int | None:
    """The end of the last `mark` that ends within (after, until]."""
    ends = (m.end() for m in mark.finditer(text, after, until))
    return max((end for end in ends if after < end), default=None)


def _whole(text: str, done: int, furthest: int) -> int:
    """A cut inside a word that leaves characters whole: not before a combining mark, nor within a joined emoji."""
    cut = furthest
    while cut > done + 1 and furthest - cut < 16 and (JOINED.match(text[cut]) or text[cut - 1] == "\u200d"):
        cut -= 1
    return cut if cut > done + 1 else furthest


def _back(text: str, done: int, overlap: int, count: Count) -> int:
    """Where the next piece begins, so that it repeats about `overlap` tokens before `done`: at a sentence, else at a word."""
    low, high = max(0, done - overlap * 8), done
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(text[middle:done]) <= overlap else (middle + 1, high)
    for mark in (SENTENCE, LINE, WORD):
        found = next((m.end() for m in mark.finditer(text, low, done) if m.end() < done), None)
        if found is not None:
            return found
    return done


# -- a plan for one prompt -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How one long prompt is asked in parts. `parts[i]` asks of `pieces[i]`; `reduce` asks for one answer from theirs."""

    prompt: Prompt
    pieces: tuple[Chunk, ...]
    parts: tuple[Prompt, ...]
    before: str
    after: str
    max_tokens: int
    count: Count = tokens.count_high

    def reduce(self, answers: Sequence[str]) -> list[Prompt | str]:
        """The next round: prompts that put neighbouring answers together, and an answer without a neighbour as it is.

        Each round is at most two thirds as long as the one before; a round of one prompt is the last. An answer that is too long to stand
        beside another is shortened, at a sentence.
        """
        if len(answers) < 2:
            raise ValueError("there is nothing to put together")
        room = self.max_tokens - self.count(self._combine(()))
        half = max(MIN_PIECE_TOKENS, room // 2 - HEADING)
        shown = [a if self.count(a) <= half else split(a, half, count=self.count)[0].text.rstrip() + " …" for a in answers]
        parts = [f"[Part {i}]\n{text.strip()}" for i, text in enumerate(shown, 1)]
        groups = list(_groups(parts, room, self.count))
        return [_asking(self.prompt, self._combine(g)) if len(g) > 1 else answers[-1] for g in groups]

    def with_limit(self, max_tokens: int) -> ChunkPlan:
        """The same plan for requests of at most `most` tokens from now on, everything in them counted."""
        return replace(
            self, max_tokens=min(self.max_tokens, max_tokens - prompt_tokens(self.prompt, self.count) + self.count(self.prompt.text))
        )

    def recut(self, text: str, part: str) -> list[tuple[Prompt, str]]:
        """A piece cut once more, so that each request stays within this plan: what is asked, and of which text. Empty where there is no room.

        `part` is what the piece is called in its request.
        """
        room = self.max_tokens - self.count(f"{self.before}\n\n[Part {part}.99 of 99]\n\n\n{self.after}")
        if room < MIN_PIECE_TOKENS:
            return []
        finer = split(text, room, overlap=room // 20, count=self.count)
        return [(self.asking(piece.text, f"{part}.{i} of {len(finer)}"), piece.text) for i, piece in enumerate(finer, 1)]

    def asking(self, text: str, part: str) -> Prompt:
        """What is asked, of a part of the text."""
        return _asking(self.prompt, "\n\n".join(p for p in (self.before, f"[Part {part}]\n{text.strip()}", self.after) if p))

    def _combine(self, answers: Sequence[str]) -> str:
        told = "The text was too long for one request. Below are the answers to its parts, in order. Give one answer for the whole text."
        return "\n\n".join(p for p in (self.before, told, *answers, self.after) if p)


def plan(prompt: Prompt, most: int, *, overlap: int | None = None, count: Count = tokens.count_high) -> ChunkPlan | None:
    """Parts of at most `most` tokens each, everything in them counted; None where the prompt fits as it is.

    The last user turn is what is cut; earlier turns and the system prompt go with every part. Default overlap: a twentieth of a piece.
    Raises BadOption where what surrounds the text leaves no room for it.
    """
    asked = prompt_tokens(prompt, count)
    if asked <= most:
        return None
    beside = asked - count(prompt.text)
    before, body, after = _parted(prompt.text, most - beside, count)
    frame = count(f"{before}\n\n[Part 9999 of 9999]\n\n\n{after}")
    room = most - beside - frame
    if room < 4 * MIN_PIECE_TOKENS:  # two answers must fit into a request, and what is asked of them
        least = beside + frame + 4 * MIN_PIECE_TOKENS
        raise BadOption(f"--chunk {most} leaves no room for the text: {beside + frame} tokens go with every part. Give at least {least}.")
    pieces = split(body, room, overlap=room // 20 if overlap is None else min(overlap, room // 2), count=count)
    if not pieces:
        return None
    made = ChunkPlan(prompt, tuple(pieces), (), before, after, most - beside, count)
    return replace(made, parts=tuple(made.asking(p.text, f"{i} of {len(pieces)}") for i, p in enumerate(pieces, 1)))


def _parted(text: str, most: int, count: Count) -> tuple[str, str, str]:
    """What is asked before the long text, the text, and what is asked after it: the short first and last paragraphs, or first line."""
    allowed = min(ASKED, int(most * ASKED_SHARE))
    before = after = ""
    first = PARAGRAPH.search(text) or LINE.search(text)
    if first is not None and count(text[: first.start()]) <= allowed:
        before, text = text[: first.start()].strip(), text[first.end() :]
    blocks = list(PARAGRAPH.finditer(text, max(0, len(text) - allowed * 8)))
    if blocks and count(text[blocks[-1].end() :]) <= allowed:
        text, after = text[: blocks[-1].start()], text[blocks[-1].end() :].strip()
    return before, text, after


def _asking(prompt: Prompt, text: str) -> Prompt:
    """`prompt` with another last user turn."""
    last = max(i for i, m in enumerate(prompt.messages) if m.role == "user")
    return replace(prompt, messages=(*prompt.messages[:last], Message("user", text), *prompt.messages[last + 1 :]))


def _groups(texts: Sequence[str], room: int, count: Count) -> Iterator[list[str]]:
    """Neighbours that fit together, at least two in each group but the last."""
    group: list[str] = []
    used = 0
    for text in texts:
        size = count(text) + 2
        if len(group) >= 2 and used + size > room:
            yield group
            group, used = [], 0
        group.append(text)
        used += size
    yield group


def prompt_tokens(prompt: Prompt, count: Count = tokens.count_high) -> int:
    """Tokens of a whole prompt."""
    return sum(count(m.content) for m in prompt.messages)


# -- how long a piece may be ---------------------------------------------------------------------------------------------
def request_size(asked: str, context: int | None, max_tokens: int) -> int:
    """Tokens that a request may hold: `--chunk N` is N; `auto` is the context length without the answer, 3,000 where it is unknown.

    Raises BadOption for what is neither.
    """
    if asked == "auto":
        return DEFAULT_CONTEXT_TOKENS if context is None else max(MIN_PIECE_TOKENS, context - max_tokens - context // 50)
    if not re.fullmatch(r"\d[\d_,]*", asked) or int(re.sub(r"[_,]", "", asked)) < MIN_PIECE_TOKENS:
        raise BadOption(f"--chunk takes auto, or a number of tokens from {MIN_PIECE_TOKENS}, not {asked!r}.")
    return int(re.sub(r"[_,]", "", asked))


def reduced_size(asked: int, message: str, max_tokens: int) -> int:
    """Tokens to try after a request of `asked` was too long, or took too long: what the server's message leaves room for, else half."""
    told = stated_context_limit(message)
    if told is None:
        return asked // 2
    room = request_size("auto", told, max_tokens)
    return min(room if room > told // 4 else told // 2, asked * 3 // 4)


def stated_context_limit(message: str) -> int | None:
    """The context length that a server names when it refuses a long prompt; None where it names none."""
    found = next((m for pattern in TOLD if (m := pattern.search(message))), None)
    return None if found is None else int(found[1].replace(",", ""))
