"""Completion of a `%%infer` line: routes, options, columns, names of frames, runs and pools. In the body: what a template may name.

A matcher of IPython's completer. Without it jedi would parse prose as Python, which was measured to take seconds per key press.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from holynb.types import SERVICE_TIERS, THINK_LEVELS
from holynb.ui.cell import grammar, transform, wirefields

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult

__all__ = ["install", "remove", "suggest"]

MAGIC_NAMES = ("infer", "holynb")
FILE_OPTIONS = ("file", "out")
UPDATE_FLAGS = ("--take", "--from", "--remove")
ROUTE_OPTIONS = ("fallback", "spread", "compare", "judge", "price_as")


class _NoCompletions(list[Any]):
    """An empty list of length 1: IPython suppresses the other matchers only for a non-empty result."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def install(shell: Any, variables: Callable[[], Mapping[str, Any]], commands: Callable[[], Iterable[str]]) -> None:
    """Add the matcher to the shell's completer. `commands`: those of `%infer`. Idempotent."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(priority=1000)  # type: ignore[untyped-decorator]
    def infer_matcher(context: CompletionContext) -> SimpleMatcherResult:
        suggestions = suggest(
            context.full_text, context.cursor_line, context.cursor_position, context.token, variables=variables, commands=commands
        )
        if suggestions is None:
            return {"completions": []}
        words = [SimpleCompletion(text, type=kind) for text, kind in suggestions]
        return {"completions": words or _NoCompletions(), "suppress": True, "ordered": True}

    remove(shell)
    shell.Completer.custom_matchers.append(infer_matcher)


def remove(shell: Any) -> None:
    """Remove the matcher. Idempotent."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "__qualname__", "").split(".")[0] != install.__name__ or m.__module__ != __name__]


def suggest(
    text: str, row: int, column: int, token: str, *, variables: Callable[[], Mapping[str, Any]], commands: Callable[[], Iterable[str]]
) -> list[tuple[str, str]] | None:
    """(completion, kind) for the word before the cursor. Empty: no match, and other matchers stay silent. None: leave it to IPython."""
    whole = text.split("\n")
    lines = transform.uncovered(whole)
    row -= len(whole) - len(lines)  # comments above the magic
    if row < 0:
        return None
    head = lines[0].lstrip() if lines else ""
    name = head.lstrip("%").split(" ", 1)[0].rstrip("?")
    if name not in MAGIC_NAMES or not head.startswith("%"):
        return None
    cell = head.startswith("%%")
    if row > 0:
        here = whole[len(whole) - len(lines) + row][:column] if row < len(lines) else ""
        return _in_body(here, token, lines[0], variables) if cell else None
    before = whole[-len(lines)][:column].removeprefix("\ufeff").lstrip()
    if " " not in before:
        return None  # the magic's own name: IPython knows it
    typed = before.removesuffix(token)
    words = grammar.split(typed)[1:]
    if typed.endswith("="):
        words = [*words[:-1], words[-1].removesuffix("=")] if words else words
    if typed.endswith("=") and words[-2:-1] == ["-p"]:
        field = words.pop()
        return [(v, "value") for v in wirefields.values(_route(grammar.split(lines[0])[1:]), field) if v.startswith(token)]
    completer = _LineCompleter(variables, commands, grammar.split(lines[0])[1:])
    suggestions = completer.complete(words, token, cell=cell)
    return None if suggestions is None else [(t, k) for t, k in suggestions if t.lower().startswith(token.lower())]


