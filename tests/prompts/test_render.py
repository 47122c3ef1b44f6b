"""Prompts: what a cell's text becomes, row by row, and what it never becomes."""

from __future__ import annotations

import json
import math
import time

import jinja2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.config.options import Options
from holynb.errors import BadOption, BadPrompt
from holynb.prompts import render
from holynb.results import frame
from holynb.types import Message, Prompt, Sampling


def cell(body: str, rows=None, /, _options=None, **variables) -> list[Prompt]:
    options = _options or Options()
    return render.render(body, rows=rows, variables=variables, options=options)


def texts(body: str, rows=None, /, _options=None, **variables) -> list[str]:
    return [p.text for p in cell(body, rows, _options, **variables)]


def line(call, *args, **kwargs) -> str:
    with pytest.raises((BadPrompt, BadOption)) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- how many prompts a body is -------------------------------------------------------------------------------------------
def test_a_body_is_one_prompt_whatever_its_blank_lines():
    assert texts("one\n\n\nstill one\n\n- a\n-- b\n----\n--- x\n") == ["one\n\n\nstill one\n\n- a\n-- b\n----\n--- x"]


def test_a_line_of_exactly_three_dashes_divides():
    assert texts("one\nmore\n---\ntwo\r\n---\r\n\n---\nthree\n---\n") == ["one\nmore", "two", "three"]
    assert texts("---\none\n --- \n") == ["one\n --- "]


def test_lines():
    assert texts("a\n\n  b \n---\n", None, Options(lines=True)) == ["a", "b", "---"]
    assert texts("{{ x }}\n{x}\n", None, Options(lines=True), x="1\n2") == ["1\n2", "{x}"]


def test_raw_is_untouched():
    body = "  {{ x }} {% if %}\n---\n{# c #}\n\n"
    assert texts(body, None, Options(raw=True)) == [body[:-1]]
    assert texts("{{ x }}\n", [{"x": 1}] * 2, Options(raw=True)) == ["{{ x }}\n"] * 2


def test_dashes_are_plain_text_in_a_template_of_rows():
    assert texts("{{ a }}\n---\nb", [{"a": 1}, {"a": 2}]) == ["1\n---\nb", "2\n---\nb"]


@pytest.mark.parametrize("body", ["", "  \n\t\n", "\n"])
def test_an_empty_cell(body):
    assert "no prompt" in line(texts, body)
    assert "no prompt" in line(texts, body, [{"a": 1}])


def test_a_cell_of_dashes():
    assert "no prompt" in line(texts, "---\n---\n")


def test_lines_and_rows_do_not_go_together():
    assert "Leave -l out" in line(texts, "{{ a }}", [{"a": 1}], Options(lines=True))


# -- what is rendered -----------------------------------------------------------------------------------------------------
def test_braces_and_json_stay_as_typed():
    body = 'Return {"a": {"b": [1, {x}]}} for {name} {{ name }} \\{#1} ${y}'
    assert texts(body, name="Kim") == [body.replace("{{ name }}", "Kim")]


@given(st.text(min_size=1).filter(lambda t: t.strip() and "{{" not in t and "{%" not in t))
def test_a_text_without_a_template_is_sent_as_it_is(text):
    assert [p.text for p in render.from_values(text)] == [text]
    assert texts("{{ a }}", [{"a": text}]) == [text]


@given(st.text())
def test_what_a_value_holds_is_never_rendered_nor_divided(value):
    value = "{{ secret }}\n---\n{% for x in y %}" + value
    assert texts("<{{ a }}>", None, a=value, secret="no") == [f"<{value}>"]
    assert texts("<{{ a }}>", [{"a": value}], secret="no") == [f"<{value}>"]


def test_columns_come_before_variables():
    rows = [{"a": 1, "row": "mine"}, {"a": 2, "row": "yours"}]
    assert texts("{{ a }}{{ b }}{{ row }}", rows, a="hidden", b="v") == ["1vmine", "2vyours"]


def test_names_that_are_no_identifiers():
    rows = [{"unit price": 3, "단가": 4, "items": 5, "a-b": None}]
    assert texts("{{ row['unit price'] }} {{ 단가 }} {{ row.items }} {{ row['a-b'] }}|", rows, row="a variable") == ["3 4 5 |"]


