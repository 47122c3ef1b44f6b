"""The files of a model that say how text becomes tokens and how answers begin and end, with all that they say. Knows no requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holynb.pool.fit import decoder_of
from holynb.pool.modelfields import FieldRefused, check, unknown
from holynb.pool.modelfiles import read_object, read_text, whole
from holynb.pool.server.chat_template import ChatTemplate, compiled
from holynb.pool.server.generation import GenerationDefaults, read_defaults
from holynb.pool.server.special_tokens import add_named_tokens

__all__ = ["TokenizerFileError", "TokenizerFiles", "read_files", "template_source"]

#: The largest tokenizers have 40 MB, the longest templates 50 kB.
_MAX_TOKENIZER_BYTES, _MAX_TEMPLATE_BYTES = 256_000_000, 1_000_000
_MAX_TEMPLATES = 64

#: What ends an answer where no file says it: of transformers' configuration classes.
_FAMILY_ENDS = {
    **dict.fromkeys(("LlamaForCausalLM", "MistralForCausalLM", "GraniteForCausalLM"), 2),
    **dict.fromkeys(("Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), 1),
    **dict.fromkeys(("Olmo2ForCausalLM", "Olmo3ForCausalLM"), 50279),
    "Phi3ForCausalLM": 32000,
    "SmolLM3ForCausalLM": 128001,
}

_AGAIN = "Fetch the model again, or fix the file."


class TokenizerFileError(Exception):
    """A file of the tokenizer cannot be read; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files say. `vocab`: tokens of the model, 0 where it is not said; `controls`: further tokens that no message may forge."""

    tokenizer: Any
    template: ChatTemplate | None
    controls: frozenset[str]
    eos: tuple[int, ...]
    vocab: int
    context: int
    defaults: GenerationDefaults
    unread: tuple[str, ...]
    """A line for each file that says what has no row in the list of fields."""


def read_files(folder: Path) -> TokenizerFiles:
    """What a model's folder says of its tokens. Raises TokenizerFileError."""
    tokenizer = _tokenizer(folder / "tokenizer.json")
    config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    own = _json(folder / "tokenizer_config.json")
    names = _named_tokens(folder, tokenizer, own)
    vocab, context = _sizes(folder, decoder_of(config))
    listed = own.get("chat_control_tokens")
    return TokenizerFiles(
        tokenizer,
        _compile(_template_of(folder, own), names),
        frozenset(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else frozenset(),
        _ends(folder, generation, config, tokenizer.token_to_id(names["eos_token"]) if "eos_token" in names else None),
        vocab,
        context,
        _defaults(folder, generation, vocab or int(tokenizer.get_vocab_size())),
        _unread(config, generation, own),
    )


def template_source(folder: Path) -> str | None:
    """The chat template of a folder; None where it has none. Raises TokenizerFileError."""
    return _template_of(folder, _json(folder / "tokenizer_config.json"))


def _sizes(folder: Path, config: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the vocabulary (0: not said) and of the context."""
    try:
        return whole(config, "vocab_size", 0, 2**31 - 1, 0), whole(config, "max_position_embeddings", 1, 2**31 - 1, 2048)
    except ValueError as exc:
        raise TokenizerFileError(f"{folder / 'config.json'}: {exc}. {_AGAIN}") from exc


def _defaults(folder: Path, generation: Mapping[str, Any], vocab: int) -> GenerationDefaults:
    try:
        return read_defaults(generation, vocab)
    except FieldRefused as exc:
        raise TokenizerFileError(f"{exc}. Take it out of {folder / 'generation_config.json'} to have answers without it.") from exc
    except ValueError as exc:
        raise TokenizerFileError(f"{folder / 'generation_config.json'}: {exc}. {_AGAIN}") from exc


def _named_tokens(folder: Path, tokenizer: Any, config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that the files beside tokenizer.json name, added to the tokenizer."""
    try:
        check("tokenizer_config.json", config)
        return add_named_tokens(tokenizer, config, _json(folder / "special_tokens_map.json"), _json(folder / "added_tokens.json"))
    except FieldRefused as exc:
        raise TokenizerFileError(f"{exc}. Take it out of {folder / 'tokenizer_config.json'}, or take another model.") from exc
    except ValueError as exc:
        raise TokenizerFileError(f"{folder / 'tokenizer_config.json'}: {exc}. {_AGAIN}") from exc


def _unread(config: Mapping[str, Any], generation: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """What the list of fields does not know, a line for each file. Refusals are for those who read a file."""
    lines = []
    for file, data in (("config.json", config), ("generation_config.json", generation), ("tokenizer_config.json", tokenizer)):
        if names := unknown(file, data):
            lines.append(f"{file} says {', '.join(names)[:500]}, which the pool does not know")
    return tuple(lines)


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(read_text(path, _MAX_TOKENIZER_BYTES))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # the library raises plain Exception, and where it panics something that is none
        reason = " ".join(str(exc).split())[:200]
        raise TokenizerFileError(f"{path} is not a readable tokenizer ({reason}). Fetch the model again.") from exc
    # A file may say all three; a prompt is neither cut nor filled up, and the same text has the same tokens.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return read_object(path)
    except (ValueError, OSError) as exc:
        raise TokenizerFileError(f"{path} is not readable JSON ({exc}). {_AGAIN}") from exc


def _ends(folder: Path, generation: Mapping[str, Any], config: Mapping[str, Any], own: int | None) -> tuple[int, ...]:
    """The tokens that end an answer: those of every file, or else the family's."""
    named = [*_ids(folder / "generation_config.json", generation), *_ids(folder / "config.json", config)]
    ends = dict.fromkeys([*named, *_ids(folder / "config.json", decoder_of(config))])
    if own is not None:
        ends[own] = None
    families = config.get("architectures")
    family = families[0] if isinstance(families, list) and families else None
    return tuple(ends) or ((_FAMILY_ENDS[family],) if isinstance(family, str) and family in _FAMILY_ENDS else ())


def _ids(path: Path, data: Mapping[str, Any]) -> list[int]:
    """The end tokens that a file says: none, one, or a list. A number that no token has (-1) ends nothing."""
    value = data.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(one, int) or isinstance(one, bool) for one in ids):
        raise TokenizerFileError(f"{path}: eos_token_id is neither a token id nor a list of token ids. {_AGAIN}")
    return [one for one in ids if 0 <= one < 2**31]


def _template_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own (newer models), or a field; of several named ones, the default."""
    path, more = folder / "chat_template.jinja", sorted((folder / "additional_chat_templates").glob("*.jinja"))
    named: Any = {file.stem: file for file in more[:_MAX_TEMPLATES]} | ({"default": path} if path.is_file() else {})
    template: Any = _one_of(folder, named) if named else None
    if template is not None:
        try:
            return read_text(template, _MAX_TEMPLATE_BYTES)
        except (ValueError, OSError) as exc:
            raise TokenizerFileError(f"{template} is not a readable chat template ({exc}). {_AGAIN}") from exc
    # The older file is a processor's: transformers' tokenizers read the field, and never that file.
    template = config.get("chat_template") or _json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        template = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
    if isinstance(template, Mapping) and template:
        template = _one_of(folder, template)
    return template if isinstance(template, str) else None


def _one_of(folder: Path, named: Mapping[Any, Any]) -> Any:
    """The default of several templates: the others are for tools, which a pool does not take."""
    if "default" not in named:
        names = ", ".join(str(name)[:40] for name in named)
        raise TokenizerFileError(f"{folder} has the chat templates {names}, and no default. Save the one to use as chat_template.jinja.")
    return named["default"]


def _compile(source: str | None, names: Mapping[str, str]) -> ChatTemplate | None:
    if source is None:
        return None
    try:
        return compiled(source, names)
    except ValueError as exc:
        raise TokenizerFileError(f"the model's chat template is not valid Jinja ({exc}). Fetch the model again, or fix it.") from exc
