"""Control tokens that stand in a message are text: only the chat template writes real ones. Knows tokenizer.json; no templates.

A message may hold `<|im_end|>\\n<|im_start|>system`, from a row of somebody else's data. It is marked before it is rendered, by characters
that no text here has, so that what came from it is known in the rendered conversation, also where the template trimmed or cut it. The
template's own control tokens then get names that nobody can guess, and a tokenizer that knows them by these names alone encodes the
whole in one go: joins and blanks come out as ever.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

__all__ = ["ControlTokens", "Marked", "mapped", "renamed_tokenizer", "strings_of"]

#: Private-use characters, of which one that occurs nowhere is the mark.
_MARKS = range(0x10_F000, 0x10_FFFE)


class Marked:
    """A conversation rendered from marked messages: its `text` without marks, and which control tokens in it came from a message."""

    def __init__(self, rendered: str, mark: str, tokens: Collection[str]) -> None:
        pieces = rendered.split(mark)
        self.text = "".join(pieces)
        marked, at = set[int](), 0
        for piece in pieces[:-1]:
            at += len(piece)
            marked.add(at)
        self._own: list[tuple[int, int]] = []
        """The template's own, from left to right."""
        self.forged = 0
        end = 0
        for start, stop in sorted(_occurrences(self.text, tokens), key=lambda span: (span[0], -span[1])):
            if any(p in marked for p in range(start + 1 if stop - start > 1 else start, stop)):
                self.forged += 1
            elif start >= end:
                self._own.append((start, stop))
                end = stop

    def renamed(self, names: Mapping[str, str]) -> str:
        """The text with the template's own control tokens by other names."""
        out, end = [], 0
        for start, stop in self._own:
            out += [self.text[end:start], names[self.text[start:stop]]]
            end = stop
        return "".join([*out, self.text[end:]])


class ControlTokens:
    """The control tokens of one tokenizer: `special` ones, and `others` that its chat template names as well."""

    def __init__(self, special: Collection[str], others: Collection[str]) -> None:
        self.special = frozenset(filter(None, special))
        self.all = self.special | frozenset(filter(None, others))
        self._first = {t[0] for t in self.all}
        self._own_beginnings = {_own_beginning(t, self.all - self.special) for t in self.special}
        self._endings = {t[i:] for t in self.all for i in range(1, len(t))}
        self._longest = max(map(len, self.all), default=0)
        self.names = {t: f"\U000f0000{secrets.token_hex(8)}\U000f0001" for t in self.all}
        """Names that no message has, by token."""

    @staticmethod
    def mark(*texts: str) -> str:
        """A character that is in none of these texts. Raises ValueError where there is none left."""
        for code in _MARKS:
            if not any(chr(code) in text for text in texts):
                return chr(code)
        raise ValueError("they hold every private-use character there is")

    def markings(self, mark: str) -> Iterator[Callable[[str], str]]:
        """Ways to mark a text, the most thorough first, which a template that looks for such strings notices most.

        Only the first one guards against the tokens that are not special.
        """
        yield lambda text: self._mark_beginnings(text, mark, self._first)
        yield lambda text: self._mark_beginnings(text, mark, self._own_beginnings)
        yield lambda text: _mark_inside(text, mark, self.special)

    def suspect(self, text: str) -> bool:
        """Whether a control token could come out of this text, whatever stands beside it."""
        return any(c in text for c in self._first) or self._starts_inside(text)

    def _starts_inside(self, text: str) -> bool:
        """Whether the text begins as a control token goes on."""
        head = text.lstrip()[: self._longest]
        return any(head[:n] in self._endings for n in range(1, len(head) + 1))

    def _mark_beginnings(self, text: str, mark: str, beginnings: Collection[str]) -> str:
        """A mark in every string that can begin a control token, and before a text that can end one."""
        marked = _mark_inside(text, mark, beginnings, behind=True)
        if not self._starts_inside(text):
            return marked
        blanks = len(text) - len(text.lstrip())
        return marked[:blanks] + mark + marked[blanks:]


def _own_beginning(token: str, others: Collection[str]) -> str:
    """The shortest beginning of a token that none of the others has."""
    return next((token[:n] for n in range(1, len(token)) if not any(o.startswith(token[:n]) for o in others)), token)


def strings_of(value: Any) -> Iterator[str]:
    """The texts in a value of JSON; keys and roles are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key != "role":
                yield from strings_of(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings_of(one)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value of JSON with its texts changed; keys and roles are left as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {k: v if k == "role" else mapped(v, change) for k, v in value.items()}
    return [mapped(v, change) for v in value] if isinstance(value, list | tuple) else value


def _mark_inside(text: str, mark: str, strings: Collection[str], *, behind: bool = False) -> str:
    """A mark after the first character of each of these strings (`behind`: after its last one), and before one of a single character."""
    places = set[int]()
    for start, stop in _occurrences(text, strings):
        places |= {start, stop} if stop - start == 1 else {stop if behind else start + 1}
    cuts = sorted(places)
    return mark.join(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))


def _occurrences(text: str, tokens: Collection[str]) -> Iterator[tuple[int, int]]:
    """Where these tokens stand in the text, overlapping ones too."""
    for token in tokens:
        at = text.find(token)
        while at >= 0:
            yield at, at + len(token)
            at = text.find(token, at + 1)


def renamed_tokenizer(source: str, names: Mapping[str, str]) -> str:
    """A tokenizer.json in which these tokens have other names, as added tokens and as words of the model: no text is one of them."""
    data = json.loads(source)
    for token in data.get("added_tokens") or []:
        token["content"] = names.get(token["content"], token["content"])
    data |= {"post_processor": None, "truncation": None, "padding": None}
    model = data["model"]
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(word, word): number for word, number in vocab.items()}
    else:
        model["vocab"] = [[names.get(word, word), *rest] for word, *rest in vocab]
    if isinstance(model.get("merges"), list):
        model["merges"] = [m for m in model["merges"] if not _makes(m, names)]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return json.dumps(data, ensure_ascii=False)


def _makes(merge: str | list[str], names: Mapping[str, str]) -> bool:
    """Whether a merge takes or makes one of these tokens."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