@pytest.mark.parametrize(
    "body",
    [
        "{{ s|trim }} {{ t|trim('ho') }} {{ s.strip() }} {{ s.strip(none) }} {{ s|lower|trim }}",
        "{{ w.split() }} {{ w.split(none, 1) }} {{ w.rsplit(none, 1) }} {{ w.split(sep=none) }} {{ w.split(maxsplit=1) }}",
        "{{ t|replace('l', 'L') }} {{ t|replace('l', 'L', 1) }} {{ t.replace('l', 'L', 1) }} {{ t|center(9) }} {{ w|truncate(9, true, '~', 0) }}",
        "{{ w|wordwrap(5) }} {{ w|indent('> ', true) }} {{ l|sort(reverse=true) }} {{ l|batch(2, 0)|list }} {{ l|slice(2)|list }}",
        "{{ r|map(attribute='g')|join(',') }} {{ r|selectattr('v', '>', 1)|list|length }} {{ r|sum('v', 10) }} {{ r|max(attribute='v') }}",
        "{{ '0x1F'|int(0, 16) }} {{ 'x'|float(1.5) }} {{ f|round(1, 'floor') }} {{ d|dictsort(by='value') }} {{ d.get('q', 'D') }}",
    ],
)
def test_filters_and_methods_give_what_they_give_in_jinja2(body: str):
    rows = [{"g": "x", "v": 1}, {"g": "y", "v": 2}]
    values = {"s": "  Hello  ", "t": "hello", "w": "one two three", "l": [3, 1, 2], "r": rows, "f": -2.567, "d": {"b": 1, "a": 2}}
    assert texts(body, [values]) == [jinja2.Template(body).render(values)]


def test_statements_loops_and_filters():
    body = "{% for t in tags if t %}{{ loop.index }}. {{ t|upper }}{% if not loop.last %}\n{% endif %}{% endfor %}"
    assert texts(body, [{"tags": ["a", None, "b"]}, {"tags": []}]) == ["1. A\n2. B", ""]
    assert texts("{{ d|tojson }}", d={"한글": "<b>"}) == ['{"한글": "<b>"}']


@pytest.mark.parametrize("gone", [None, math.nan, np.nan, np.float32("nan"), pd.NaT, pd.NA, np.datetime64("NaT")])
def test_missing_is_empty_wherever_it_turns_up(gone):
    body = "[{{ a }}{{ a|upper }}{{ a|int('') }}{{ a * 2 }}{{ '{}'.format(a) }}{{ a.year }}{{ d.x }}{{ d.x|title }}{{ l[0] }}]"
    assert texts(body, [{"a": gone, "d": {"x": gone}, "l": [gone]}]) == ["[]"]
    asks = "{{ a|default('n/a') }} {{ a is none }} {{ 'yes' if a else 'no' }} {{ a or 'or' }} {{ 'x' + a }} {{ a > 3 }}"
    assert texts(asks, [{"a": gone}]) == ["n/a True no or x False"]


def test_an_empty_prompt_is_kept_for_its_row():
    prompts = cell("{{ a }}", [{"a": "x"}, {"a": None}, {"a": "  "}])
    assert [p.empty for p in prompts] == [False, True, True]


def test_a_frame_as_it_comes():
    df = pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2025-01-02", None]), "l": [[1], [2, 3]], "s": ["x", None]}, index=[7, 7])
    assert texts("{{ a }}/{{ t.year }}/{{ l|length }}/{{ s }}", frame.records(df)) == ["1/2025/1/x", "2//2/"]


