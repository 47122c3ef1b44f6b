"""Map-reduce over a long prompt: cutting it into pieces, and combining their answers. Pure; knows texts and prompts, sends nothing.

A cut falls between paragraphs where it can, else between lines, sentences, words, and only then inside a word. Pieces keep their order,
nothing but white space at a cut is left out, and each may repeat the end of the one before it (`overlap`).

The instruction before and after the long text goes with every piece; the pieces' answers are then combined, in as many rounds as it
takes for them to fit.
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

#: Smallest size of a piece, in tokens: below it not even an overlap fits.
MIN_PIECE_TOKENS = 64
#: First size of `auto` for an unknown context length, in tokens.
DEFAULT_CONTEXT_TOKENS = 3000
#: A cut between paragraphs, lines or sentences is taken only where it fills the piece to this share.
MIN_FILL = 0.25
#: Tokens reserved for the heading of an answer among others.
HEADING_TOKENS = 12
#: Longest instruction before or after a long text, in tokens, and as a share of the request.
MAX_INSTRUCTION_TOKENS, MAX_INSTRUCTION_SHARE = 400, 0.25

PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
LINE = re.compile(r"\n+")
SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]»]*\s+|[。！？][\"”’」』）]*\s*")
WORD = re.compile(r"\s+")
#: Characters that combine with the one before them: no cut goes between the two.
COMBINING = re.compile(r"[\u0300-\u036f\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]")

#: How servers state their context length when they refuse a long prompt.
CONTEXT_LIMITS = (
    re.compile(
        r"(?:maximum context length|context length|context window|context size|max_model_len)[^0-9]{0,40}?(\d[\d,]{2,})", re.IGNORECASE
    ),
    re.compile(r"\d[\d,]* tokens? > (\d[\d,]*)"),
    re.compile(r"(?:limit|maximum)(?: of| is)? (\d[\d,]{2,}) tokens", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text: `source[start:end]`; its first `overlap` characters are in the piece before it too."""

    text: str
    start: int
    end: int
    overlap: int = 0


# -- pieces ------------------------------------------------------------------------------------------------------------
def split(text: str, max_tokens: int, *, overlap: int = 0, count: Count = tokens.count_high) -> list[Chunk]:
    """Pieces of at most `max_tokens` by `count`, in order; one piece for a text that fits, none for a blank one.

    `overlap`: about how many tokens of a piece's end are repeated at the start of the next, whole sentences where they fit.
    Raises BadOption where `max_tokens` is too small or the overlap more than half of it.
    """
    if max_tokens < MIN_PIECE_TOKENS or not 0 <= overlap <= max_tokens // 2:
        raise BadOption(
            f"A piece holds at least {MIN_PIECE_TOKENS} tokens and an overlap at most half a piece, not {max_tokens} and {overlap}."
        )
    pieces: list[Chunk] = []
    start = done = 0
    while done < len(text):
        end = _end(text, start, done, max_tokens, count)
        if text[done:end].strip():
            pieces.append(Chunk(text[start:end], start, end, done - start))
        done = end
        start = _overlap_start(text, done, overlap, count) if overlap and pieces else done
    return pieces


def _end(text: str, start: int, done: int, max_tokens: int, count: Count) -> int:
    """The end of the piece that begins at `start`: after `done`, at the best place within `max_tokens`."""
    furthest = _furthest(text, start, max_tokens, count)
    if furthest >= len(text):
        return len(text)
    least = done + int((furthest - done) * MIN_FILL)
    for mark in (PARAGRAPH, LINE, SENTENCE):
        if (cut := _last(mark, text, least, furthest)) is not None:
            return cut
    if (cut := _last(WORD, text, done, furthest)) is not None:
        return cut
    return _whole_character(text, done, furthest)


def _furthest(text: str, start: int, max_tokens: int, count: Count) -> int:
    """The end of the longest run from `start` within `max_tokens`. Counts at most some 15 times a piece's length."""
    step = max_tokens * 4
    while start + step < len(text) and count(text[start : start + step]) <= max_tokens:
        step *= 2
    low, high = start + 1, min(len(text), start + step)
    if count(text[start:high]) <= max_tokens:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(text[start:middle]) <= max_tokens else (low, middle)
    return low


