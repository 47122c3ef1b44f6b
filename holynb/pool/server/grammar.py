"""Grammars of what an answer must look like, as llguidance takes them, checked before a rank gets them. No tokens, no HTTP.

A JSON answer is one JSON value with fixed white space: a small model may otherwise emit blanks until its tokens are spent.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import TYPE_CHECKING

from holynb.pool.server.guides import Guide

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

__all__ = ["GrammarCache", "GrammarError", "grammar_of", "json_grammar"]

#: Separators as `json.dumps` writes them, which is how models have mostly seen JSON on one line.
_STYLE: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

#: The most recently used grammars stay.
_MAX_CACHED = 256


class GrammarError(Exception):
    """The guide is invalid, or has something that constrained decoding cannot enforce; the message names it."""


def json_grammar(schema: str) -> str:
    """The grammar of a JSON schema (as text). Raises GrammarError."""
    return grammar_of(Guide("json", schema, "response_format"))


def grammar_of(guide: Guide) -> str:
    """The grammar of a guide. Raises GrammarError."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise GrammarError("constrained answers need llguidance beside the pool: pip install 'holynb[local]'") from None
    try:
        grammar = _translate(guide)
    except ValueError as exc:  # nested deeper than some 60 levels: llguidance gives up
        raise GrammarError(" ".join(str(exc).split())[:300]) from exc
    if error := LLMatcher.validate_grammar(grammar):
        raise GrammarError(" ".join(str(error).split())[:300])
    return grammar


def _translate(guide: Guide) -> str:
    """The guide as llguidance writes grammars. Raises ValueError."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

    if guide.kind == "json":
        return str(LLMatcher.grammar_from_json_schema(guide.source, overrides=_STYLE))
    if guide.kind == "regex":
        return str(LLMatcher.grammar_from_regex(guide.source))
    if guide.kind == "choice":
        # Lark's strings are JSON's.
        choices = " | ".join(json.dumps(c, ensure_ascii=False) for c in json.loads(guide.source))
        return str(LLMatcher.grammar_from_lark(f"start: {choices}"))
    try:
        return str(LLMatcher.grammar_from_lark(any_to_lark(guide.source)))
    except GbnfToLarkError as exc:
        raise ValueError(str(exc)) from exc


class GrammarCache:
    """Compiles each guide once, off the loop, also where many rows need it at the same time. Owned by the server's loop."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[tuple[str, str], asyncio.Task[str]] = OrderedDict()

    async def get(self, guide: Guide) -> str:
        """The guide's grammar. Raises GrammarError."""
        key = guide.kind, guide.source
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(asyncio.to_thread(grammar_of, guide))
            task.add_done_callback(
                lambda t: t.cancelled() or t.exception()
            )  # marks the exception as retrieved, also where the client went away
        self._tasks.move_to_end(key)
        while len(self._tasks) > _MAX_CACHED:
            self._tasks.popitem(last=False)
        return await asyncio.shield(task)
