"""The tokens that tokenizer_config.json and its older companions name, made known to a tokenizer as transformers does. No templates here.

A tokenizer.json may know `<|im_end|>` as a word like others, or not at all, where a file beside it says that it is a special token:
without it a chat template's control tokens would be read letter by letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["add_named_tokens"]

#: The names that every tokenizer has for special tokens; others end in `_token`, too.
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def add_named_tokens(tokenizer: Any, config: Mapping[str, Any], special_map: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, str]:
    """Add to the tokenizer what the files name, and return the special tokens by the names that chat templates have for them.

    `config`: tokenizer_config.json; `special_map` and `added`: special_tokens_map.json and added_tokens.json, which count only where
    the first has no added_tokens_decoder. Raises ValueError.
    """
    legacy = config.get("added_tokens_decoder") is None
    named, extra = _special(config, special_map if legacy else {})
    written = _legacy(tokenizer, added, _texts(config, special_map, extra)) if legacy else _decoder(config["added_tokens_decoder"])
    flags = {token.content: token for _, token in written}
    by_number = dict(written)  # of two with one number the later one counts
    listed = [by_number[number] for number in sorted(by_number)]
    named = {name: flags.get(_content(token), token) for name, token in named.items()}
    known = {t.content for t in tokenizer.get_added_tokens_decoder().values()} | {t.content for t in listed}
    new = list(listed)
    for token in (*named.values(), *extra):
        if _content(token) not in known and token not in new:  # one text with two sets of flags is added twice: the later one counts
            new.append(token)
    contents = {_content(token) for token in named.values()}
    tokenizer.add_tokens([_added(token, special=_content(token) in contents) for token in new])
    return {name: _content(token) for name, token in named.items()}


def _special(config: Mapping[str, Any], special_map: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The special tokens that have a name, and those that have none: texts, or tokens where a file says how they are looked for."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    more = {n: v for n, v in config.items() if _names_token(n, v) and n not in _NAMES}
    own: dict[str, Any] = {n: v for n, v in more.items() if isinstance(v, str)}
    if isinstance(extra, Mapping):
        own, extra = {**own, **extra}, config.get("additional_special_tokens") or []
    own = {n: v for n, v in more.items() if isinstance(v, Mapping)} | (own or config.get("model_specific_special_tokens") or {})
    later = special_map.get("extra_special_tokens")
    if isinstance(later, Mapping):
        own |= later
    elif isinstance(later, list):
        extra = [*extra, *(t for t in later if t not in extra)]
    elif not extra:
        extra = special_map.get("additional_special_tokens") or []
    if not isinstance(extra, list):
        raise ValueError("extra_special_tokens is not a list of tokens")  # noqa: TRY004 - a file is wrong, not an argument
    values = {name: config[name] for name in config if name in _NAMES} | own
    named = {n: _token(v, n) for n, v in values.items() if v and not special_map.get(n)}
    named |= {n: _token(v, n, special=True) for n, v in special_map.items() if v and (n in _NAMES or _names_token(n, v))}
    order = {name: i for i, name in enumerate(_NAMES)}
    named = dict(sorted(named.items(), key=lambda item: order.get(item[0], len(order))))
    return named, [_token(t, "extra_special_tokens") for t in extra]


def _decoder(entries: Any) -> list[tuple[int, Any]]:
    """The tokens of added_tokens_decoder, with their numbers."""
    if not isinstance(entries, Mapping) or not all(str(number).isdecimal() for number in entries):
        raise ValueError("added_tokens_decoder is not an object of tokens by their ids")
    if not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise ValueError("added_tokens_decoder holds something that is not a token")
    return [(int(number), _token(entry, "added_tokens_decoder")) for number, entry in entries.items()]


def _names_token(name: str, value: Any) -> bool:
    """Whether a field names a token: `add_bos_token` does not."""
    return name.endswith("_token") and isinstance(value, str | Mapping)


def _texts(config: Mapping[str, Any], special_map: Mapping[str, Any], extra: list[Any]) -> set[str]:
    """What is special in added_tokens.json: the tokens that the other files name by their text, and the objects of the second."""
    values = {**config, **{n: _content(_token(v, n)) for n, v in special_map.items() if n in _NAMES and v}}
    return {v for n, v in values.items() if n in _NAMES and isinstance(v, str)} | {_content(t) for t in extra}


def _legacy(tokenizer: Any, added: Mapping[str, Any], special: set[str]) -> list[tuple[int, Any]]:
    """The tokens of added_tokens.json, and after them those of tokenizer.json, with their numbers."""
    if strange := next((content for content, number in added.items() if not isinstance(number, int) or isinstance(number, bool)), None):
        raise ValueError(f"{strange!r:.40} has no id in added_tokens.json")
    written = [
        (n, _token({"content": c, "special": c in special, "normalized": c not in special}, "added_tokens.json")) for c, n in added.items()
    ]
    return [*written, *tokenizer.get_added_tokens_decoder().items()]


def _token(value: Any, name: str, *, special: bool = False) -> Any:
    """A token as these files write it: a text as it is, an object as a token of its flags."""
    from tokenizers import AddedToken

    if isinstance(value, str):
        return value
    flags = {flag: value[flag] for flag in _FLAGS if value.get(flag) is not None} if isinstance(value, Mapping) else {}
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str) or not all(isinstance(v, bool) for v in flags.values()):
        raise ValueError(f"{name} holds something that is not a token")
    return AddedToken(value["content"], **(flags | ({"special": True} if special else {})))


def _content(token: Any) -> str:
    return token if isinstance(token, str) else str(token.content)


def _added(token: Any, *, special: bool) -> Any:
    from tokenizers import AddedToken

    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = token.special or special
    return token
