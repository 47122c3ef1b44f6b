"""Schemas become grammars or a reason why not: once each, off the loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

from holynb.pool.server import grammar
from holynb.pool.server.grammar import GrammarCache, GrammarError, grammar_of, json_grammar
from holynb.pool.server.guides import Guide

pytest.importorskip("llguidance")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ('{"type": "nonsense"}', "nonsense"),
        ('{"unevaluatedProperties": false, "type": "object"}', "unevaluatedProperties"),
        ('{"type": "string", "pattern": "(a"}', "unclosed group"),
        ('{"$ref": "https://example.org/s.json"}', "example.org"),
        (
            '{"type": "object", "properties": {"a": {"minimum": 9, "maximum": 1, "type": "integer"}}, "required": ["a"]}',
            "required property",
        ),
        ('{"items": ' * 200 + "{}" + "}" * 200, "recursion limit"),
    ],
)
def test_what_cannot_be_held_is_said(schema: str, words: str) -> None:
    with pytest.raises(GrammarError, match=words) as caught:
        json_grammar(schema)
    assert "\n" not in str(caught.value)


def test_without_the_library_one_hears_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(GrammarError, match=r"holynb\[local\]"):
        json_grammar("{}")


def guide(schema: str) -> Guide:
    return Guide("json", schema, "response_format")


def test_rows_that_ask_the_same_are_checked_once_and_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[int] = []

    def counted(guide: Guide) -> str:
        where.append(threading.get_ident())
        return grammar_of(guide)

    monkeypatch.setattr(grammar, "grammar_of", counted)

    async def main() -> list[Any]:
        cache = GrammarCache()
        first = asyncio.create_task(cache.get(guide("{}")))
        await asyncio.sleep(0)
        first.cancel()  # a client that goes away takes nothing from the others
        return await asyncio.gather(*(cache.get(guide("{}")) for _ in range(20)), cache.get(guide('{"type": 1}')), return_exceptions=True)

    *same, wrong = asyncio.run(main())
    assert len(set(same)) == 1
    assert isinstance(wrong, GrammarError)
    assert len(where) == 2
    assert threading.get_ident() not in where


def test_only_the_last_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(grammar, "_MAX_CACHED", 2)
    monkeypatch.setattr(grammar, "grammar_of", lambda guide: compiled.append(guide.source) or guide.source)

    async def main() -> None:
        cache = GrammarCache()
        for schema in "abacab":
            await cache.get(guide(schema))

    asyncio.run(main())
    assert compiled == ["a", "b", "c", "b"]
