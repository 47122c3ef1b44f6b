"""A chat template writes what it writes in transformers: its tags, filters, functions and variables."""

from __future__ import annotations

import contextlib
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holynb.pool.modelfields import fields_of
from holynb.pool.server.chat_template import TemplateError, compiled

utils = pytest.importorskip("transformers.utils.chat_template_utils")

MESSAGES = [
    {"role": "user", "content": "hi <b> é"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "hm"},
]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}

#: What the list of fields says of templates → templates that show it.
TEMPLATES: dict[str, list[str]] = {
    "tag generation": [
        "{% for m in messages %}{% generation %}{{ m.content }}{{ loop.index }}{% endgeneration %}{% endfor %}",
        "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%} .{% endfor %}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
        "{% set ns = namespace(a=1) %}{% for m in messages %}{% generation %}{% set ns.a = ns.a + 1 %}{% endgeneration %}{% endfor %}{{ ns.a }}",
        "{% macro f(x) %}{% generation %}{{ x }}{% endgeneration %}{% endmacro %}{{ f('q') }}",
        "{% for m in messages %}\n  {% generation %}\n  {{ m.content }}\n  {% endgeneration %}\n{% endfor %}\n",
    ],
    "tag break": ["{% for m in messages %}{{ m.content }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}"],
    "tag continue": ["{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}"],
    "filter tojson": [
        "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}",
        "{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=True, sort_keys=True, separators=(',', ':')) }}",
        "{{ messages | tojson(true, 4) }}",
        "{{ {'a': none, 'b': true, 'c': 1.5, 'd': [1, 2], 1: 'x', none: 'y'} | tojson }}",
    ],
    "global raise_exception": ["{% if messages | length > 5 %}{{ raise_exception('long') }}{% endif %}x"],
    "global strftime_now": ["{{ strftime_now('%Y-%m') }}|{{ strftime_now('%Z%z') }}|"],
    "global dict": ["{{ dict(a=1, b=2) | tojson }}{{ dict([('x', 1)]).x }}{{ dict.fromkeys(['a', 'b'], 1) | tojson }}"],
    "global namespace": ["{% set ns = namespace(a=1, b='x') %}{% set ns.a = 2 %}{{ ns.a }}{{ ns.b }}{{ namespace(dict(c=3)).c }}"],
    "variable messages": ["{% set rest = messages[1:] %}{{ rest[0]['content'] }}{{ messages[-1:] | length }}"],
    "variable add_generation_prompt": ["{{ add_generation_prompt }}"],
    "variable tools": ["{{ tools is none }}{% if tools %}x{% endif %}"],
    "variable documents": ["{{ documents is none }}"],
    "special tokens": ["{{ bos_token }}{{ eos_token }}{{ pad_token }}|{{ bos_token is defined }}{{ pad_token is defined }}"],
}


def theirs(template: str, messages: list[dict[str, Any]]) -> str:
    return str(utils.render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **NAMES)[0][0])


@pytest.mark.parametrize(("field", "template"), [(field, template) for field, many in TEMPLATES.items() for template in many])
def test_it_writes_what_it_writes_in_transformers(field: str, template: str) -> None:
    assert compiled(template, NAMES).render(MESSAGES, {}) == theirs(template, MESSAGES)


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning": "why"},
        {"thinking": "why"},
        {"reasoning_content": "why", "thinking": "other"},
        {"reasoning_content": None},
        {"name": None, "n": 1},
    ],
    ids=str,
)
def test_a_message_has_the_fields_that_it_has_in_transformers(more: dict[str, Any]) -> None:
    template = "{% for m in messages %}{{ m | tojson(sort_keys=true) }}{{ m.thinking }}{{ m.name is defined }}{% endfor %}"
    messages = [{"role": "assistant", "content": "x", **more}]
    shown = [{k: v for k, v in m.items() if v is not None} for m in messages]  # as apply_chat_template does before it renders
    assert compiled(template, NAMES).render(messages, {}) == theirs(template, shown)


def test_every_word_of_templates_in_the_list_is_shown() -> None:
    assert {row.name for row in fields_of("chat_template.jinja") if row.use == "used"} <= set(TEMPLATES)


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ unknown | tojson }}", "{% set ns = namespace(_x=1) %}{{ ns._x }}"])
def test_what_transformers_refuses_is_refused(template: str) -> None:
    with pytest.raises(Exception, match=r"."):
        theirs(template, MESSAGES)
    with pytest.raises(TemplateError):
        compiled(template, NAMES).render(MESSAGES, {})


PIECES = [
    "{{ messages[0].content }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if m.role == 'user' %}",
    "{% endif %}",
    "{%- if loop.first -%}",
    "{% endif -%}",
    "{{ m.content | tojson }}",
    "{% break %}",
    "{{ m.role }}\n",
    "  \n",
    " text ",
    "{{- x -}}",
    "{% set x = m.role %}",
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_tags_in_any_order_mean_the_same(template: str) -> None:
    """What is a template there writes the same here; what is none is refused in a line, or read where Jinja2 alone would read it."""
    try:
        came: str | None = compiled(template, NAMES).render(MESSAGES, {})
    except (TemplateError, ValueError) as exc:
        came = None
        assert "\n" not in str(exc)
    with contextlib.suppress(jinja2.exceptions.TemplateError, SyntaxError, TypeError):
        assert came == theirs(template, MESSAGES)


def test_a_break_outside_of_a_loop_is_one_line() -> None:
    with pytest.raises(ValueError, match="outside loop"):
        compiled("{% break %}", {})
