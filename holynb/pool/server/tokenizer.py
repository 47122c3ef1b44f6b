"""Text ↔ token ids: the model's tokenizer, its chat template, and decoding as tokens come. Knows no torch and no sockets."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holynb.pool.server.chat_template import Message, TemplateError
from holynb.pool.server.control_tokens import ControlTokens, Marked, mapped, renamed_tokenizer, strings_of
from holynb.pool.server.model_thinking import model_thinking, tail_of
from holynb.pool.server.tokenizer_files import TokenizerFileError, read_files

__all__ = ["ChatTokenizer", "Detokenizer", "StopStrings", "TemplateError", "TokenizerFileError", "strings_of"]

#: Decoded in place of bytes that are not a whole character (yet).
_REPLACEMENT = "\ufffd"

#: Byte-level BPE writes bytes as these characters: printable ones as themselves, the others from 256 on (as GPT-2's encoder.py has it).
_PRINTED = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
_BYTE_OF = {chr(b): b for b in _PRINTED} | {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in _PRINTED)}
_SPACE = next(c for c, b in _BYTE_OF.items() if b == 32)


class ChatTokenizer:
    """One model's tokenizer and chat template. Reads its folder once; all methods are pure and thread-safe. Raises TokenizerFileError.

    Encoding a long text takes seconds, in which other threads go on.
    """

    def __init__(self, folder: Path) -> None:
        files = read_files(folder)
        self._tokenizer = files.tokenizer
        self.context, self.defaults, self.unread = files.context, files.defaults, files.unread
        self.size = files.vocab or int(self._tokenizer.get_vocab_size())
        """Ids of the model's own; the tokenizer may know more."""
        self.longest_token = max((len(word.encode()) for word in self._tokenizer.get_vocab()), default=1)
        """Bytes of text that one token stands for, at most."""
        self._byte_level = self._tokenizer.token_to_id(_SPACE) is not None and self._tokenizer.token_to_id("<0x0A>") is None
        self._template = files.template
        self.thinking = model_thinking(files.template, self._tokenizer)
        self.eos = tuple(dict.fromkeys((*files.eos, *(() if self.thinking is None else self.thinking.stops))))
        self._controls = self._control_tokens(files.controls)
        self._renamed: _Renamed | None = None
        self._renamed_lock = threading.Lock()

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of plain text; `special`: with the tokenizer's own special tokens around it (BOS, for some). Control tokens in it count."""
        return _encoded(self._tokenizer, text, special=special)

    def encode_chat(self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None) -> list[int]:
        """Ids of a conversation, with the generation prompt. `variables`: further ones for the template. Raises TemplateError.

        Control tokens in a message are text: what it says can neither end its turn nor begin another.
        """
        variables = variables or {}
        plain = self.chat(messages, variables)
        texts = list(strings_of([messages, variables]))
        if not any(map(self._controls.suspect, texts)):
            return _encoded(self._tokenizer, plain)
        marked = self._marked(plain, messages, variables, texts)
        if not marked.forged:
            return _encoded(self._tokenizer, marked.text)
        renamed = self._renamed_tokenizer()
        return [renamed.ids.get(i, i) for i in _encoded(renamed.tokenizer, marked.renamed(self._controls.names))]

    def _marked(self, plain: str, messages: Sequence[Message], variables: Mapping[str, Any], texts: list[str]) -> Marked:
        """The conversation with what came from messages marked, by the most thorough way that the template does not notice."""
        try:
            mark = self._controls.mark(plain, *texts)
        except ValueError as exc:
            raise TemplateError(f"These messages cannot be told from control tokens: {exc}.") from exc
        for change in self._controls.markings(mark):
            marked = Marked(self.chat(mapped(messages, change), mapped(variables, change)), mark, self._controls.all)
            if marked.text == plain:
                break
        return marked

    @property
    def chats(self) -> bool:
        """Whether it has a template for conversations; a base model has none."""
        return self._template is not None

    def chat(self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None) -> str:
        """The conversation as rendered by the model's chat template. Raises TemplateError."""
        if self._template is None:
            raise TemplateError(
                "This model has no chat template: it continues text and holds no conversation. Take its instruct or chat version; "
                "on a pool with --port, /v1/completions continues text."
            )
        return self._template.render(messages, variables or {})

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids; `special`: with that of special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=not special))

    def prompt_ends(self, ids: Sequence[int]) -> str:
        """Whether a prompt ends in a thought: `begun`, `closed`, or ""."""
        return "" if self.thinking is None else tail_of(self.thinking, ids, self._tokenizer)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, which need not be whole characters; those of its name where it is a special one."""
        name = self._tokenizer.id_to_token(token)
        if name is None:  # the model has more than its tokenizer names
            return b""
        if self._byte_level and all(c in _BYTE_OF for c in name):
            return bytes(_BYTE_OF[c] for c in name)
        if not self._byte_level and re.fullmatch("<0x[0-9A-F]{2}>", name):
            return bytes([int(name[3:5], 16)])
        return str(name if self._byte_level else name.replace("\u2581", " ")).encode()

    def _control_tokens(self, listed: frozenset[str]) -> ControlTokens:
        """The tokenizer's special tokens, and of its other added ones those that the chat template names, or that are listed."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        source = self._template.source if self._template else ""
        return ControlTokens(
            {t.content for t in added if t.special},
            {t.content for t in added if not t.special and t.content.strip() and (t.content in source or t.content in listed)},
        )

    def _renamed_tokenizer(self) -> _Renamed:
        """A second tokenizer, for conversations with control tokens in a message; made when the first of them comes."""
        with self._renamed_lock:
            if self._renamed is None:
                self._renamed = _Renamed(self._tokenizer, self._controls.names)
            return self._renamed


