"""Rows that put nothing into their prompt: a template that names no column, cells that are missing or blank. Pure; counts, and says so.

A missing value renders empty, and a prompt that is empty is skipped; where other words stand around the hole, the row is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holynb.config import Options
from holynb.prompts import templates
from holynb.types import Prompt
from holynb.words import counted

__all__ = ["Blanks"]

#: Most columns of which a line each says that they are blank.
MOST_LINES = 3


class Blanks:
    """What `see` has seen of a frame's rows, a window at a time. `rows`: how many are asked."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: list[str] = []
        self._named: set[str] | None = None
        self._texts: set[str] = set()
        self._others: set[str] = set()
        self._blank: Counter[str] = Counter()
        self._body = ""

    def see(self, body: str, system: str, rows: Sequence[Mapping[str, Any]], prompts: Iterable[Prompt], options: Options) -> None:
        """Count the blank cells that `body` shows as they are. `system`: the other template that is rendered per row."""
        self._columns = list(rows[0]) if rows else []
        self._body = body
        shown = _shown(body, options)
        if self._named is None and rows:
            self._named = {name for text in (body, system) for name in _names(text, options)} & {*self._columns, "row"}
        for row, prompt in zip(rows, prompts, strict=True):
            if prompt.empty:
                continue
            self.rows += 1
            for name in shown:
                value = row.get(name)
                if isinstance(value, str):
                    self._texts.add(name)
                    self._blank[name] += not value or value.isspace()
                elif templates.missing(value):
                    self._blank[name] += name in row
                else:
                    self._others.add(name)

    def lines(self, options: Options) -> list[str]:
        """What a person should know before the rows are sent."""
        if self.rows > 1 and self._named == set() and not (options.attach or options.params_from or options.router):
            frame = options.df if isinstance(options.df, str) else options.file or "the frame"
            return [f"No column of {frame} is in the prompt: every row asks the same. {self._instead()}"]
        blank = [(name, n) for name, n in self._blank.items() if n]
        return [self._line(name, n, options) for name, n in blank[:MOST_LINES]]

    def _instead(self) -> str:
        """What to write where the row's text should stand: the column in braces of an f-string, or else the first that may hold one."""
        meant = next((c for c in re.findall(r"\{\s*([^{}]+?)\s*\}", self._body) if c in self._columns), None)
        if meant is None and self._columns:
            meant = next((c for c in self._columns if c in ("text", "prompt")), self._columns[0])
        return "" if meant is None else f"Write {_in_template(meant)}."

    def _line(self, name: str, n: int, options: Options) -> str:
        has, are, them = ("has", "is", "it") if n == 1 else ("have", "are", "them")
        head = f"{n:,} of {counted(self.rows, 'row')} {has} nothing in {_in_template(name)} and {are} asked all the same"
        if "`" in name or "\n" in name:
            return f"{head}."
        column = name if name.isidentifier() else f"`{name}`"
        test = f"{column}.str.strip() > ''" if name in self._texts and name not in self._others else f"{column}.notna()"
        if options.where:
            return f"{head}: and {test} at the end of --where leaves {them} out."
        return f'{head}: --where "{test}" leaves {them} out.'


def _in_template(column: str) -> str:
    return f"{{{{ {column} }}}}" if column.isidentifier() else f'{{{{ row["{column}"] }}}}'


def _names(text: str, options: Options) -> Iterable[str]:
    """The names that a template reads."""
    if options.raw or templates.plain(text):
        return ()
    compiled = templates.compiled(text)
    return {*compiled.names, *compiled.attached}


def _shown(text: str, options: Options) -> Sequence[str]:
    """The names that a template of text and names alone shows: what others do with a missing value is theirs to say."""
    return () if options.raw or templates.plain(text) else templates.compiled(text).shown
