"""`--format`: an answer as text, Markdown, code or JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.ui.output import formats

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize("how", ["text", "markdown", "code", "json"])
def test_markup_of_a_model_is_text(how: str) -> None:
    for text in (SCRIPT, f"```\n{SCRIPT}\n```", json.dumps({"a": SCRIPT})):
        html = formats.as_html(text, how)
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_text_is_as_it_came() -> None:
    assert formats.as_html("*a*\n  b", "text") == '<pre class="holynb-answer" dir="auto" style="white-space:pre-wrap">*a*\n  b</pre>'
    assert formats.as_text("*a*", "text") == formats.as_text("*a*", "markdown") == "*a*"


def test_code_is_what_the_fences_hold() -> None:
    text = "Here it is:\n\n```py\nprint(1)\n```\nand\n```\nls\n```"
    assert formats.as_html(text, "code") == '<pre class="holynb-code"><code>print(1)\n\nls</code></pre>'
    assert formats.as_text(text, "code") == "print(1)\n\nls"
    assert formats.as_text("print(1)", "code") == "print(1)"
    assert formats.as_text("```\n```", "code") == "```\n```", "an empty block is no answer"


def test_json_is_indented_as_it_is_spelled() -> None:
    text = '{"a": [1.0000000000000000001, 1e400], "a": {"b": "{,:}\\u00e9"}, "c": [], "d": ' + "9" * 5_000 + "}"
    assert formats.as_text(text, "json") == (
        '{\n  "a": [\n    1.0000000000000000001,\n    1e400\n  ],\n  "a": {\n    "b": "{,:}\\u00e9"\n  },\n  "c": [],\n  "d": '
        + "9" * 5_000
        + "\n}"
    )
    assert formats.as_text('```json\n{"a":1}\n```', "json") == '{\n  "a": 1\n}'


@pytest.mark.parametrize("text", ['{"a": ', "hello", "", "[" * 100_000 + "]" * 100_000, "[" * 65 + "]" * 65, f'["{"a" * 400_000}"]'])
def test_what_is_not_json_or_too_much_is_text(text: str) -> None:
    assert formats.as_text(text, "json") == text
    assert formats.as_html(text, "json") == formats.as_html(text, "text")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.sampled_from([None, 1]))
@settings(max_examples=100, deadline=None)
def test_indented_json_says_the_same(value: object, indent: int | None) -> None:
    shown = formats.indented(json.dumps(value, indent=indent))
    assert shown == json.dumps(value, indent=2)


def test_markdown_that_is_too_much_is_text_and_says_so() -> None:
    html = formats.as_html("> " * 1_000 + SCRIPT, "markdown")
    assert formats.TOO_MUCH in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("text", ["# a", "x\n- a", "1. a", "**a**", "see [a](b)", "`a`", "> a", "|a|b|", "```\na\n```", "_a_"])
def test_text_with_marks(text: str) -> None:
    assert formats.looks_marked(text)


@pytest.mark.parametrize("text", ["", "hello", "2 * 3 = 6", "a_b_c", "#1 of 3", "a - b", "it is 5 > 4", "1.5", "Yes. No."])
def test_text_without_marks(text: str) -> None:
    assert not formats.looks_marked(text)


def test_an_answer_with_marks_can_be_switched_without_a_script() -> None:
    html = formats.switched("# a", "text")
    assert "<summary>Show as Markdown</summary>" in html
    assert html.index("<h3") < html.index('<div class="holynb-shown"><pre class="holynb-answer"')
    html = formats.switched("# a", "markdown")
    assert "<summary>Show as text</summary>" in html
    assert html.index('<pre class="holynb-answer"') < html.index('<div class="holynb-shown"><div class="holynb-markdown"')


@pytest.mark.parametrize("text", ["no marks", "**" + "a" * formats.MAX_SWITCHED_CHARS, "> " * 1_000 + "a"])
def test_an_answer_with_nothing_to_switch_is_as_it_was(text: str) -> None:
    assert formats.switched(text, "text") == formats.as_html(text, "text")