def _last(mark: re.Pattern[str], text: str, after: int, until: int) -> int | None:
    """The end of the last `mark` that ends within (after, until]."""
    ends = (m.end() for m in mark.finditer(text, after, until))
    return max((end for end in ends if after < end), default=None)


def _whole_character(text: str, done: int, furthest: int) -> int:
    """A cut inside a word that splits no character: not before a combining mark, nor within a joined emoji."""
    cut = furthest
    while cut > done + 1 and furthest - cut < 16 and (COMBINING.match(text[cut]) or text[cut - 1] == "\u200d"):
        cut -= 1
    return cut if cut > done + 1 else furthest


def _overlap_start(text: str, done: int, overlap: int, count: Count) -> int:
    """The start of the next piece, about `overlap` tokens before `done`: at a sentence, else at a word."""
    low, high = max(0, done - overlap * 8), done
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(text[middle:done]) <= overlap else (middle + 1, high)
    for mark in (SENTENCE, LINE, WORD):
        start = next((m.end() for m in mark.finditer(text, low, done) if m.end() < done), None)
        if start is not None:
            return start
    return done


# -- the plan of one prompt --------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """One long prompt as several. `parts[i]` is the prompt for `pieces[i]`; `reduce` combines their answers."""

    prompt: Prompt
    pieces: tuple[Chunk, ...]
    parts: tuple[Prompt, ...]
    before: str
    after: str
    max_tokens: int
    count: Count = tokens.count_high

    def reduce(self, answers: Sequence[str]) -> list[Prompt | str]:
        """The next round: prompts that combine neighbouring answers, and an answer without a neighbour as it is.

        Each round is at most two thirds as long as the one before; a round of one prompt is the last. An answer that is too long to be
        combined with another is shortened, at a sentence.
        """
        if len(answers) < 2:
            raise ValueError("there is nothing to put together")
        room = self.max_tokens - self.count(self._combine(()))
        half = max(MIN_PIECE_TOKENS, room // 2 - HEADING_TOKENS)
        shown = [a if self.count(a) <= half else split(a, half, count=self.count)[0].text.rstrip() + " …" for a in answers]
        parts = [f"[Part {i}]\n{text.strip()}" for i, text in enumerate(shown, 1)]
        groups = list(_groups(parts, room, self.count))
        return [_with_last_turn(self.prompt, self._combine(g)) if len(g) > 1 else answers[-1] for g in groups]

    def with_limit(self, max_tokens: int) -> ChunkPlan:
        """The same plan for whole requests of at most `max_tokens`."""
        return replace(
            self, max_tokens=min(self.max_tokens, max_tokens - prompt_tokens(self.prompt, self.count) + self.count(self.prompt.text))
        )

    def recut(self, text: str, part: str) -> list[tuple[Prompt, str]]:
        """(prompt, text) for each part of a piece that is cut once more to fit this plan. Empty where there is no room.

        `part` is the piece's label in its request.
        """
        room = self.max_tokens - self.count(f"{self.before}\n\n[Part {part}.99 of 99]\n\n\n{self.after}")
        if room < MIN_PIECE_TOKENS:
            return []
        finer = split(text, room, overlap=room // 20, count=self.count)
        return [(self.part_prompt(piece.text, f"{part}.{i} of {len(finer)}"), piece.text) for i, piece in enumerate(finer, 1)]

    def part_prompt(self, text: str, part: str) -> Prompt:
        """The prompt for one part of the text."""
        return _with_last_turn(self.prompt, "\n\n".join(p for p in (self.before, f"[Part {part}]\n{text.strip()}", self.after) if p))

    def _combine(self, answers: Sequence[str]) -> str:
        task = "The text was too long for one request. Below are the answers to its parts, in order. Give one answer for the whole text."
        return "\n\n".join(p for p in (self.before, task, *answers, self.after) if p)


def plan(prompt: Prompt, max_tokens: int, *, overlap: int | None = None, count: Count = tokens.count_high) -> ChunkPlan | None:
    """A plan whose whole requests are at most `max_tokens` each; None where the prompt fits as it is.

    The last user turn is cut; earlier turns and the system prompt go with every part. Default overlap: a twentieth of a piece.
    Raises BadOption where the rest of the prompt leaves no room for the text.
    """
    total = prompt_tokens(prompt, count)
    if total <= max_tokens:
        return None
    beside = total - count(prompt.text)
    before, body, after = _split_instructions(prompt.text, max_tokens - beside, count)
    frame = count(f"{before}\n\n[Part 9999 of 9999]\n\n\n{after}")
    room = max_tokens - beside - frame
    if room < 4 * MIN_PIECE_TOKENS:  # a request must hold two answers and the instruction
        least = beside + frame + 4 * MIN_PIECE_TOKENS
        raise BadOption(
            f"--chunk {max_tokens} leaves no room for the text: {beside + frame} tokens go with every part. Give at least {least}."
        )
    pieces = split(body, room, overlap=room // 20 if overlap is None else min(overlap, room // 2), count=count)
    if not pieces:
        return None
    unfilled = ChunkPlan(prompt, tuple(pieces), (), before, after, max_tokens - beside, count)
    return replace(unfilled, parts=tuple(unfilled.part_prompt(p.text, f"{i} of {len(pieces)}") for i, p in enumerate(pieces, 1)))


def _split_instructions(text: str, max_tokens: int, count: Count) -> tuple[str, str, str]:
    """The instruction before the long text, the text, and the instruction after it: short first and last paragraphs, or first line."""
    allowed = min(MAX_INSTRUCTION_TOKENS, int(max_tokens * MAX_INSTRUCTION_SHARE))
    before = after = ""
    first = PARAGRAPH.search(text) or LINE.search(text)
    if first is not None and count(text[: first.start()]) <= allowed:
        before, text = text[: first.start()].strip(), text[first.end() :]
    blocks = list(PARAGRAPH.finditer(text, max(0, len(text) - allowed * 8)))
    if blocks and count(text[blocks[-1].end() :]) <= allowed:
        text, after = text[: blocks[-1].start()], text[blocks[-1].end() :].strip()
    return before, text, after


def _with_last_turn(prompt: Prompt, text: str) -> Prompt:
    """`prompt` with another last user turn."""
    last = max(i for i, m in enumerate(prompt.messages) if m.role == "user")
    return replace(prompt, messages=(*prompt.messages[:last], Message("user", text), *prompt.messages[last + 1 :]))


def _groups(texts: Sequence[str], room: int, count: Count) -> Iterator[list[str]]:
    """Neighbours that fit together, at least two in each group but the last."""
    group: list[str] = []
    used = 0
    for text in texts:
        tokens_used = count(text) + 2
        if len(group) >= 2 and used + tokens_used > room:
            yield group
            group, used = [], 0
        group.append(text)
        used += tokens_used
    yield group


def prompt_tokens(prompt: Prompt, count: Count = tokens.count_high) -> int:
    """Tokens of a whole prompt."""
    return sum(count(m.content) for m in prompt.messages)


# -- sizes -------------------------------------------------------------------------------------------------------------
def request_size(option: str, context: int | None, max_tokens: int) -> int:
    """Size of a request in tokens: N for `--chunk N`; for `auto` the context length without the answer, 3,000 where it is unknown.

    Raises BadOption for any other value.
    """
    if option == "auto":
        return DEFAULT_CONTEXT_TOKENS if context is None else max(MIN_PIECE_TOKENS, context - max_tokens - context // 50)
    if not re.fullmatch(r"\d[\d_,]*", option) or int(re.sub(r"[_,]", "", option)) < MIN_PIECE_TOKENS:
        raise BadOption(f"--chunk takes auto, or a number of tokens from {MIN_PIECE_TOKENS}, not {option!r}.")
    return int(re.sub(r"[_,]", "", option))


def reduced_size(size: int, message: str, max_tokens: int) -> int:
    """Size to try, in tokens, after a request of `size` was too long or too slow: within the limit in the server's message, else half."""
    limit = stated_context_limit(message)
    if limit is None:
        return size // 2
    room = request_size("auto", limit, max_tokens)
    return min(room if room > limit // 4 else limit // 2, size * 3 // 4)


def stated_context_limit(message: str) -> int | None:
    """The context length in a server's refusal of a long prompt; None where it states none."""
    match = next((m for pattern in CONTEXT_LIMITS if (m := pattern.search(message))), None)
    return None if match is None else int(match[1].replace(",", ""))
