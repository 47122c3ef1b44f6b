"""What can be typed and what comes back, word by word: options, columns, settings, variables.

For `%infer help WORD`, and one page of them all. The tables of the code say most of it; `reference.toml` says the rest. Knows no IPython.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from holynb.config import TABLE, Option
from holynb.config.providers import Provider, table, variable_prefix
from holynb.ui.output.helplines import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Entry", "closest_words", "entries", "find", "help_lines", "page"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One word: what kind of thing it is, how it is written, what it does, and an example where it is typed."""

    kind: str
    word: str
    written: str
    text: str
    example: str = ""
    also: tuple[str, ...] = ()
    """Other spellings that find it."""


#: Kind → its heading on the page and what stands below that.
KINDS: Mapping[str, tuple[str, str]] = {
    "option": (
        "Options of a cell",
        "The same words are arguments of `holynb.infer`, with underscores: `--max-tokens 200` is `max_tokens=200`.",
    ),
    "option of a pool": ("Options of a pool", "Of `%infer pool start` and `%infer pool plan`, and of `holynb pool` in a terminal."),
    "column": (
        "Columns of a result",
        "Their types never depend on the answers. With `--schema` each of its properties is one more column.",
    ),
    "status": ("What status says", "A word for each row."),
    "kind of error": ("What error_type says", "Of a row that has no answer: what failed, and what to do."),
    "finish reason": ("What finish_reason says", "Providers' own words are read as these."),
    "index": ("Levels of a result's index", "The first is the input's own."),
    "word": ("Words", "Of the panel, the charts and the messages."),
    "setting": (
        "Settings",
        "In `config.toml` in `HOLYNB_HOME`, or under `[tool.holynb]` in a project's `pyproject.toml`; the project's wins, `%config` above both.",
    ),
    "variable": ("Variables of the environment", "Addresses and keys may stand in a `.env`, too."),
}


#: Kinds whose words a result says of itself → their section.
SAID: Mapping[str, str] = {"status": "statuses", "kind of error": "errors", "finish reason": "finishes"}


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Every word, in the order of the page."""
    from holynb.ui.commands.pool import PLAN_OPTIONS, START_OPTIONS

    written = tomllib.loads((files("holynb.ui") / "reference.toml").read_text("utf-8"))
    pools = {option.name: option for option in (*START_OPTIONS, *PLAN_OPTIONS)}
    return (
        *(_option(option, "option", written["options"].get(option.name, "")) for option in TABLE),
        *(_option(option, "option of a pool") for option in pools.values()),
        *(Entry("column", name, name, text) for name, text in written["columns"].items()),
        *(Entry(kind, name, name, text) for kind, section in SAID.items() for name, text in written[section].items()),
        *(Entry("word", name, name, text, also=_spellings(name)) for name, text in written["words"].items()),
        *(Entry("index", name, name, text) for name, text in written["index"].items()),
        *(Entry("setting", name, name, text) for name, text in written["settings"].items()),
        *(Entry("variable", name, name, text) for name, text in written["variables"].items()),
        *(entry for provider in table().values() for entry in _of_provider(provider)),
    )


def _option(option: Option, kind: str, example: str = "") -> Entry:
    value = f" {option.metavar}" if option.metavar else ""
    return Entry(kind, option.flags[-1], ", ".join(option.flags) + value, option.help, example, (*option.flags, option.name))


def _spellings(name: str) -> tuple[str, ...]:
    """How else a word of the panel is typed: `ttft`, `stages`."""
    return (name.lower(), f"{name}s")


def _of_provider(provider: Provider) -> list[Entry]:
    """The variables of its key and its address."""
    out = [Entry("variable", provider.key, provider.key, f"The key of {provider.name}.")] if provider.key else []
    if provider.wire not in ("pool", "sim"):
        name = f"{variable_prefix(provider.name)}_BASE_URL"
        out.append(Entry("variable", name, name, f"Another address of {provider.name}."))
    return out


def find(word: str) -> tuple[Entry, ...]:
    """What has this name: `--df`, `df`, `-n`, `tokens_in`, `trust.hosts`, `HOLYNB_HOME`. Options of a cell before those of a pool."""
    return tuple(e for e in entries() if word == e.word or word in e.also)


def closest_words() -> list[str]:
    """What `find` knows, for a hint."""
    return [e.word for e in entries()]


def help_lines(words: Sequence[Entry]) -> str:
    """Entries as help in a terminal."""
    parts = []
    for entry in words:
        lines = [wrapped(entry.written, "", "      ") + f"  ({entry.kind})", wrapped(entry.text, "  ")]
        if entry.example:
            lines.append(wrapped(f"for example: {entry.example}", "  ", "      "))
        parts.append("\n".join(lines))
    return "\n".join(parts)


def page(commands: Mapping[str, tuple[str, str]]) -> str:
    """All of it as Markdown; `commands`: word of `%infer` → how it is written, and its help."""
    out = [
        "# Reference",
        "",
        "Every option, column, word of `%infer`, setting and variable. `%infer help WORD` says the same in a notebook.",
        "Written by `holynb reference`; a test holds it against the code.",
        "",
        "## Words of %infer",
        "",
    ]
    for written, text in commands.values():
        summary, _, more = text.partition("\n")
        out += [
            f"- `%infer {written}`: {summary}.",
            *(["", "  ```text", *(f"  {line}".rstrip() for line in more.split("\n")), "  ```", ""] if more else []),
        ]
    for kind, (heading, below) in KINDS.items():
        out += ["", f"## {heading}", "", below, "", "| | |", "|---|---|"]
        for entry in (e for e in entries() if e.kind == kind):
            example = f"<br>`{_cell(entry.example)}`" if entry.example else ""
            out.append(f"| `{_cell(entry.written)}` | {_cell(entry.text)}{example} |")
    return "\n".join(out) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
