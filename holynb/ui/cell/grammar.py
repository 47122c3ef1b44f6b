"""The line of a cell: `[NAME << | NAME= <<] [ROUTE] [options]`, and its help, both derived from the table of options. Knows no IPython.

It is split as by a shell, except that a quote opens only where a word or a value begins and closes only where it ends, and a backslash
is literal: `don't` and `C:\\new\\rows.csv` stay as typed.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holynb.config import PLANNED, TABLE, Option, keys, option_words
from holynb.errors import BadKey, BadOption
from holynb.ui.output.helplines import entry, wrapped

__all__ = ["FLAGS", "CellLine", "cell_help", "flag", "options_help", "parse", "parse_options", "split"]

FLAGS: Mapping[str, Option] = {flag: option for option in TABLE for flag in option.flags}
#: Where what an option does begins, in help.
OPTION_COLUMN = 31
#: Options that people try in order to pass a key.
KEY_FLAGS = ("key", "api-key", "apikey", "token", "api-token")

STRAIGHT, CURLY = ("'", '"'), ("“", "”", "‘", "’", "„", "«", "»")

_BIND = re.compile(r"\s*(?P<name>[^\s=<\"']+)\s*(?P<show>=?)\s*<<(?=\s|$)")
_UNMARKED = re.compile(r"(?P<name>[^\s=<\"'/]+)\s*(?P<sign>=(?!=)|<{1,2}(?!<)) ?(?P<rest>[^=<]*)$")
_WORD = re.compile(r"""\s*(?P<head>[^\s"'=]*=)?(?:"(?P<double>(?:\\"|[^"])*?)"|'(?P<single>.*?)')(?=\s|$)|\s*(?P<plain>\S+)""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CellLine:
    """A parsed line. `name` is bound to the value, silently unless `show`; `options` as typed, for `Options.parse`."""

    name: str | None = None
    show: bool = True
    route: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def parse(line: str, *, route: bool = True) -> CellLine:
    """Parse a line. Raises BadOption (unknown option with the nearest name, missing value) or BadKey (a literal key)."""
    name, show, rest = _binding(line)
    options, positional = parse_options(split(rest))
    if route and (meant := _unmarked_name(positional)):
        raise BadOption(meant)
    if len(positional) > int(route):
        raise BadOption(_too_many(positional, int(route), options))
    return CellLine(name, show, positional[0] if positional else None, options)


def _too_many(positional: Sequence[str], max_words: int, options: Mapping[str, Any]) -> str:
    """The error message for a line with more words than a route and options."""
    word = positional[max_words]
    values = [value for value in options.values() if isinstance(value, str)]
    if curly := next((each for each in (*values, *positional) if each[:1] in CURLY), None):
        return f"{curly} begins with a curly quote, as text programs make them. Type it straight: \" or '."
    if unclosed := next((each for each in (*values, word) if each[:1] in STRAIGHT), None):
        return f"A quote is not closed: {unclosed if unclosed != word else ' '.join(positional[max_words:])}"
    return f"Unexpected argument {word!r}: the line takes one route and options. The prompt goes below it."


def _unmarked_name(positional: Sequence[str]) -> str | None:
    """What to write where a name stands before the route without its `<<`: `a= vllm/m`, `a = vllm/m`, `a <<vllm/m`, `a=vllm/m`."""
    match = _UNMARKED.match(" ".join(positional))
    if match is None or not match["name"].isidentifier():
        return None
    name, rest = match["name"], match["rest"]
    if match["sign"] == "=":
        shown, kept = f"{name}= << {rest}".rstrip(), f"{name} << {rest}".rstrip()
        return f"<< is missing after {name}=. Write {shown} to name the result and show it, or {kept} to name it alone."
    return f"To name the result, write << between two spaces: {name} << {rest}".rstrip()


def parse_options(tokens: Sequence[str], flags: Mapping[str, Option] = FLAGS) -> tuple[dict[str, Any], list[str]]:
    """Split tokens into options (name → value as typed) and positional words. Raises as `parse`."""
    options: dict[str, Any] = {}
    positional: list[str] = []
    remaining = list(tokens)
    while remaining:
        token = remaining.pop(0)
        _refuse_key(token)
        if not _is_flag(token):
            positional.append(token)
            continue
        flag, equals, value = token.partition("=") if token.startswith("--") else (token, "", "")
        option = _option(flag, flags)
        if option.metavar is None:
            if equals:
                raise BadOption(f"{flag} is a switch and takes no value.")
            options[option.name] = not option.on_by_default
            continue
        if not equals:
            if not remaining or (_is_flag(remaining[0]) and remaining[0].partition("=")[0] in flags):
                raise BadOption(f"{flag} needs a value: {flag} {option.metavar} ({option.help}).")
            value = remaining.pop(0)
        _refuse_key(value)
        if value.endswith(",") and remaining and not _is_flag(remaining[0]) and ("," in option.metavar or option.name == "schema"):
            raise BadOption(f"{flag} takes a list without spaces: {flag} {value}{remaining[0]}")
        options[option.name] = [*options.get(option.name, []), value] if option.repeatable else value
    return options, positional


def split(line: str) -> list[str]:
    """Split a line into words. `"…"` and `'…'` may contain white space; in double quotes `\\"` is a quote; every other backslash stays."""
    out: list[str] = []
    for match in _WORD.finditer(line):
        if match["plain"] is not None:
            out.append(match["plain"])
        else:
            inner = match["single"] if match["double"] is None else match["double"].replace('\\"', '"')
            out.append((match["head"] or "") + inner)
    return out


def cell_help(command: str = "%%infer") -> str:
    """The text of `%%infer?`: the grammar and every option."""
    prose = (
        "Send the body to a model; the value is a pandas DataFrame with a row per prompt.\n"
        "A line of exactly --- separates prompts; -l makes each non-blank line one; --df NAME renders the body once per row.\n"
        "{{ name }} reads a notebook variable, or a column with --df. ROUTE is provider/model or an alias.\n"
        "NAME << binds the value silently, NAME= << binds and shows it."
    )
    return f"{command} [NAME << | NAME= <<] [ROUTE] [options]\nprompt\n\n{wrapped(prose)}\n\n{options_help()}"


def flag(name: str) -> str:
    """The flag of the option with this Python name."""
    return next(o.flags[-1] for o in TABLE if o.name == name)


def options_help() -> str:
    """The table of options as text, by group."""
    out: list[str] = []
    for group in dict.fromkeys(o.group for o in TABLE):
        out.append(f"{group}:")
        for option in (o for o in TABLE if o.group == group):
            syntax = ", ".join(option.flags) + (f" {option.metavar}" if option.metavar else "")
            out.append(entry(syntax, option.help, OPTION_COLUMN))
    return "\n".join(out) + "\n"


def _binding(line: str) -> tuple[str | None, bool, str]:
    match = _BIND.match(line)
    if match is None:
        if re.search(r"(^|\s)<<(\s|$)", line):
            raise BadOption("NAME << comes first on the line: %%infer NAME << ROUTE --options")
        return None, True, line
    name = match["name"]
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadOption(f"{name!r} cannot be a variable's name. Write %%infer NAME << ROUTE --options")
    return name, bool(match["show"]), line[match.end() :]


def _is_flag(token: str) -> bool:
    """`--word` or `-x`; not a negative number and not a lone dash."""
    return bool(re.match(r"--?[A-Za-z]", token))


def _option(flag: str, flags: Mapping[str, Option]) -> Option:
    if flag in flags:
        return flags[flag]
    if flag.lstrip("-").replace("_", "-") in KEY_FLAGS:
        raise BadKey(f"{flag}: do not write a key on the line, the notebook would keep it. Use %infer key PROVIDER, or --api-key-name ENV.")
    if flag in PLANNED:
        raise BadOption(f"{flag}: {PLANNED[flag]}.")
    if flag == "--model" and flags is FLAGS:
        raise BadOption("There is no --model: the route stands alone, such as %%infer openai/gpt-6-luna --df reviews.")
    where = "%%infer? lists them." if flags is FLAGS else f"Known: {', '.join(dict.fromkeys(o.flags[-1] for o in flags.values()))}."
    raise BadOption(f"There is no option {flag}.{option_words.nearest(flag, flags)} {where}")


def _refuse_key(token: str) -> None:
    """Raises BadKey for a token that looks like a key: typed into a cell, it would be saved with the notebook."""
    if keys.looks_like_key(token) or keys.looks_like_key(token.rpartition("=")[2]):
        raise BadKey("This line holds what looks like an API key, and the notebook would keep it. Remove it and use %infer key PROVIDER.")
