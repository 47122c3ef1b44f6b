"""`response_format` → a grammar as llguidance takes it, checked before a rank hears of it. Knows schemas; no tokens, no HTTP.

An answer is one JSON value without blank space to choose: a small model may otherwise go on with blanks until its tokens are spent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

__all__ = ["GrammarError", "Grammars", "checked"]

#: Separators as `json.dumps` writes them, which is how models have mostly seen JSON on one line.
_STYLE: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

#: Grammars that are kept, the last ones used.
_KEPT = 256


class GrammarError(Exception):
    """The schema is none, or says something that cannot be held while writing; says what."""


def checked(schema: str) -> str:
    """The grammar of a JSON schema (its text). Raises GrammarError."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise GrammarError("constrained answers need llguidance beside the pool: pip install 'holynb[local]'") from None
    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema, overrides=_STYLE)
    except ValueError as exc:  # nested more than some 60 levels deep: it reads no further
        raise GrammarError(" ".join(str(exc).split())[:300]) from exc
    if wrong := LLMatcher.validate_grammar(grammar):
        raise GrammarError(" ".join(str(wrong).split())[:300])
    return grammar


class Grammars:
    """Checked once each, off the loop, however many rows ask for the same at once. Owned by the server's loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, asyncio.Task[str]] = OrderedDict()

    async def of(self, schema: str) -> str:
        """The schema's grammar. Raises GrammarError."""
        task = self._known.get(schema)
        if task is None:
            task = self._known[schema] = asyncio.create_task(asyncio.to_thread(checked, schema))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # somebody looked, also where the client went away
        self._known.move_to_end(schema)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return await asyncio.shield(task)
