"""Grammars of JSON schemas, as llguidance takes them, checked before a rank gets them. Knows schemas; no tokens, no HTTP.

An answer is one JSON value with fixed white space: a small model may otherwise emit blanks until its tokens are spent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

__all__ = ["GrammarCache", "GrammarError", "json_grammar"]

#: Separators as `json.dumps` writes them, which is how models have mostly seen JSON on one line.
_STYLE: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

#: The most recently used grammars stay.
_MAX_CACHED = 256


class GrammarError(Exception):
    """The schema is invalid, or has something that constrained decoding cannot enforce; the message names it."""


def json_grammar(schema: str) -> str:
    """The grammar of a JSON schema (as text). Raises GrammarError."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise GrammarError("constrained answers need llguidance beside the pool: pip install 'holynb[local]'") from None
    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema, overrides=_STYLE)
    except ValueError as exc:  # nested deeper than some 60 levels: llguidance gives up
        raise GrammarError(" ".join(str(exc).split())[:300]) from exc
    if error := LLMatcher.validate_grammar(grammar):
        raise GrammarError(" ".join(str(error).split())[:300])
    return grammar


class GrammarCache:
    """Compiles each schema once, off the loop, also where many rows need it at the same time. Owned by the server's loop."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, asyncio.Task[str]] = OrderedDict()

    async def get(self, schema: str) -> str:
        """The schema's grammar. Raises GrammarError."""
        task = self._tasks.get(schema)
        if task is None:
            task = self._tasks[schema] = asyncio.create_task(asyncio.to_thread(json_grammar, schema))
            task.add_done_callback(
                lambda t: t.cancelled() or t.exception()
            )  # marks the exception as retrieved, also where the client went away
        self._tasks.move_to_end(schema)
        while len(self._tasks) > _MAX_CACHED:
            self._tasks.popitem(last=False)
        return await asyncio.shield(task)
