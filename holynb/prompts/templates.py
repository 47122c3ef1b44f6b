"""Prompt templates: strict Jinja2, compiled once and rendered per row. Knows no rows, no options, no DataFrame.

What a template may read is said in `values.py`, what renders it in `sandbox.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from jinja2 import Template, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError

from holynb import files
from holynb.bounded import MAX_BYTES, TooMuch
from holynb.errors import BadPrompt, closest
from holynb.prompts.arrays import kind_of
from holynb.prompts.attach_calls import find_marks
from holynb.prompts.sandbox import Sandbox
from holynb.prompts.shown import LongTable
from holynb.prompts.values import SIMPLE, TemplateRow, admit, instead, missing

__all__ = ["Compiled", "TemplateRow", "compiled", "holds_array", "missing", "plain"]


#: Longest reason in a message: an error of Python's may quote a whole value.
MAX_REASON = 1_000
#: How a message ends where the body was hardly meant as a template.
UNTOUCHED = "--raw sends the body untouched."
#: Braces of GitHub's workflows, of Handlebars and Mustache: a text that has them was hardly written for us.
FOREIGN = ("${{", "{{{", "{{/", "{{#", "{{>", "{{-")
#: How the message ends where no name is near the one that was meant.
NOWHERE = " }}"
#: Items of a list that are looked at for an array among them.
MAX_LOOKED_AT = 1_000


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return Sandbox()


def holds_array(value: Any) -> bool:
    """Whether a value is an array, or a list or dict that holds one near its beginning."""
    if isinstance(value, dict | list | tuple):
        return any(map(kind_of, islice(value.values() if isinstance(value, dict) else value, MAX_LOOKED_AT)))
    return kind_of(value) is not None


def plain(text: str) -> bool:
    """Whether `text` has nothing to render."""
    return "{{" not in text and "{%" not in text


class Compiled:
    """A compiled template. `names` are the variables that it reads, `attached` the columns whose attachments it places."""

    def __init__(self, text: str) -> None:
        env = _sandbox()
        self._foreign = any(mark in text for mark in FOREIGN)
        try:
            tree = env.parse(text)
            self.attached = find_marks(tree) if "attach(" in text else ()
            self.names: Collection[str] = meta.find_undeclared_variables(tree)
            self._parts = _parts(tree)
            self._template: Template = env.from_string(tree)
        except TemplateSyntaxError as exc:
            hint = closest(str(exc.message).rpartition("named '")[2].strip("'."), env.filters) if "No filter" in str(exc.message) else ""
            reason = f"line {exc.lineno}: {str(exc.message).rstrip('.')}"
        except (RecursionError, MemoryError, SyntaxError) as exc:  # Python's own, of the code that Jinja2 makes of it
            deep = not isinstance(exc, SyntaxError) or "nested" in str(exc.msg)
            reason, hint = "it is nested too deeply" if deep else f"an expression of it is none of Python's ({exc})", ""
        else:
            return
        raise BadPrompt(f"The template has a syntax error, {reason}.{hint} {UNTOUCHED}")

    @property
    def shown(self) -> Sequence[str]:
        """The names of a template that only shows values, as they are; none of any other."""
        return list(dict.fromkeys(name for _, name in self._parts or () if name is not None))

    def render(self, scope: Mapping[str, Any], suggestions: Iterable[str] = (), where: str = "", *, arrays_are_lists: bool = False) -> str:
        """The rendered text. `suggestions`: names to propose for an undefined one; `where`: the row, for messages; `arrays_are_lists`: as
        `Sandbox.rendered` takes it. Raises BadPrompt.
        """
        try:
            if (text := self._simple(scope)) is not None:
                return text
            values = {name: admit(scope[name], name) for name in self.names if name in scope}
            return _sandbox().rendered(self._template, values, arrays_are_lists=arrays_are_lists)
        except LongTable as exc:
            own = str(getattr(exc.value, "name", None)) if exc.kind == "column" and where else ""
            if own in suggestions:
                shown = f"{{{{ {own} }}}}" if own.isidentifier() else f'{{{{ row["{own}"] }}}}'
                reason = f"The whole column of {exc.extent} would go into the prompt of each row: write {shown} for the row's own value"
            else:
                reason = exc.advice(next((name for name, value in values.items() if value is exc.value), None))
        except UndefinedError as exc:
            reason = _undefined(str(exc.message), scope, suggestions)
        except TooMuch as exc:
            reason = f"The template cannot be rendered: {exc}"
            reason = reason if reason.endswith("?") else instead(reason)
        except SecurityError as exc:
            reason = f"The template cannot be rendered: {exc}"
        except Exception as exc:  # noqa: BLE001 - whatever a value of the notebook raises when it is read
            reason = f"The template failed: {type(exc).__name__}: {exc}"
        reason = f"{reason.rstrip('.')[:MAX_REASON]}{where}"
        raise BadPrompt(f"{reason}. {UNTOUCHED}" if self._foreign or reason.endswith(NOWHERE + where) else reason)

    def _simple(self, scope: Mapping[str, Any]) -> str | None:
        """The text of a template that only names values, where each is a plain text or number; None for all others."""
        if self._parts is None:
            return None
        pieces: list[str] = []
        for text, name in self._parts:
            if name is None:
                pieces.append(text)
                continue
            value = scope.get(name, self)
            kind = type(value)
            if kind not in SIMPLE and value is not None:
                return None
            pieces.append(value if kind is str else "" if missing(value) else str(value))
        rendered = "".join(pieces)
        return rendered if len(rendered) <= MAX_BYTES // 4 else None


def _parts(tree: nodes.Template) -> list[tuple[str, str | None]] | None:
    """(text, None) or ("", name) for a template of text and names alone; None for any other."""
    output = [node for part in tree.body for node in (part.nodes if isinstance(part, nodes.Output) else [part])]
    if not all(isinstance(node, nodes.TemplateData | nodes.Name) for node in output):
        return None
    return [(node.data, None) if isinstance(node, nodes.TemplateData) else ("", getattr(node, "name", None)) for node in output]


@lru_cache(maxsize=64)
def compiled(text: str) -> Compiled:
    """The compiled template, cached. Raises BadPrompt where it does not parse."""
    return Compiled(text)


def _holder(scope: Mapping[str, Any], column: str) -> str | None:
    """The variable that is a table with this column, where it is the only one."""
    frames = [k for k, v in scope.items() if not k.startswith("_") and (files.is_table(v) or type(v).__name__ == "DataFrame")]
    holders = [k for k in frames if column in files.column_names(scope[k])]
    return holders[0] if len(holders) == 1 else None


def _undefined(message: str, scope: Mapping[str, Any], suggestions: Iterable[str]) -> str:
    """The message for an undefined name or field, with the closest one that exists."""
    head, separator, name = message.rstrip("'").rpartition("' has no attribute '")
    if separator and head.endswith("TemplateRow object"):
        return f"There is no column {name!r}.{closest(name, [str(k) for k in scope['row']])}"
    if separator:
        return f"There is no {name!r} in the {head.strip(chr(39))}."
    if not message.endswith("is undefined"):
        return f"The template failed: {message}"
    name = message.split("'")[1]
    if "row" not in scope and (holder := _holder(scope, name)):
        return f"There is no column or variable {name!r} for {{{{ {name} }}}}. {holder} has a column of this name: add --df {holder}."
    hint = closest(name, [k for k in suggestions if not k.startswith("_")])
    suggestion = hint.removeprefix(" Did you mean ").removesuffix("?")
    if hint and not suggestion.isidentifier():
        hint = f' Did you mean row["{suggestion}"]?'
    return f"There is no column or variable {name!r} for {{{{ {name} }}}}.{hint}"
