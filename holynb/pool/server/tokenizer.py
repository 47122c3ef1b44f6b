"""Text ↔ token ids: the model's tokenizer, its chat template, and decoding as tokens come. Knows no torch and no sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["ChatTokenizer", "Detokenizer", "StopStrings", "TemplateError", "TokenizerFileError"]

Message = Mapping[str, Any]

#: Decoded in place of bytes that are not a whole character (yet).
_REPLACEMENT = "\ufffd"


class TemplateError(Exception):
    """The chat template rejects these messages, or the model has none."""


class TokenizerFileError(Exception):
    """A file of the tokenizer cannot be read; the message names it and says what to do."""


class ChatTokenizer:
    """One model's tokenizer and chat template. Reads its folder once; all methods are pure and thread-safe. Raises TokenizerFileError."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._config = _json(folder / "tokenizer_config.json")
        config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
        self.eos = _ids(generation.get("eos_token_id"), config.get("eos_token_id"), self._id_of(self._config.get("eos_token")))
        self.size: int = max(int(self._tokenizer.get_vocab_size()), int(config.get("vocab_size", 0)))
        self.context: int = int(config.get("max_position_embeddings", 2048))
        self.sampling = {k: generation[k] for k in ("temperature", "top_p", "top_k") if generation.get("do_sample") and k in generation}
        self._template = _compile(_template_of(folder, self._config))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, with the tokenizer's own special tokens around it (a BOS token, for some)."""
        return list(self._tokenizer.encode(text).ids)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, with the generation prompt. Raises TemplateError."""
        return list(self._tokenizer.encode(self.chat(messages), add_special_tokens=False).ids)

    def chat(self, messages: Sequence[Message]) -> str:
        """The conversation as rendered by the model's chat template. Raises TemplateError."""
        if self._template is None:
            raise TemplateError(
                "This model has no chat template: it continues text and holds no conversation. Take its instruct or chat version; "
                "on a pool with --port, /v1/completions continues text."
            )
        tokens = {k: _token_text(self._config.get(k)) for k in ("bos_token", "eos_token", "unk_token", "pad_token")}
        try:
            return str(self._template.render(messages=list(messages), add_generation_prompt=True, tools=None, documents=None, **tokens))
        except Exception as exc:  # a template is a program that comes with the model, and may fail in any way
            raise TemplateError(f"The model's chat template refuses these messages: {exc}") from exc

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _id_of(self, token: Any) -> int | None:
        number = self._tokenizer.token_to_id(_token_text(token)) if token else None
        return None if number is None else int(number)


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


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises plain Exception
        raise TokenizerFileError(f"{path} is no readable tokenizer ({exc}). Fetch the model again.") from exc


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as exc:
        raise TokenizerFileError(f"{path} is no readable JSON ({exc}). Fetch the model again, or mend the file.") from exc
    return value if isinstance(value, dict) else {}


def _ids(*values: Any) -> tuple[int, ...]:
    """All ids in numbers and lists of numbers, without duplicates."""
    ids: dict[int, None] = {}
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                ids[one] = None
    return tuple(ids)


def _token_text(token: Any) -> str:
    """A special token as tokenizer_config.json writes it: a string, or an object with its content."""
    return str(token.get("content", "") if isinstance(token, Mapping) else token or "")


def _template_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own (newer models), or a field; of several named ones, the default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = _json(folder / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(template, list):
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _compile(source: str | None) -> Any:
    """The template, compiled in a sandbox with the three functions that templates on the Hugging Face hub expect."""
    if source is None:
        return None
    from jinja2.exceptions import TemplateError as JinjaError
    from jinja2.exceptions import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise JinjaError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as exc:
        raise TokenizerFileError(
            f"the model's chat template is no Jinja (line {exc.lineno}: {exc.message}). Fetch the model again, or mend it."
        ) from exc
