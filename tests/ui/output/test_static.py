"""The final output: complete, escaped, bounded, the same without CSS and without a kernel."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from ui.facts import failed, ok, record

from holynb.events import Ended, Gauge
from holynb.results import summarize
from holynb.types import Outcome, Usage
from holynb.ui.output.report import MAX_ROWS, Report
from holynb.ui.output.static import as_html, as_text, bundle, charts

EVIL = '<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31mred\x1b[0m \ud800 &amp; "quoted"'


class Page(HTMLParser):
    """Tags seen, and whether each that was opened was closed."""

    VOID = frozenset({"circle", "path", "polyline", "meta", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)


def page(html: str) -> Page:
    read = Page(html)
    assert read.open == []
    return read


def test_that_answers_were_cut_off_is_a_line_of_its_own() -> None:
    rows = record([replace(ok("a"), finish_reason="length"), failed("timeout"), ok("b")])
    told = "1 of 2 answers was cut off at the token limit: raise --max-tokens."
    assert f"\n{told}" in as_text(rows)
    html = as_html(rows)
    assert f'<div class="holynb-head holynb-note">{told}</div>' in html
    assert re.search(r'<div class="holynb-head holynb-bad">1 of 3 failed: 1 timeout\.[^<]*</div>', html)


def test_one_prompt_shows_its_answer_in_full() -> None:
    answer = "\n".join(f"line {i}  with   spaces" for i in range(500))
    html = as_html(record([ok(answer)]))
    assert answer in html
    assert 'dir="auto" style="white-space:pre-wrap"' in html
    assert page(html).tags["table"] == 0
    assert answer in as_text(record([ok(answer)]))


@pytest.mark.parametrize("rows", [1, 3])
def test_what_models_and_servers_say_is_text(rows: int) -> None:
    shown = record([ok(EVIL)] * rows, [EVIL] * rows, notes=[EVIL], labels=[EVIL] * rows)
    html = as_html(shown)
    read = page(html)
    assert not read.tags["script"]
    assert all(v and v.startswith("data:image/svg+xml;base64,") for tag, k, v in read.attributes if (tag, k) == ("img", "src")), (
        "ours alone"
    )
    assert not [a for a in read.attributes if a[1].startswith("on")]
    assert "<script>alert(1)</script>" in "".join(read.texts)
    assert "\x1b" not in html + as_text(shown)
    html.encode()
    as_text(shown).encode()


def test_errors_of_servers_are_escaped_too() -> None:
    html = as_html(record([failed("server", EVIL), ok()]))
    assert page(html).tags["script"] == 0
    assert "server: &lt;script&gt;" in html


def test_summary_names_failures_and_the_way_back() -> None:
    rows = [ok()] * 193 + [failed()] * 5 + [failed("content_filter", "refused by a filter")] * 2
    for text in ("".join(page(as_html(record(rows))).texts), as_text(record(rows))):
        assert "7 of 200 failed: 5 timeout, 2 content_filter. %infer run --only failed" in text
        assert "timeout: no answer in 60 s" in text
        assert "content_filter: refused by a filter" in text


def test_savings_and_stop_are_said() -> None:
    from dataclasses import replace

    from holynb.results.summary import summarize

    rows = [ok(cached=True, attempts=0, cost=Decimal(0))] * 3 + [Outcome("cancelled", "half")]
    summary = replace(summarize(rows, 1.0, stopped=True), saved=Decimal("1.50"))
    text = as_text(record(rows, summary=summary))
    assert "saved $1.50" in text
    assert "stopped" in text
    assert "1 cancelled" in text
    assert "half" in text


def test_long_tables_say_how_many_more() -> None:
    html = as_html(record([ok()] * 200))
    assert page(html).tags["tr"] == MAX_ROWS + 1
    assert "… and 150 more of 200 rows" in html
    assert "… and 190 more of 200 rows" in as_text(record([ok()] * 200))
    assert "more of" not in as_html(record([ok()] * 20))


def test_a_hundred_rows_of_the_longest_and_worst_text_stay_under_300_kb() -> None:
    worst = '"<&>' * 5_000
    assert len(as_html(record([ok(worst, cost=Decimal("0.123456"))] * 100, [worst] * 100)).encode()) < 250_000
    assert len(as_html(record([ok("한글 답변 " * 400)] * 100, ["한글 " * 400] * 100)).encode()) < 250_000


def test_rows_stand_under_their_own_labels_in_their_own_direction() -> None:
    html = as_html(record([ok("שלום"), ok("b")], ["x", "y"], labels=[["a", 1], ["a", 1]]))
    assert html.count(">a, 1<") == 2
    assert re.search('<td class="p" dir="auto"[^>]*><details [^>]*><summary><span>שלום</span></summary>', html)


def test_what_all_prompts_begin_with_is_said_once() -> None:
    shown = record([ok()] * 3, [f"Say in <one> word what this is:\n\nthing {c}" for c in "abc"])
    assert ">…b<" in as_html(shown)
    assert as_html(shown).count("All prompts begin: Say in &lt;one&gt; word what this is: thing<") == 1
    assert "…b " in as_text(shown)
    assert "All prompts begin: Say in <one> word what this is: thing\n" in as_text(shown)
    assert ">same<" in as_html(record([ok()] * 2, ["same", "same"]))
    assert "All prompts begin" not in as_html(record([ok()] * 2, ["same", "same"])) + as_html(shown, "charts")


def test_a_hundred_kilobytes_in_a_cell_cost_no_more_than_a_page() -> None:
    import time

    began = time.process_time()
    as_html(record([ok("\x1b[31m한 " * 100_000)] * 100, ["x " * 500_000] * 100))
    assert time.process_time() - began < 5


def test_unknown_is_a_question_mark_and_skipped_costs_nothing() -> None:
    from holynb.types import Usage

    text = as_text(record([ok(cost=None, usage=Usage(None, 7)), Outcome("skipped"), None]))
    first, second, third = text.splitlines()[1:4]
    assert re.search(r" \? +7 ", first)
    assert "?" in first.split()[-3:]
    assert "skipped" in second
    assert "?" not in second
    assert "running" in third
    unsent = as_text(record([Outcome("cancelled")] * 2))
    assert "?" not in unsent, "what was never sent costs nothing that could be known"


def test_show_chooses_the_parts() -> None:
    shown = record([ok(), ok(), failed()])
    parts = {s: page(as_html(shown, s)).tags for s in ("all", "table", "charts")}
    assert [(t["table"], bool(t["img"])) for t in parts.values()] == [(1, True), (1, False), (0, True)]
    assert "prompt 0" not in as_text(shown, "charts")
    assert "1 of 3 failed" in as_text(shown, "charts")
    assert set(bundle(shown)) == {"text/html", "text/plain"}


def test_charts_show_what_is_known_and_nothing_else() -> None:
    events = [Ended(i, ok(), 100.0 + i) for i in range(5)]
    gauges = [Gauge("cpu", 900, 2**34, 100.0 + i, ours=2**29) for i in range(5)]
    assert list(charts(record([ok()] * 5, events=[*events, *gauges]))) == ["cost", "latency", "tokens", "memory"]
    assert "0.537 GB" in charts(record([ok()] * 5, events=[*events, *gauges]))["memory"]
    assert list(charts(record([ok(cost=None, ttft_s=None)] * 5))) == ["latency", "tokens"]
    assert "TTFT" not in charts(record([ok(cost=None, ttft_s=None)] * 5))["latency"]
    assert charts(record([ok()])) == {}
    assert "simulated" in charts(record([ok()] * 2))["cost"]
    assert "simulated" not in charts(record([ok(route="openai/gpt-4.1")] * 2))["cost"]


def test_runs_from_the_log_have_no_times_and_are_drawn_by_row() -> None:
    drawn = charts(record([ok()] * 5, events=()))
    assert "row 4" in drawn["latency"]


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = as_html(record([ok()] * 5))
    assert not re.search(r'src="(?!data:image/svg\+xml;base64,)|href=|url\(|@import|<script', html)
    assert "http" not in html
    for drawing in charts(record([ok()] * 5)).values():
        assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")


def test_colours_come_from_the_page_with_a_fallback_each() -> None:
    variables = re.findall(r"var\(([^)]*)\)", as_html(record([ok(), failed()])))
    assert variables
    assert all("," in v for v in variables)


def test_dollars_of_the_simulator_are_called_so() -> None:
    """One row has no chart, and a terminal has none at all: the line itself says whose money it is."""
    real = ok(route="openai/gpt-4.1-mini")
    assert "· $0.010 simulated · 1.0 s" in as_text(record([ok()]))
    assert "· $0.010 simulated ·" in as_html(record([ok(), failed()]))
    assert "· $0.020 partly simulated ·" in as_text(record([ok(), real]))
    assert "simulated" not in as_text(record([real]))
    assert "simulated" not in as_text(record([ok(cost=Decimal(0), cached=True), failed()])), "nothing was priced"


def test_answers_held_to_a_schema_are_shown_in_their_columns() -> None:
    """The display is the value's: a frame with a column for each property does not show JSON in one."""
    from holynb import schema

    several = {"mood": {"enum": ["good", "bad"]}, "stars": {"type": "integer"}, "words": {"type": "array", "items": {"type": "string"}}}
    answer_schema = schema.load({"type": "object", "properties": several, "required": ["mood"]})
    rows = [ok('{"mood": "good", "stars": 5, "words": ["<b>", "빨라"]}'), ok('{"mood": "bad"}'), failed("invalid_output", "it is not JSON")]
    shown = record(rows, schema=answer_schema)
    text = as_text(shown).splitlines()
    assert text[0].split()[:5] == ["prompt", "mood", "stars", "words", "status"]
    assert text[1].split()[3:7] == ["good", "5", '["<b>",', '"빨라"]']
    html = as_html(shown)
    assert re.findall(r"<th[^>]*>(\w+)</th>", html)[1:5] == ["mood", "stars", "words", "status"]
    assert "&lt;b&gt;" in html
    assert '"<b>"' not in html
    assert re.search('colspan="3"><details [^>]*><summary><span>invalid_output: it is not JSON', html), (
        "an error has the room of all of them"
    )
    many = schema.load({"type": "object", "properties": {f"c{i}": {"type": "integer"} for i in range(9)}})
    assert ">text</th>" in as_html(record([ok('{"c0": 1}')] * 2, schema=many)), "nine have no room"


