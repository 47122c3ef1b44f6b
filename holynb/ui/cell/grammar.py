"""The line of a cell: `[NAME << | NAME= <<] [ROUTE] [options]`, and its help, both made from the table of options. Knows no IPython.

Splitting is a shell's as far as a notebook can bear it: a quote opens only where a word or a value begins and closes only where it ends,
so `don't` and `C:\\new\\rows.csv` stay as typed.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holynb.config import PLANNED, TABLE, Option, keys
from holynb.errors import BadKey, BadOption, closest

__all__ = ["FLAGS", "CellLine", "cell_help", "flag", "options_help", "parse", "split", "words"]

FLAGS: Mapping[str, Option] = {flag: option for option in TABLE for flag in option.flags}
#: What people write who want to give a key.
KEYS = ("key", "api-key", "apikey", "token", "api-token")

_BIND = re.compile(r"\s*(?P<name>[^\s=<\"']+)\s*(?P<show>=?)\s*<<(?=\s|$)")
_WORD = re.compile(r"""\s*(?P<head>[^\s"'=]*=)?(?:"(?P<double>(?:\\"|[^"])*?)"|'(?P<single>.*?)')(?=\s|$)|\s*(?P<plain>\S+)""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CellLine:
    """What the line said. `name` is bound to the value, silently unless `show`; `said` goes to `Options.parse`."""

    name: str | None = None
    show: bool = True
    route: str | None = None
    said: Mapping[str, Any] = field(default_factory=dict)


def parse(line: str, *, route: bool = True) -> CellLine:
    """Read a line. Raises BadOption (unknown option with the nearest name, missing value) or BadKey (a literal key)."""
    name, show, rest = _binding(line)
    said, left = words(split(rest))
    if len(left) > int(route):
        raise BadOption(_too_many(left, int(route)))
    return CellLine(name, show, left[0] if left else None, said)


def _too_many(left: Sequence[str], most: int) -> str:
    """What is wrong with a line that has more than a route and options."""
    word = left[most]
    if word[0] in "\"'":
        return f"A quote is opened and not closed: {' '.join(left[most:])}"
    if word in ("=", "<") and left[0].isidentifier():
        return f"To name the result, write << after the name: {left[0]} << {' '.join(left[most + 1 :])}".rstrip()
    return f"{word!r} is one word too many: the line takes one route and options. The prompt goes below it."


def words(tokens: Sequence[str], flags: Mapping[str, Option] = FLAGS) -> tuple[dict[str, Any], list[str]]:
    """Tokens → what the options in `flags` said by name, and the words that belong to none. Raises as `parse`."""
    said: dict[str, Any] = {}
    left: list[str] = []
    todo = list(tokens)
    while todo:
        token = todo.pop(0)
        _refuse_key(token)
        if not _is_flag(token):
            left.append(token)
            continue
        flag, equals, value = token.partition("=") if token.startswith("--") else (token, "", "")
        option = _option(flag, flags)
        if option.metavar is None:
            if equals:
                raise BadOption(f"{flag} is a switch and takes no value.")
            said[option.name] = option.name != "cache"
            continue
        if not equals:
            if not todo or (_is_flag(todo[0]) and todo[0].partition("=")[0] in flags):
                raise BadOption(f"{flag} needs a value: {flag} {option.metavar} ({option.help}).")
            value = todo.pop(0)
        _refuse_key(value)
        said[option.name] = [*said.get(option.name, []), value] if option.repeatable else value
    return said, left


def split(line: str) -> list[str]:
    """Words of a line. `"…"` and `'…'` hold white space; in double quotes `\\"` is a quote; every other backslash stays."""
    out: list[str] = []
    for found in _WORD.finditer(line):
        if found["plain"] is not None:
            out.append(found["plain"])
        else:
            inner = found["single"] if found["double"] is None else found["double"].replace('\\"', '"')
            out.append((found["head"] or "") + inner)
    return out


def cell_help(command: str = "%%infer") -> str:
    """What `%%infer?` prints: the grammar and every option."""
    return (
        f"{command} [NAME << | NAME= <<] [ROUTE] [options]\nprompt\n\n"
        "Send the body to a model; the value is a pandas DataFrame with a row per prompt.\n"
        "A line of exactly --- separates prompts; -l makes each non-blank line one; --df NAME renders the body once per row.\n"
        "{{ name }} reads a notebook variable, or a column with --df. ROUTE is provider/model or an alias.\n"
        f"NAME << binds the value silently, NAME= << binds and shows it.\n\n{options_help()}"
    )


def flag(name: str) -> str:
    """How the option of this Python name is written."""
    return next(o.flags[-1] for o in TABLE if o.name == name)


def options_help() -> str:
    """The table of options, by group."""
    out: list[str] = []
    for group in dict.fromkeys(o.group for o in TABLE):
        out.append(f"{group}:")
        for option in (o for o in TABLE if o.group == group):
            said = ", ".join(option.flags) + (f" {option.metavar}" if option.metavar else "")
            out.append(f"  {said:<28} {option.help}")
    return "\n".join(out) + "\n"


def _binding(line: str) -> tuple[str | None, bool, str]:
    found = _BIND.match(line)
    if found is None:
        if re.search(r"(^|\s)<<(\s|$)", line):
            raise BadOption("NAME << comes first on the line: %%infer NAME << ROUTE --options")
        return None, True, line
    name = found["name"]
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadOption(f"{name!r} cannot be a variable's name. Write %%infer NAME << ROUTE --options")
    return name, bool(found["show"]), line[found.end() :]


def _is_flag(token: str) -> bool:
    """`--word` or `-x`; not a negative number and not a lone dash."""
    return bool(re.match(r"--?[A-Za-z]", token))


def _option(flag: str, flags: Mapping[str, Option]) -> Option:
    if flag in flags:
        return flags[flag]
    if flag.lstrip("-").replace("_", "-") in KEYS:
        raise BadKey(
            f"{flag}: a key does not go on the line, because a notebook keeps its lines. Use %infer key PROVIDER, or --api-key-name ENV."
        )
    if flag in PLANNED:
        raise BadOption(f"{flag}: {PLANNED[flag]}.")
    where = "%%infer? lists them." if flags is FLAGS else f"Known: {', '.join(dict.fromkeys(o.flags[-1] for o in flags.values()))}."
    raise BadOption(f"There is no option {flag}.{closest(flag, flags)} {where}")


def _refuse_key(token: str) -> None:
    """A key typed into a cell would be saved with the notebook."""
    if keys.looks_like_key(token) or keys.looks_like_key(token.rpartition("=")[2]):
        raise BadKey("This line holds what looks like an API key, and a notebook keeps its lines. Take it out and use %infer key PROVIDER.")
