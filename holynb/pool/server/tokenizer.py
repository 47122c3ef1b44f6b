"""Text ↔ token ids: the model's tokenizer, its chat template, and decoding as tokens come. Knows no torch and no sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["ChatTokenizer", "Detokenizer", "StopStrings", "TemplateError", "TextError"]

Message = Mapping[str, Any]

#: What a decoder shows for bytes that are no character (yet).
_BROKEN = "\ufffd"


class TemplateError(Exception):
    """The chat template refuses these messages, or the model has none."""


class TextError(Exception):
    """A file of the model's words cannot be read; one line that names it and says what to do."""


class ChatTokenizer:
    """One model's words. Reads its folder once; every method is pure and may be called from any thread. Raises TextError."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._said = _json(folder / "tokenizer_config.json")
        config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
        self.eos = _ids(generation.get("eos_token_id"), config.get("eos_token_id"), self._id_of(self._said.get("eos_token")))
        self.size: int = max(int(self._tokenizer.get_vocab_size()), int(config.get("vocab_size", 0)))
        self.context: int = int(config.get("max_position_embeddings", 2048))
        self.sampling = {k: generation[k] for k in ("temperature", "top_p", "top_k") if generation.get("do_sample") and k in generation}
        self._template = _compile(_template_of(folder, self._said))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, with what the tokenizer puts around it (a BOS token, for some)."""
        return list(self._tokenizer.encode(text).ids)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, up to where the assistant speaks. Raises TemplateError."""
        return list(self._tokenizer.encode(self.chat(messages), add_special_tokens=False).ids)

    def chat(self, messages: Sequence[Message]) -> str:
        """The conversation as the model's own template writes it. Raises TemplateError."""
        if self._template is None:
            raise TemplateError(
                "This model has no chat template: it continues text and holds no conversation. Take its instruct or chat version; "
                "on a pool with --port, /v1/completions continues text."
            )
        tokens = {k: _word(self._said.get(k)) for k in ("bos_token", "eos_token", "unk_token", "pad_token")}
        try:
            return str(self._template.render(messages=list(messages), add_generation_prompt=True, tools=None, documents=None, **tokens))
        except Exception as exc:  # a template is a program of the model's own, and fails in any way
            raise TemplateError(f"The model's chat template refuses these messages: {exc}") from exc

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _id_of(self, token: Any) -> int | None:
        found = self._tokenizer.token_to_id(_word(token)) if token else None
        return None if found is None else int(found)


class Detokenizer:
    """Ids as they come → text that never has to be taken back. `finish` gives what was held back.

    A character may be spread over tokens (Hangul, emoji), so text that ends in a broken one is held until it is whole.
    """

    def __init__(self, text: ChatTokenizer) -> None:
        self._text = text
        self._ids: list[int] = []
        self._from = 0  # decoding starts here: the tokens of the last text given out, which say whether a space comes between
        self._given = 0  # tokens whose text was given out

    def push(self, ids: Iterable[int], *, last: bool = False) -> str:
        """The text that `ids` complete."""
        self._ids += ids
        before = self._text.decode(self._ids[self._from : self._given])
        now = self._text.decode(self._ids[self._from :])
        if len(now) <= len(before) or (now.endswith(_BROKEN) and not last):
            return ""
        self._from, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        """What was held back and will not become whole any more."""
        return self.push((), last=True)


class StopStrings:
    """Cuts text at the first stop string, also where one is spread over pieces. Text that may begin one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [s for s in stops if s]
        self._held = ""
        self.hit = False
        self.any = bool(self._stops)

    def push(self, piece: str, *, last: bool = False) -> str:
        """What of the text so far is certainly before any stop. After a hit: nothing more."""
        if self.hit:
            return ""
        text = self._held + piece
        found = [at for s in self._stops if (at := text.find(s)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((_overlap(text, s) for s in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as exc:  # the library has no type of its own
        raise TextError(f"{path} is no readable tokenizer ({exc}). Fetch the model again.") from exc


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as exc:
        raise TextError(f"{path} is no readable JSON ({exc}). Fetch the model again, or mend the file.") from exc
    return value if isinstance(value, dict) else {}


def _ids(*values: Any) -> tuple[int, ...]:
    """All ids in numbers and lists of numbers, each once."""
    found: dict[int, None] = {}
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                found[one] = None
    return tuple(found)


def _word(token: Any) -> str:
    """A special token as tokenizer_config.json writes it: a string, or an object with its content."""
    return str(token.get("content", "") if isinstance(token, Mapping) else token or "")


def _template_of(folder: Path, said: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own (newer models), or a field; of several named ones, the default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = _json(folder / "chat_template.json").get("chat_template") or said.get("chat_template")
    if isinstance(found, list):
        found = next((t.get("template") for t in found if t.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _compile(source: str | None) -> Any:
    """The template in a sandbox, with the three functions that templates on the hub expect."""
    if source is None:
        return None
    from jinja2.exceptions import TemplateError as Refused
    from jinja2.exceptions import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise Refused(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as exc:
        raise TextError(
            f"the model's chat template is no Jinja (line {exc.lineno}: {exc.message}). Fetch the model again, or mend it."
        ) from exc