def test_where_no_style_sheet_is_kept_text_stands_left_and_a_figure_on_one_line() -> None:
    """JupyterLab takes the style sheet from a notebook that it does not trust, and sets tables flush right: the cells say it themselves."""
    html = as_html(record([ok(), failed()])).partition("</style>")[2]
    cells = re.findall(r"<td([^>]*)>(.*?)</td>", html, re.DOTALL)
    prose = [attributes for attributes, _ in cells if 'dir="auto"' in attributes]
    assert len(prose) == 4
    assert all("text-align:left" in attributes for attributes in prose)
    figures = [text for attributes, text in cells if 'class="n"' in attributes]
    assert any("0.50&nbsp;s" in text for text in figures)
    assert not any(" " in text for text in figures)


def test_rows_that_went_to_several_routes_say_which() -> None:
    shown = record([ok(route="a/x"), ok(route="b/y"), failed(route="b/y")])
    html = as_html(shown).partition("</style>")[2]
    assert re.findall(r"<th[^>]*>(\w+)</th>", html)[:5] == ["prompt", "text", "status", "route", "tokens_in"]
    assert (html.count(">a/x<"), html.count(">b/y<")) == (1, 2)
    assert "a/x" in as_text(shown).splitlines()[1].split()
    assert ">route<" not in as_html(record([ok(route="a/x"), failed(route="a/x")]))


