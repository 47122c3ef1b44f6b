"""Text ↔ token ids: the model's tokenizer, its chat template, and decoding as tokens come. Knows no torch and no sockets."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holynb.pool.modelfiles import read_object, read_text, real, truth, whole
from holynb.pool.server.chat_template import ChatTemplate, Message, TemplateError, compiled
from holynb.pool.server.control_tokens import ControlTokens, Marked, mapped, renamed_tokenizer, strings_of

__all__ = ["ChatTokenizer", "Detokenizer", "StopStrings", "TemplateError", "TokenizerFileError", "strings_of"]

#: The largest tokenizers have 40 MB, the longest templates 50 kB.
_MAX_TOKENIZER_BYTES, _MAX_TEMPLATE_BYTES = 256_000_000, 1_000_000

#: Decoded in place of bytes that are not a whole character (yet).
_REPLACEMENT = "\ufffd"

#: Byte-level BPE writes bytes as these characters: printable ones as themselves, the others from 256 on (as GPT-2's encoder.py has it).
_PRINTED = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
_BYTE_OF = {chr(b): b for b in _PRINTED} | {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in _PRINTED)}
_SPACE = next(c for c, b in _BYTE_OF.items() if b == 32)


class TokenizerFileError(Exception):
    """A file of the tokenizer cannot be read; the message names it and says what to do."""


class ChatTokenizer:
    """One model's tokenizer and chat template. Reads its folder once; all methods are pure and thread-safe. Raises TokenizerFileError.

    Encoding a long text takes seconds, in which other threads go on.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokenizer.json"
        self._tokenizer = _tokenizer(self._path)
        self._config = _json(folder / "tokenizer_config.json")
        config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
        self.eos = _ids(generation.get("eos_token_id"), config.get("eos_token_id"), self._id_of(self._config.get("eos_token")))
        sizes = _checked(folder, config, generation)
        self.size = sizes.vocab or int(self._tokenizer.get_vocab_size())
        """Ids of the model's own; the tokenizer may know more."""
        self.longest_token = max((len(word.encode()) for word in self._tokenizer.get_vocab()), default=1)
        """Bytes of text that one token stands for, at most."""
        self.context, self.sampling = sizes.context, sizes.sampling
        self._byte_level = self._tokenizer.token_to_id(_SPACE) is not None and self._tokenizer.token_to_id("<0x0A>") is None
        self._template = _compile(_template_of(folder, self._config), self._config)
        self._controls = self._control_tokens()
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

    def _id_of(self, token: Any) -> int | None:
        number = self._tokenizer.token_to_id(_token_text(token)) if token else None
        return None if number is None else int(number)

    def _control_tokens(self) -> ControlTokens:
        """The tokenizer's special tokens, and of its other added ones those that the chat template names."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        source = self._template.source if self._template else ""
        return ControlTokens(
            {t.content for t in added if t.special},
            {t.content for t in added if not t.special and t.content.strip() and t.content in source},
        )

    def _renamed_tokenizer(self) -> _Renamed:
        """A second tokenizer, for conversations with control tokens in a message; made when the first of them comes."""
        with self._renamed_lock:
            if self._renamed is None:
                self._renamed = _Renamed(self._tokenizer, self._path, self._controls.names)
            return self._renamed


class _Renamed:
    """A tokenizer that knows control tokens by secret names, and which ids of it are others in the model."""

    def __init__(self, model: Any, path: Path, names: Mapping[str, str]) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(renamed_tokenizer(path.read_text(encoding="utf-8"), names))
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

    def push(self, piece: str, *, last: bool = False) -> str:
        """The text so far that is certainly before any stop string. After a hit: empty."""
        if self.hit:
            return ""
        text = self._buffer + piece
        positions = [i for s in self._stops if (i := text.find(s)) >= 0]
        if positions:
            self.hit, self._buffer = True, ""
            return text[: min(positions)]
        keep = 0 if last else max((_overlap(text, s) for s in self._stops), default=0)
        self._buffer = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class _Sizes(NamedTuple):
    """What a model's configuration says, as numbers that can be worked with."""

    vocab: int
    context: int
    sampling: Mapping[str, float]


def _checked(folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any]) -> _Sizes:
    try:
        vocab, context = whole(config, "vocab_size", 0, 2**31 - 1, 0), whole(config, "max_position_embeddings", 1, 2**31 - 1, 2048)
    except ValueError as exc:
        raise TokenizerFileError(f"{folder / 'config.json'}: {exc}. Fetch the model again, or mend the file.") from exc
    sampling: dict[str, float] = {}
    try:
        if truth(generation, "do_sample"):
            sampling = {
                n: real(generation, n, 0, most) for n, most in (("temperature", 100), ("top_p", 1)) if generation.get(n) is not None
            }
            sampling |= {"top_k": whole(generation, "top_k", 0, 2**31 - 1)} if generation.get("top_k") is not None else {}
    except ValueError as exc:
        raise TokenizerFileError(f"{folder / 'generation_config.json'}: {exc}. Fetch the model again, or mend the file.") from exc
    return _Sizes(vocab, context, sampling)


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(read_text(path, _MAX_TOKENIZER_BYTES))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # the library raises plain Exception, and where it panics something that is none
        reason = " ".join(str(exc).split())[:200]
        raise TokenizerFileError(f"{path} is no readable tokenizer ({reason}). Fetch the model again.") from exc
    # A file may say both; a prompt is neither cut nor filled up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encoded(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    """Ids of a text; `special`: with what the tokenizer puts around it. As a batch of one: only then do other threads go on meanwhile."""
    return list(tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return read_object(path)
    except (ValueError, OSError) as exc:
        raise TokenizerFileError(f"{path} is no readable JSON ({exc}). Fetch the model again, or mend the file.") from exc


def _ids(*values: Any) -> tuple[int, ...]:
    """All ids in numbers and lists of numbers, without duplicates."""
    ids: dict[int, None] = {}
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31:
                ids[one] = None
    return tuple(ids)


def _token_text(token: Any) -> str:
    """A special token as tokenizer_config.json writes it: a string, or an object with its content."""
    return str(token.get("content", "") if isinstance(token, Mapping) else token or "")


def _template_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own (newer models), or a field; of several named ones, the default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return read_text(path, _MAX_TEMPLATE_BYTES)
        except (ValueError, OSError) as exc:
            raise TokenizerFileError(f"{path} is no readable chat template ({exc}). Fetch the model again, or mend the file.") from exc
    template = _json(folder / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(template, list):
        template = next((t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _compile(source: str | None, config: Mapping[str, Any]) -> ChatTemplate | None:
    if source is None:
        return None
    try:
        return compiled(source, {k: _token_text(config.get(k)) for k in ("bos_token", "eos_token", "unk_token", "pad_token")})
    except ValueError as exc:
        raise TokenizerFileError(f"the model's chat template is no Jinja ({exc}). Fetch the model again, or mend it.") from exc