def _in_body(here: str, token: str, line: str, variables: Callable[[], Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What a template may name at the end of `here`, inside `{{ … }}` or `{% … %}`; nothing elsewhere, where the body is prose."""
    from holynb.ui.cell import candidates

    start = max(here.rfind("{{"), here.rfind("{%"))
    inside = here[start + 2 :]
    words = grammar.split(line)[1:]
    if start < 0 or "}}" in inside or "%}" in inside or "--raw" in words or "." in token:
        return []
    if inside.removesuffix(token).rstrip().endswith(("|", '"', "'")):  # a filter, a string
        return []
    offered = candidates.in_template(variables(), _frame(words))
    return [(t, k) for t, k in offered if t.lower().startswith(token.lower()) or t.lower().startswith(f'row["{token.lower()}')]


def _frame(words: list[str]) -> str | None:
    """The name that `--df` gives."""
    frame = next((b for a, b in pairwise(words) if a == "--df"), None)
    return next((w.removeprefix("--df=") for w in words if w.startswith("--df=")), frame)


def _route(words: list[str]) -> str | None:
    """The route of a line, as typed; None where it has none."""
    valued = {flag for flag, option in grammar.FLAGS.items() if option.metavar is not None}
    for i, word in enumerate(words):
        named = i + 1 < len(words) and words[i + 1] in ("<<", "=", "=<<")
        if not word.startswith("-") and "<<" not in word and not named and (i == 0 or words[i - 1] not in valued):
            return word
    return None


class _LineCompleter:
    """Candidates at one position of a line. `line` is all its words."""

    def __init__(self, variables: Callable[[], Mapping[str, Any]], commands: Callable[[], Iterable[str]], line: list[str]) -> None:
        self._variables, self._commands = variables, commands
        self._line = line

    def complete(self, words: list[str], token: str, *, cell: bool) -> Iterable[tuple[str, str]] | None:
        from holynb.ui.cell import candidates

        flags = {flag: o for o in candidates.options() for flag in o.flags}
        last = words[-1] if words else ""
        if "," in last and len(words) > 1 and words[-2] in flags:
            last = words[-2]  # a list that goes on: R1,R2
        if last in flags and flags[last].metavar is not None:
            return self._values(flags[last].name, flags[last], token)
        if not cell and words[:2] in (["models", "update"], ["prices", "update"]):
            return [(flag, "option") for flag in UPDATE_FLAGS]
        if token.startswith("-"):
            return [(flag, "option") for flag in flags if flag.startswith("--") or len(token) < 2]
        if not cell:
            return self._line_words(words)
        if any(
            not w.startswith("-")
            and "<<" not in w
            and (i == 0 or not self._takes_value(words[i - 1], flags))
            and not self._is_result_name(words, i)
            for i, w in enumerate(words)
        ):
            return []  # the line has its route
        return [(route, kind) for route, kind in candidates.routes().items()]

    @staticmethod
    def _takes_value(word: str, flags: Mapping[str, Any]) -> bool:
        return word in flags and flags[word].metavar is not None

    @staticmethod
    def _is_result_name(words: list[str], i: int) -> bool:
        """Whether word i is the NAME of `NAME <<`."""
        return i + 1 < len(words) and words[i + 1] in ("<<", "=", "=<<")

    def _values(self, name: str, option: Any, token: str) -> Iterable[tuple[str, str]] | None:
        from holynb.ui.cell import candidates

        if name in FILE_OPTIONS:
            return None  # IPython completes paths
        if name in ROUTE_OPTIONS:
            return candidates.routes().items()
        readers: Mapping[str, Callable[[], Iterable[str]]] = {
            "df": lambda: candidates.frames(self._variables()),
            "into": lambda: (),
            "p": lambda: [f"{field}=" for field in wirefields.names(_route(self._line))],
            "schema": lambda: candidates.schemas(self._variables(), token),
            "params_from": self._columns,
            "attach": self._columns,
            "label": self._columns,
            "where": self._columns,
            "router": lambda: [*candidates.routers(), *self._columns()],
            "resume": candidates.runs,
            "name": candidates.runs,
            "use": candidates.prompts,
            "save": candidates.prompts,
            "system_from": lambda: candidates.texts(self._variables()),
            "api_key_name": candidates.keys,
            "think": lambda: THINK_LEVELS,
            "tier": lambda: SERVICE_TIERS,
        }
        words = readers[name]() if name in readers else _choices(option)
        return [(w, name) for w in words]

    def _columns(self) -> list[str]:
        from holynb.ui.cell import candidates

        return candidates.columns(self._variables(), _frame(self._line))

    def _line_words(self, words: list[str]) -> Iterable[tuple[str, str]]:
        from holynb.ui.cell import candidates

        if not words:
            return [(w, "command") for w in self._commands()]
        if words[0] == "pool":
            verbs = ("plan", "start", "list", "status", "stop", "logs")
            return [(w, "command") for w in verbs] if len(words) == 1 else [(p, "pool") for p in candidates.pools()]
        if words[0] in ("show", "stop", "resume", "run"):
            return [(r, "run") for r in candidates.runs()]
        if words[0] in ("models", "key", "prices"):
            names = [] if words[0] == "prices" else [(p, "provider") for p in candidates.providers()]
            return [*names, *([] if words[0] == "key" else [("update", "command")])] if len(words) == 1 else []
        if words[0] == "trust":
            return [(h, "host") for h in candidates.hosts()] if len(words) == 1 else []
        if words[0] == "help":
            return [(w, "command") for w in self._commands()]
        return [(r, "route") for r in candidates.routes()] if words[0] in ("bench", "roi") else []


def _choices(option: Any) -> list[str]:
    """The values of an option that takes one of a fixed set."""
    name = getattr(option.convert, "__name__", "")
    return name.removeprefix("one of ").split(", ") if name.startswith("one of ") else []