def test_what_was_thought_is_folded_above_the_answer_and_escaped():
    outcome = Outcome(
        "ok",
        "Tea.",
        route="a/b",
        attempts=1,
        usage=Usage(9, 700, tokens_reasoning=650),
        cost=Decimal(0),
        reasoning="<script>\x1b[31mhm</script>",
    )
    report = one(outcome)
    html = as_html(report)
    assert '<details class="holynb-thoughts"><summary>thought · 650 tokens</summary>' in html
    assert "&lt;script&gt;hm&lt;/script&gt;" in html
    assert html.index("<details") < html.index("Tea.")
    assert " open" not in html[html.index("<details") : html.index("<summary")]
    text = as_text(report)
    assert text.startswith("Tea.")
    assert "9 + 700 tokens (650 thought)" in text
    assert "script" not in text


def test_thoughts_of_which_the_tokens_are_not_known_are_counted_in_characters_and_cut():
    html = as_html(one(Outcome("ok", "Tea.", reasoning="x" * 60_000)))
    assert "<summary>thought · 60,000 characters</summary>" in html
    assert "… and 10,000 more characters; the value holds them all." in html
    assert "<details" not in as_html(one(Outcome("ok", "Tea.", usage=Usage(1, 9, tokens_reasoning=7))))


def one(outcome: Outcome) -> Report:
    return Report("r on a/b", ["p"], [outcome], summarize([outcome], 1.0))


@pytest.mark.parametrize(
    ("how", "shown"), [("text", "<pre class"), ("markdown", '<div class="holynb-markdown"><h3'), ("code", "<pre class")]
)
def test_one_answer_is_shown_as_it_was_asked_for(how: str, shown: str) -> None:
    final = bundle(record([ok("# a\n```\nprint(1)\n```")], format=how))
    assert f'<div class="holynb-shown">{shown}' in final["text/html"]
    assert final["text/plain"].startswith("print(1)\n" if how == "code" else "# a\n```")
    assert ("<code>print(1)</code>" in final["text/html"]) == (how == "code")


def test_nothing_is_charted_of_a_run_under_a_second_nor_of_one_dot() -> None:
    brief = summarize([ok()] * 5, 0.42)
    assert charts(record([ok()] * 5, summary=brief)) == {}
    assert brief.line().endswith(" · 0.42 s"), "and its time is not 0.0 s, nor 0.4"
    gauges = [Gauge("cpu", 900, 2**34, 100.0, ours=2**29)]
    events = [Ended(i, ok(ttft_s=None), 100.0 + i) for i in range(5)]
    assert list(charts(record([ok(ttft_s=None)] * 5, events=[*events, *gauges]))) == ["cost", "latency", "tokens"]


def test_routes_side_by_side_have_a_line_each() -> None:
    rows = [ok(route=r, latency_s=w) for _ in range(4) for r, w in (("sim/echo", 0.5), ("openai/gpt-4.1-mini", 2.0))]
    drawn = charts(record(rows, compared=("sim/echo", "openai/gpt-4.1-mini")))
    assert {name: picture.count("<polyline") for name, picture in drawn.items()} == {"cost": 2, "latency": 2, "tokens": 2}
    assert 'aria-label="Latency, p50: sim/echo 0.50 s, openai/gpt-4.1-mini 2.0 s"' in drawn["latency"]
    assert ">echo</text>" in drawn["cost"]
    assert ">gpt-4.1-…</text>" in drawn["cost"]