class _Renamed:
    """A tokenizer that knows control tokens by secret names, and which ids of it are others in the model."""

    def __init__(self, model: Any, names: Mapping[str, str]) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(renamed_tokenizer(model.to_str(), names))
        before = {name: token for token, name in names.items()}
        added = self.tokenizer.get_added_tokens_decoder().items()
        self.ids: dict[int, int] = {i: int(model.token_to_id(before.get(t.content, t.content))) for i, t in added}


class Detokenizer:
    """Incremental decoding: text that never has to be retracted. `finish` returns what is still buffered.

    A character may be spread over tokens (Hangul, emoji), so text that ends in a partial one is buffered until it is whole.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # decoding starts at the tokens of the last text returned: they decide whether a space comes between
        self._returned = 0  # tokens whose text was returned

    def push(self, ids: Iterable[int], *, last: bool = False) -> str:
        """The text that `ids` complete."""
        self._ids += ids
        before = self._tokenizer.decode(self._ids[self._start : self._returned])
        now = self._tokenizer.decode(self._ids[self._start :])
        if len(now) <= len(before) or (now.endswith(_REPLACEMENT) and not last):
            return ""
        self._start, self._returned = self._returned, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        """The buffered rest, which will not become whole any more."""
        return self.push((), last=True)


class StopStrings:
    """Cuts text at the first stop string, also where one is spread over pieces. Text that may begin one is buffered."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [s for s in stops if s]
        self._buffer = ""
        self.hit = False
        self.matched = ""

    def push(self, piece: str, *, last: bool = False) -> str:
        """The text so far that is certainly before any stop string. After a hit: empty."""
        if self.hit:
            return ""
        text = self._buffer + piece
        places = [(i, s) for s in self._stops if (i := text.find(s)) >= 0]
        if places:
            self.hit, self._buffer = True, ""
            at, self.matched = min(places)
            return text[:at]
        keep = 0 if last else max((_overlap(text, s) for s in self._stops), default=0)
        self._buffer = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _encoded(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    """Ids of a text; `special`: with what the tokenizer puts around it. As a batch of one: only then do other threads go on meanwhile."""
    return list(tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids)
