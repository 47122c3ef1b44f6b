"""What the page of a view says is in the table of Korean: every text of its scripts, and what the kernel gives them ready."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import pytest
from layout import ROOT
from test_translation import HANGUL, PLACEHOLDER, unsaid

from holynb import translation
from holynb.types import Outcome, Usage
from holynb.ui.live.again import AGAIN
from holynb.ui.live.assets import DRAWING
from holynb.ui.live.pulse import Pulse
from holynb.ui.output import text
from holynb.ui.output.svg import Series, chart, picture

#: What anywidget loads of ours; `picker.js`, `columns.js` and `bridge.js` say only what their widgets are told.
SCRIPTS = sorted({*DRAWING, *AGAIN, "pulse.js"} - {"uplot.js"})
TOKEN = re.compile(r'(?P<comment>//[^\n]*|/\*.*?\*/)|"(?P<string>(?:[^"\\\n]|\\.)*)"|`(?P<template>(?:[^`\\]|\\.)*)`', re.DOTALL)
#: A capital that begins a word, two words beside each other, or punctuation that ends a sentence.
PROSE = re.compile(r"^[A-Z][a-z]|[a-z]{2,}[,:]? [A-Za-z]{2,}|[a-z]\.$")
#: Read by machines although they look like prose: names of classes, of keys, of fonts and of events.
MACHINES = re.compile(r"^(hn-|jp-|Enter$|Escape$|\d+px |\.[a-z]|button:|color-mix)")
#: A string that is an element's text, what is on a button, or an attribute that is shown or read aloud.
WRITTEN = re.compile(
    r'(?:\bmake\("\w+", (?:"[^"]*"|null), |\bbutton\("[^"]*", |\b(?:title|placeholder): |"aria-label": )"([^"]+)"(?!, write:)'
)
#: Names that are the same in every language.
NAMES = {"CSV", "JSON", "Markdown", "Parquet"}


@pytest.fixture
def korean() -> Iterator[None]:
    translation.choose(lambda: "ko")
    yield
    translation.choose(None)


@lru_cache(maxsize=1)
def texts() -> dict[str, str]:
    translation.choose(lambda: "ko")
    try:
        return dict(translation.page())
    finally:
        translation.choose(None)


def source(name: str) -> str:
    return (ROOT / "holynb" / "ui" / "assets" / name).read_text(encoding="utf-8")


def literals(script: str) -> list[str]:
    """The strings of a script; of a template what stands between its values."""
    found = []
    for token in TOKEN.finditer(script):
        if token["string"] is not None:
            found.append(token["string"])
        elif token["template"] is not None:
            found += re.split(r"\$\{[^}]*\}*", token["template"])
    return found


def untranslated(script: str) -> set[str]:
    return {s for s in literals(script) if PROSE.search(s) and not MACHINES.search(s) and s not in texts() and s not in NAMES}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_text_of_a_script_has_its_korean(name: str) -> None:
    script = source(name)
    assert not untranslated(script)
    assert not {s for s in re.findall(r'\bt\("((?:[^"\\]|\\.)*)"', script) if s not in texts()}


def test_a_text_without_its_korean_is_found() -> None:
    assert untranslated('make("h4", null, "Tries")') == {"Tries"}
    assert untranslated("say(node, `Row ${label} was kept here.`)") == {"Row ", " was kept here."}
    assert not untranslated('make("div", "hn-row hn-heads"); // The heads of columns\n')


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_person_reads_goes_through_the_table(name: str) -> None:
    """A text that stands in the table, and is written past it, stays English."""
    said = WRITTEN.findall(source(name))
    assert not {s for s in said if re.search("[A-Za-z]", s)} - NAMES


def test_every_line_for_the_page_is_said_somewhere() -> None:
    """By a script of the page, to the letter, or by the kernel."""
    page = {s for name in SCRIPTS for s in literals(source(name))}
    assert not [gone for en in translation._page() if en not in page for gone in unsaid(en)]


def test_the_page_and_its_kernel_fill_in_the_same() -> None:
    lines = translation._page().items()
    assert not [en for en, ko in lines if {p for p in PLACEHOLDER.findall(en) if p[1] != "_"} != set(PLACEHOLDER.findall(ko))]
    assert all(HANGUL.search(ko) and not HANGUL.search(en) for en, ko in lines)


@pytest.mark.usefixtures("korean")
def test_a_line_of_the_kernel_has_its_own_korean_and_not_that_of_a_shorter_one() -> None:
    def filled(line: str) -> str:
        return PLACEHOLDER.sub(lambda name: str(11 + sum(map(ord, name[0]))), line)

    assert not [(en, filled(ko), said) for en, ko in translation._page().items() if (said := translation.brief(filled(en))) != filled(ko)]


def test_english_is_sent_no_table() -> None:
    assert translation.page() == {}
    assert Pulse({}).texts == {}
    assert translation.brief("Answer") == "Answer"


@pytest.mark.usefixtures("korean")
def test_what_the_kernel_gives_a_view_is_korean_alone() -> None:
    assert Pulse({}).texts["Stop"] == "중지"
    assert Pulse({}).texts["tokens_out"] == "출력 토큰", "the heads of columns go along"
    assert text.thinking(0, 412) == "생각 중 … 토큰 412개"
    assert text.thought(Outcome("ok", "a", usage=Usage(1, 2, tokens_reasoning=7))) == "생각 · 토큰 7개"
    assert translation.brief("an answer of a model") == "an answer of a model"
    drawn = picture(chart("x", [Series("p50", [(0, 1.0), (5, 2.0)])], str, str))
    assert "p50: 절반은 이 시간 안에 끝남" in drawn