# -- what is refused ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{{ reviw }}", ["'reviw'", "Did you mean review?", "(row 0)"]),
        ("{{ row['reviw'] }}", ["no column 'reviw'", "Did you mean review?"]),
        ("{{ tpoic }}", ["Did you mean topic?"]),
        ("{{ zzz }}", ["There is no column or variable 'zzz' for {{ zzz }}"]),
        ("{{ review.colour }}", ["There is no 'colour'"]),
        ("{{ review", ["has a syntax error", "--raw"]),
        ("{% for x in y %}", ["has a syntax error"]),
        ("{{ review|uper }}", ["No filter named 'uper'", "Did you mean upper?"]),
        ("{{ 1 / 0 }}", ["ZeroDivisionError", "(row 0)"]),
        ("{% include 'x' %}", ["without {% include %}"]),
    ],
)
def test_a_template_that_fails_says_where(body, words):
    message = line(texts, body, [{"review": "x"}], topic="t", _hidden=1)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{{ unit price }}", """got 'price'. --raw sends the body untouched. For the column 'unit price' write {{ row["unit price"] }}."""),
        ("{{ a-b }}", """There is no column or variable 'a' for {{ a }} (row 0). For the column 'a-b' write {{ row["a-b"] }}."""),
        ("{% if 2nd %}x{% endif %}", """For the column '2nd' write {{ row["2nd"] }}."""),
        ("{{ unit_price }}", 'Did you mean row["unit price"]? (row 0)'),
        ("{{ 3 }}", '{{ 3 }} is a number to a template. The column is {{ row["3"] }}.'),
        ("{{ row['unit prise'] }}", "There is no column 'unit prise'. Did you mean unit price? (row 0)"),
    ],
)
def test_a_column_whose_name_is_no_identifier_is_said_how_to_read(body: str, words: str) -> None:
    rows = frame.records(pd.DataFrame([[1, 2, 3, 4]], columns=["unit price", "a-b", 3, "2nd"]))
    assert line(texts, body, rows).endswith(words)
    assert texts("{{ row['3'] }} {{ row['unit price'] }} {{ 3 + 0 }}", rows) == ["3 1 3"]


def test_a_column_of_a_frame_that_was_not_given_names_the_frame() -> None:
    reviews, other = pd.DataFrame({"text": ["a"]}), pd.DataFrame({"stars": [1]})
    said = line(texts, "{{ text }}", reviews=reviews, other=other, _hidden=reviews)
    assert said.startswith("There is no column or variable 'text' for {{ text }}. reviews has a column of this name: add --df reviews")
    assert "add --df" not in line(texts, "{{ text }}", reviews=reviews, again=reviews), "which of two is not ours to say"
    assert "add --df" not in line(texts, "{{ text }}", [{"stars": 1}], reviews=reviews), "the rows are chosen"


def test_with_a_column_called_row_it_must_be_named_otherwise() -> None:
    assert line(texts, "{{ a-b }}", [{"a-b": 1, "row": 2}]).endswith("For the column 'a-b' name it otherwise.")


def test_the_row_is_named_by_position():
    message = line(texts, "{{ 10 // a }}", [{"a": 5}, {"a": 2}, {"a": 0}])
    assert "(row 2)" in message


def test_an_undefined_name_may_be_asked_about():
    assert texts("{{ 'a' if x is defined else 'b' }}{{ x|default('c') }}") == ["bc"]


class Boom:
    def __str__(self):
        raise RuntimeError("boom")

    def method(self):
        return "called"


@pytest.mark.parametrize(
    "body",
    [
        "{{ o.method() }}",
        "{{ f() }}",
        "{{ os.system('true') }}",
        "{{ ''.__class__ }}",
        "{{ f.__globals__ }}",
        "{{ o.__init__ }}",
        "{{ l.append(1) }}",
        "{{ l.__class__.__base__.__subclasses__() }}",
        "{{ '{0.__class__}'.format(o) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ df.to_csv('x') }}",
        "{{ df.pipe(f) }}",
        "{{ df.query('a > 0') }}",
        "{{ o }}",
        "{{ lipsum() }}",
        "{{ (l|map('attr', 'x')|first).__class__ }}",
        "{{ d.pop('a') }}",
    ],
)
def test_a_template_reads_and_does_nothing_else(body):
    import os

    values = {"o": Boom(), "f": lambda: pytest.fail("called"), "os": os, "l": [1], "d": {"a": 1}, "df": pd.DataFrame({"a": [1]})}
    line(texts, body, **values)
    assert values["l"] == [1]
    assert values["d"] == {"a": 1}


def test_what_only_reads_may_be_called():
    df = pd.DataFrame({"a": [1, 3]})
    assert texts(
        "{{ s.upper() }} {{ d.get('x', 'y') }} {{ t.strftime('%Y') }} {{ '{:.1f}'.format(2) }} {{ df.a.max() }}{{ range(3)|list }}",
        s="x",
        d={},
        t=pd.Timestamp("2025-01-01"),
        df=df,
    ) == ["X y 2025 2.0 3[0, 1, 2]"]
    assert "1" in texts("{{ df.head(1).to_string() }}", df=df)[0]


@pytest.mark.parametrize(
    "body",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' * 10**12 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a'.ljust(10**12) }}",
        "{{ 'a'|center(10**12) }}",
        "{% for a in range(99999) %}" + "x" * 9999 + "{% endfor %}",
        "{{ [0] * 10**12 }}",
        "{{ " + "(" * 999 + "1" + ")" * 999 + " }}",
    ],
)
def test_a_template_that_would_not_end_ends(body):
    start = time.monotonic()
    line(texts, body)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "body", ["{{ 'a'.ljust(30_000_000) }}", "{{ 'a'.center(30_000_000) }}", "{{ 'a'|center(30_000_000) }}", "{{ 'a' * 30_000_000 }}"]
)
def test_a_text_that_is_too_long_is_refused_before_it_is_made(body):
    with pytest.raises(BadPrompt, match="more than 1,000,000"):
        texts(body)


def test_none_that_a_template_says_itself_is_empty():
    assert texts("[{{ none }}{{ x if x }}{{ [none][0] }}]", x=None) == ["[]"]


# -- what stands beside the prompt ----------------------------------------------------------------------------------------
def test_a_system_prompt_is_a_template_too():
    assert cell("x", None, Options(system="In {{ lang }}"), lang="Korean")[0].messages == (
        Message("system", "In Korean"),
        Message("user", "x"),
    )
    prompts = cell("{{ a }}", [{"a": 1}, {"a": 2}], Options(system="Row {{ a }}"))
    assert [p.messages[0].content for p in prompts] == ["Row 1", "Row 2"]


def test_a_system_prompt_from_a_variable_is_sent_as_it_is():
    options = Options(system_from="rules")
    assert cell("x", None, options, rules="{{ kept }}")[0].messages[0] == Message("system", "{{ kept }}")
    assert cell("x", [{"a": 1}], options, rules="{{ kept }}")[0].messages[0] == Message("system", "{{ kept }}")
    assert "Did you mean rules?" in line(cell, "x", None, Options(system_from="ruels"), rules="r")
    assert "is an int" in line(cell, "x", None, options, rules=3)
    assert "Use one of them" in line(cell, "x", None, Options(system="a", system_from="rules"), rules="r")


def test_sampling_from_columns():
    options = Options(params_from=("max_tokens", "temperature", "stop", "fault", "times"))
    rows = [
        {"max_tokens": 5.0, "temperature": "0.5", "stop": "END", "fault": "429", "times": 2.0},
        {"max_tokens": None, "temperature": math.nan, "stop": "", "fault": None, "times": np.int64(1)},
    ]
    first, second = cell("x", rows, options)
    assert first.sampling == Sampling(5, 0.5, stop=("END",), extra={"fault": "429", "times": 2})
    assert second.sampling == Sampling(extra={"times": 1})
    assert json.dumps(second.sampling.extra)


def test_thinking_from_a_column_and_from_a_dict():
    rows = [{"think": v} for v in ("low", 4000.0, "off", math.nan, None, "", np.int64(7))]
    prompts = cell("x", rows, Options(params_from=("think",), think="high"))
    assert [p.sampling.think for p in prompts] == ["low", 4000, "off", None, None, None, 7], "a missing value is not set here"
    assert render.from_values([{"prompt": "x", "think": "max"}])[0].sampling.think == "max"


def test_sampling_that_cannot_be():
    assert "Did you mean max_tokens?" in line(cell, "x", [{"max_tokens": 1}], Options(params_from=("max_token",)))
    assert "Row 1: max_tokens takes a whole number from 1, not -3" in line(
        cell, "x", [{"max_tokens": 1}, {"max_tokens": -3}], Options(params_from=("max_tokens",))
    )
    assert "Row 1: think takes off, low, medium, high, max, or a number of tokens from 1, not 'lots'" in line(
        cell, "x", [{"think": "low"}, {"think": "lots"}], Options(params_from=("think",))
    )
    assert "Row 0: when is a Timestamp" in line(cell, "x", [{"when": pd.Timestamp(0)}], Options(params_from=("when",)))
    assert "add --df" in line(cell, "x", None, Options(params_from=("a",)))


def test_task_types():
    rows = [{"kind": "analysis", "task_type": "a"}, {"kind": None, "task_type": None}]
    assert [p.task_type for p in cell("x", rows)] == ["a", None]
    assert [p.task_type for p in cell("x", rows, Options(router="kind"))] == ["analysis", None]
    assert [p.task_type for p in cell("x", rows, Options(router="a-set-of-rules"))] == ["a", None]


# -- without a cell -------------------------------------------------------------------------------------------------------
def test_strings_are_sent_as_they_are():
    assert [p.text for p in render.from_values("{{ x }}\n---\ny")] == ["{{ x }}\n---\ny"]
    assert [p.text for p in render.from_values(("a", None, math.nan, "b"))] == ["a", "", "", "b"]
    assert [p.text for p in render.from_values(pd.Series(["a", None], index=[5, 6]))] == ["a", ""]
    assert [p.text for p in render.from_values("a\n\nb", options=Options(lines=True))] == ["a", "b"]
    assert render.from_values("x", options=Options(system="s"))[0].messages[0] == Message("system", "s")


def test_dicts():
    value = {"prompt": "p", "system": "s", "max_tokens": 7, "temperature": 0, "task_type": "analysis"}
    assert render.from_values(value) == [Prompt((Message("system", "s"), Message("user", "p")), Sampling(7, 0.0), "analysis")]
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}, Message("user", "so?")]
    (prompts,) = render.from_values([{"messages": talk}], options=Options(system="s"))
    assert [(m.role, m.content) for m in prompts.messages] == [("system", "s"), ("user", "hi"), ("assistant", ""), ("user", "so?")]
    assert (
        len(render.from_values([{"messages": [{"role": "system", "content": "own"}, *talk]}], options=Options(system="s"))[0].messages) == 4
    )
    assert render.from_values([{"prompt": "x", "system": None}], options=Options(system="s"))[0].messages == (Message("user", "x"),)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "the list is empty"),
        (3, "prompts is an int"),
        (b"x", "prompts is a bytes"),
        (pd.DataFrame({"a": ["x"]}), "df=frame"),
        (["x", 3], "Prompt 1 is an int"),
        ([{"promt": "x"}], "Did you mean prompt?"),
        ([{"prompt": "x", "messages": []}], "not both"),
        ([{"system": "x"}], "not neither"),
        ([{"prompt": ["x"]}], "Prompt 0: prompt should be text, not list"),
        ([{"messages": []}], "messages is empty"),
        ([{"messages": "x"}], "messages is a str"),
        ([{"messages": [{"role": "usr", "content": "x"}]}], "Did you mean user?"),
        ([{"messages": [{"role": "user"}]}], "'role' and 'content'"),
        ([{"messages": [{"role": "user", "content": [{"type": "text"}]}]}], "should be text, not list"),
        ([{"prompt": "x", "max_tokens": 0}], "Row 0: max_tokens takes a whole number from 1, not 0"),
    ],
)
def test_what_is_no_prompt(value, words):
    assert words in line(render.from_values, value)


def test_a_variable_cannot_be_named_without_a_cell():
    assert "system=" in line(render.from_values, "x", options=Options(system_from="v"))


# -- how fast -------------------------------------------------------------------------------------------------------------
def test_ten_thousand_rows_are_rendered_at_once():
    rows = [{"text": f"review {i} " * 10, "stars": i % 5, "note": None} for i in range(10_000)]
    variables = {f"v{i}": i for i in range(3_000)}
    start = time.monotonic()
    prompts = cell("Rate: {{ text }} ({{ stars }}) {{ note }} {{ v7 }}", rows, Options(params_from=()), **variables)
    assert len(prompts) == 10_000
    assert prompts[9].text.endswith("(4)  7")
    assert time.monotonic() - start < 10  # 0.2 s on two quiet cores


@pytest.mark.parametrize(
    "body",
    [
        "token: ${{ secrets.TOKEN }}", "${{ name.x }}", "${{ name|int.x }}", "{{{ name }}}", "{{{{raw}}}}", "{{#each items}}{{this}}{{/each}}",
        "{{> partial}}", "{{/if}}", "{{^a}}", "{{- end }}", "{{ .Values.image }}", "{{ $json.name }}", "style={{ color: 'red' }}",
        "\\newcommand{{arg}}", "{% load static %}", "{% x", "{%", "{{ name", "{{ name }", "{{}}", "{% if name %}x", "{{# c",
    ],
)  # fmt: skip
def test_braces_of_others_are_told_of_raw(body):
    """`${{ … }}` is GitHub's; `{{{` and `{{#` are of Handlebars. What is only a misspelt name of ours is answered with the name."""
    assert line(texts, body, name="Kim").endswith(" --raw sends the body untouched.")
    assert line(texts, body, [{"name": "Kim"}]).endswith(" --raw sends the body untouched.")
    assert texts(body, None, Options(raw=True), name="Kim") == [body]


def test_a_price_in_dollars_and_a_misspelt_name_are_ours():
    assert texts("It costs ${{ price }}.", [{"price": 3}]) == ["It costs $3."]
    assert line(texts, "{{ prize }}", [{"price": 3}]).endswith("Did you mean price? (row 0)")


def test_each_line_of_a_body_ends_at_a_newline_and_nowhere_else():
    body = "\ufeffgood\u2028but late\n \x0b\r\n\tfine\x85indeed \rpage\x0ctwo\x1c\n"
    want = ["good\u2028but late", "fine\x85indeed", "page\x0ctwo\x1c"]
    assert [p.messages[-1].content for p in render.render(body, rows=None, variables={}, options=Options(lines=True))] == want
    assert [p.messages[-1].content for p in render.from_values(body, options=Options(lines=True))] == want
