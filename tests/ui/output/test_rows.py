"""A static table whose rows open without a script: every text there to its limit, escaped, within the bytes of a run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from ui.facts import failed, ok, record
from ui.output.test_static import EVIL, page

from holynb.types import Usage
from holynb.ui.output import plots, rows
from holynb.ui.output.report import MAX_ROWS
from holynb.ui.output.static import as_html, as_text, bundle


def opened(html: str) -> list[str]:
    """What each row has when it is open."""
    return re.findall(r'<div class="holynb-full">(.*?)</div></div></details>', html, re.DOTALL)


def test_a_row_opens_with_prompt_answer_thoughts_attempts_and_cost() -> None:
    answer = ok(
        "An answer. " * 150, attempts=2, reasoning="Hm. " * 20, usage=Usage(10, 5, tokens_reasoning=3), cost=Decimal("0.42"), route="a/b"
    )
    html = as_html(record([answer, failed("timeout", "no answer in 60 s")], ["The prompt. " * 100, "x"]))
    first, second = opened(html)
    for part in (answer.text, "The prompt. " * 100, "Hm. " * 20, "thought · 3 tokens", "2 attempts", "cost $0.42"):
        assert str(part) in first
    assert "timeout: no answer in 60 s" in second
    assert "4 attempts" in second
    assert not page(html).tags["script"]


def test_where_no_style_sheet_is_kept_the_cells_of_an_opened_row_begin_beside_it() -> None:
    """JupyterLab sets cells in the middle, and keeps each cell's own style in a notebook that is not trusted."""
    one = record([ok("yes"), failed("timeout", "no answer")], ["q", "r"])
    two = record([ok("yes"), ok("no")], ["q"], variants=("a/x", "b/y"))
    for html in (as_html(one), as_html(two)):
        cells = re.findall("<td[^>]*>", html)
        assert len(cells) >= 4
        assert all("vertical-align:top" in cell for cell in cells)


def test_what_is_longer_says_the_code_that_shows_it() -> None:
    long = "x" * 5_000
    named = record([ok(long), failed("server", long)], value="labels", run="r1", labels=None)
    first, second = opened(as_html(named))
    assert "x" * 2_000 + "<span" in first
    assert "… 3,000 more characters: <code>labels.loc[0, &quot;text&quot;]</code>" in first
    assert "<code>labels.loc[1, &quot;error&quot;]</code>" in second
    assert "<code>labels[&quot;text&quot;].iloc[0]</code>" in opened(as_html(replace(named, labels=["a", "a"])))[0], (
        "a label may stand twice"
    )
    assert "<code>%infer show r1</code>" in opened(as_html(replace(named, value="")))[0], "no variable holds it"
    assert "<code>labels.loc[0, &quot;summary&quot;]</code>" in opened(as_html(replace(named, into="summary")))[0]
    frame = pd.DataFrame({"text": [long, None], "error": [None, long]})
    assert len(eval('labels.loc[0, "text"]', {"labels": frame})) == 5_000


@pytest.mark.parametrize("huge", ["x" * 20_000, "한글 답변 " * 4_000, EVIL * 300, '"<&>' * 5_000])
def test_ten_thousand_rows_with_five_hundred_huge_failures_stay_under_300_kb(huge: str) -> None:
    n = 10_000 if huge[0] == "x" else 2_500
    many: list[Any] = [failed("server", f"{i} {huge}", route="sim/x") if i % 20 == 7 else ok(huge, reasoning=huge) for i in range(n)]
    shown = record(many, [f"{i} {huge[:3000]}" for i in range(n)], value="labels")
    end, drawn = bundle(shown, "table"), plots.bundle(shown)
    assert len(json.dumps([end, drawn], ensure_ascii=False).encode()) <= 300_000
    read = page(end["text/html"])
    assert not read.tags["script"]
    assert read.tags["tr"] >= 1 + MAX_ROWS + 60, "failed rows go on after the first"
    if huge[0] != '"':  # each of these is six bytes
        assert end["text/html"].count('<details class="holynb-row">') >= MAX_ROWS
    told = re.search(r"then ([\d,]+) that failed(?:, without ([\d,]+) more)?", end["text/html"])
    assert told
    late = sum(i % 20 == 7 for i in range(MAX_ROWS, n))
    assert int(told[1].replace(",", "")) + int((told[2] or "0").replace(",", "")) == late


def test_every_failed_row_is_there_where_there_is_room() -> None:
    shown = record([failed("server", f"down {i}") if i % 10 == 3 else ok() for i in range(300)])
    html = as_html(shown)
    assert page(html).tags["tr"] == 1 + MAX_ROWS + 25
    assert "The first 50 of 300 rows, then 25 that failed; the value holds them all." in html
    assert "down 293" in html


def test_columns_are_the_frames() -> None:
    shown = record([ok(cached=True, attempts=0), failed("timeout")])
    html = as_html(shown)
    assert re.findall(r"<th[^>]*>(\w+)</th>", html) == ["prompt", "text", "status", *rows.NUMBERS]
    assert re.findall(r'<td class="k[^>]*>(\w+)</td>', html) == ["ok", "error"]
    assert as_text(shown).splitlines()[0].split() == ["prompt", "text", "status", *rows.NUMBERS]


def test_into_shows_the_frame_with_its_column() -> None:
    source = pd.DataFrame({"city": ["Seoul", None], "n": [1, 2], "note": [EVIL.replace("\ud800", ""), "b"]})
    shown = record([ok("one"), ok("two")], into="summary", source=source)
    html = as_html(shown)
    assert re.findall(r"<th[^>]*>(\w+)</th>", html)[:5] == ["city", "n", "note", "summary", "status"]
    assert "Seoul" in html
    assert not page(html).tags["script"]
    head, first, second = as_text(shown).splitlines()[:3]
    assert head.split()[:4] == ["city", "n", "note", "summary"]
    assert "Seoul" in first
    assert "two" in second


def test_a_run_that_fails_the_same_way_everywhere_says_it_once() -> None:
    refused = replace(failed("auth", "401: the key was refused"), route="openai/gpt")
    shown = record([refused] * 24)
    for text in ("".join(page(as_html(shown)).texts), as_text(shown)):
        assert text.count("the key was refused") == 1
        assert "24 of 24 failed: 24 auth. %infer key openai, then %infer run --only failed" in text
    assert as_text(record([refused, ok()])).count("the key was refused") > 1, "another row answered: then the table says which"


def test_a_formatted_answer_is_formatted_in_its_row_too() -> None:
    html = as_html(record([ok("# Title\n\n<script>alert(1)</script>"), ok("b")], format="markdown"))
    assert "<h3>Title</h3>" in opened(html)[0] or re.search(r"<h\d[^>]*>Title", opened(html)[0])
    assert not page(html).tags["script"]
