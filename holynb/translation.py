"""What a person reads, in Korean where that is chosen, with the English behind it in brackets, so that it can be searched for.

All code writes and raises English; whoever shows it asks here. Knows no settings: `choose` takes who knows the language. The table,
`ko.toml`, is read when something is first to be said in Korean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

__all__ = ["brief", "choose", "head", "heads", "page", "say", "table"]

_chosen: Callable[[], str] | None = None

#: The sections of the table: labels of the panel, summaries of `%infer help`, messages, and pieces that stand in messages.
SECTIONS = ("label", "help", "message", "part")
#: `{name}`; other braces stand for themselves.
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
#: Placeholders that stand for less than any text.
_KINDS = {"n": "[0-9,]+", "route": r"\S+", "way": r"(?:[^.]|\.(?=\d))+", "_were": "was|were"}
_Patterns = list[tuple[re.Pattern[str], str]]
_SENTENCE_END = re.compile(r"(?<=[.?]) (?=[A-Z%-])")


def choose(language: Callable[[], str] | None) -> None:
    """Say everything in the language that this names, now and whenever it names another; None: in English."""
    global _chosen  # noqa: PLW0603 - one process speaks one language
    _chosen = language


def say(text: str) -> str:
    """`text` as it is to be shown: unchanged in English; what the table knows of it, line by line, in Korean."""
    if not (_korean_is_chosen() and text):
        return text
    return "\n".join(f"{korean} ({line})" if (korean := _korean(line.strip())) else line for line in text.split("\n"))


def head(text: str) -> str:
    """The head of a table's column, such as the name of a result's: unchanged in English; with its Korean before it where that is known."""
    if not _korean_is_chosen() or not (korean := heads().get(text)):
        return text
    return f"{korean} ({text})"


def brief(text: str) -> str:
    """What stands in a live view or a chart, as it is to be shown: in Korean without the English behind it, for which there is no room."""
    return _translated(text, *_compiled_page()) or text if _korean_is_chosen() and text else text


def page() -> Mapping[str, str]:
    """English → Korean of what a view's scripts say, with the same {placeholders}; empty in English."""
    return {**heads(), **_page()} if _korean_is_chosen() else {}


def _korean_is_chosen() -> bool:
    return _chosen is not None and _chosen() == "ko"


@lru_cache(maxsize=1)
def heads() -> Mapping[str, str]:
    """English → Korean. Apart from the rest: in a message such a word is a person's own, the name of a column or a variable."""
    return {entry["en"]: entry["ko"] for entry in _document().get("head", [])}


@lru_cache(maxsize=1)
def _page() -> Mapping[str, str]:
    return {entry["en"]: entry["ko"] for entry in _document().get("page", [])}


def table() -> Mapping[str, Mapping[str, str]]:
    """Section → English → Korean, with the same {placeholders} in both, but for those that begin with _: Korean has no plural."""
    document = _document()
    return {section: {entry["en"]: entry["ko"] for entry in document.get(section, [])} for section in SECTIONS}


def _document() -> Mapping[str, list[dict[str, str]]]:
    import tomllib

    with (Path(__file__).parent / "ko.toml").open("rb") as file:
        return tomllib.load(file)


@lru_cache(maxsize=256)
def _korean(line: str) -> str | None:
    """The Korean of a whole line; None where the table does not know it."""
    return _translated(line, *_compiled(), piece=_piece)


def _translated(line: str, exact: Mapping[str, str], patterns: _Patterns, piece: Callable[[str], str] = lambda value: value) -> str | None:
    if line in exact:
        return exact[line]
    for pattern, korean in patterns:
        if match := pattern.fullmatch(line):
            values = match.groupdict()
            return _PLACEHOLDER.sub(lambda placeholder: piece(values[placeholder[1]]), korean)  # noqa: B023 - called here and now
    return None


def _piece(value: str) -> str:
    """What stands in the place of a placeholder: a message of its own, or a name, a number, a server's words."""
    text = value.lstrip()
    korean = _korean(text) or (_korean(f"{text}.") or "").removesuffix(".")
    korean = korean or " ".join(_korean(sentence) or sentence for sentence in _SENTENCE_END.split(text))
    return value.removesuffix(text) + korean


@lru_cache(maxsize=1)
def _compiled() -> tuple[dict[str, str], _Patterns]:
    return _divided({en: ko for section in table().values() for en, ko in section.items()})


@lru_cache(maxsize=1)
def _compiled_page() -> tuple[dict[str, str], _Patterns]:
    # The longest first: of "{n} of {total}" and "{n} of them thought" the second is meant where both fit.
    return _divided(dict(sorted(_page().items(), key=lambda line: -len(_PLACEHOLDER.sub("", line[0])))))


def _divided(lines: Mapping[str, str]) -> tuple[dict[str, str], _Patterns]:
    """Lines that are the same every time, and patterns of those that are not."""
    exact = {en: ko for en, ko in lines.items() if "{" not in en}
    return exact, [(_pattern(en), ko) for en, ko in lines.items() if "{" in en]


def _pattern(english: str) -> re.Pattern[str]:
    """A line with any text in the place of each placeholder, the same where the name is the same."""
    words, seen = [], set[str]()
    for i, word in enumerate(_PLACEHOLDER.split(english)):
        if i % 2 == 0:
            words.append(re.escape(word))
        else:
            words.append(f"(?P={word})" if word in seen else f"(?P<{word}>{_KINDS.get(word, '.*?')})")
            seen.add(word)
    return re.compile("".join(words))
