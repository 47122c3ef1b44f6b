"""`%infer roi` in a real IPython: the article's table to the dollar range, own GPUs at a measured speed, invalid arguments."""

from __future__ import annotations

import json
from decimal import Decimal

import pandas as pd
import plotly.graph_objects as go
import pytest
from ui.shells import Here

import holynb
from holynb import runlog
from holynb.config import settings
from holynb.errors import BadOption
from holynb.pricing import spending
from holynb.types import Route
from holynb.ui.commands import roi, roi_report


def test_the_articles_table_to_the_dollar_range(here: Here) -> None:
    result = here("%infer roi --requests-per-day 10000 --tokens 333..667 --provider holysheep")
    lines = {line.split()[0]: line for line in result.out.splitlines() if line.startswith("holysheep/")}
    for route, span in (
        ("gpt-4.1", "$800 to $1,600"),
        ("claude-sonnet-4", "$1,500 to $3,000"),
        ("gemini-2.5-flash", "$250 to $500"),
        ("deepseek-v3.2", "$42 to $84"),
    ):
        assert span in lines[f"holysheep/{route}"]
    assert "100 to 200 million tokens in 30 days" in result.out
    assert "AWS SageMaker from $5,000, Azure OpenAI from $3,000" in result.out
    assert "not measured here" in result.out
    assert here("%infer roi").out.partition("\n")[2] == result.out.partition("\n")[2], "the defaults are the article's"


def test_the_value_is_a_frame_shown_once(here: Here) -> None:
    result = here("%infer roi --own 4xA100-80GB --per-hour 2.5 --tokens-per-s 9000 --utilisation 0.5")
    assert isinstance(result.value, pd.DataFrame)
    assert result.value.index.tolist()[0] == "holysheep/gpt-4.1"
    gpt = result.value.loc["holysheep/gpt-4.1"]
    assert gpt["month_high"] == pytest.approx(667 * 10_000 * 30 * 8 / 1e6)
    assert gpt["saving_low"] == pytest.approx(1 - gpt["month_high"] / 7200)
    assert pd.isna(result.value.loc["holysheep/deepseek-v3.2", "flips_at"]), "full GPUs cost more a token"
    assert result.out.count("holysheep/gemini") == 2, "in the table, and among the assumed"
    assert "never" in result.out
    assert "busy 50% of the time, 9,000 tokens/s: $7,200 a month" in result.out
    assert "Stay with the API" in result.out


def test_own_gpus_by_a_measured_speed(here: Here) -> None:
    settings.override(price={"sim/echo": {"input": 1, "output": 1}})
    holynb.infer([f"row number {i} of this" for i in range(10)], "sim/stream", max_tokens=5, name="speed").wait()
    speed = spending.speed(runlog.log(), Route("sim", "stream"))
    assert (speed.run, speed.rows) == ("speed", 10)
    assert speed.tokens_per_s == pytest.approx(10 * (5 + 5) / 0.5, rel=0.3), (
        "ten streams of half a second at once, five tokens in, five out"
    )
    out = here("%infer roi sim/echo --own 1xCPU --per-hour 0.1 --measured sim/stream").out
    assert f"{speed.tokens_per_s:,.0f} tokens/s" in out
    assert (
        "speed as sim/stream made it over 10 rows in run speed, so compare routes whose work that model does well enough, how busy is assumed"
        in out
    )


def test_where_own_is_cheaper_the_route_is_so_many_times_it(here: Here) -> None:
    out = here("%infer roi --own 1xA100-80GB --per-hour 0.5 --tokens-per-s 9000").out
    (gpt,) = [line for line in out.splitlines() if line.startswith("holysheep/gpt-4.1")]
    assert "2.2 to 4.4 × own" in gpt
    assert "%" not in gpt


def test_a_speed_needs_a_run_that_is_large_enough(here: Here) -> None:
    holynb.infer([f"row {i}" for i in range(7)], "sim/echo").wait()
    assert spending.speed(runlog.log(), Route("sim", "echo")) is None
    assert "no run of 8 rows or more there. Measure it: %infer bench sim/echo" in here.refused(
        "%infer roi --own 1xA100 --per-hour 1 --measured sim/echo"
    )


def test_routes_of_ones_own_and_unknown_prices(here: Here) -> None:
    out = here("%infer roi openai/gpt-4.1-nano,vllm/mine --tokens 500").out
    assert "openai/gpt-4.1-nano" in out
    assert [line.split()[1:4] for line in out.splitlines() if line.startswith("vllm/mine")] == [["?", "?", "?"]]
    assert "150 million tokens" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--own 4xA100", "needs --per-hour"),
        ("--per-hour 3", "name them with --own"),
        ("--tokens-per-s 3", "name them with --own"),
        ("--tokens many", "--tokens takes"),
        ("--requests-per-day 0", "a whole number from 1"),
        ("--own 0xA100 --per-hour 1", "--own takes"),
        ("--own 1xA --per-hour nan", "--per-hour takes"),
        ("--own 1xA --per-hour 1 --utilisation 2", "--utilisation takes"),
        ("--provider nowhere", "no prices are listed"),
        ("openai/gpt-4.1 --provider openai", "not both"),
        ("--onw 3", "Did you mean --own"),
        ("--own 1xA --per-hour 1 --measured sim/echo --tokens-per-s 3", "Use one of them"),
        ("nowhere/x", "no provider"),
    ],
)
def test_words_that_do_not_hold_are_one_line(here: Here, words: str, says: str) -> None:
    assert says in here.refused(f"%infer roi {words}")


def test_the_page_and_the_figure() -> None:
    comparison = roi.parse_args(["--own", "4xA100-80GB", "--per-hour", "2.5", "--tokens-per-s", "2000"])
    page = roi_report.as_html(comparison)
    assert "$800 to $1,600" in page
    assert comparison.advice.replace("'", "&#x27;") in page
    spec = roi_report.figure(comparison)
    figure = go.Figure(data=spec["data"], layout=spec["layout"])
    assert [t.name for t in figure.data] == [*(str(line.route) for line in comparison.lines), "4 × A100-80GB"]
    gpt, own = figure.data[0], figure.data[-1]
    assert float(gpt.y[16]) == pytest.approx(float(sum(comparison.lines[0].month) / 2), rel=1e-3), "the load itself is in the middle"
    assert own.y[-1] > own.y[0] == 7200.0, "more load needs more sets"
    json.dumps(spec)


def test_help_names_every_option(here: Here) -> None:
    out = here("%infer roi --help").out
    assert all(f in out for f in roi.FLAGS)


def test_nothing_priced_still_says_so() -> None:
    comparison = roi.parse_args(["vllm/mine"])
    assert "No price is known" in roi_report.as_text(comparison)
    assert roi_report.table(comparison)["month_low"].isna().all()
    with pytest.raises(BadOption):
        roi.parse_args(["--tokens", "9..3"])
    assert roi_report.table(comparison).dtypes.to_dict() == roi_report.table(roi.parse_args([])).dtypes.to_dict()
    assert roi.parse_args([]).lines[0].input == Decimal(8)


def test_without_own_gpus_there_is_nothing_to_compare_with(here: Here) -> None:
    """Two empty columns would push the figures off a narrow page."""
    line = "%infer roi --requests-per-day 10000 --tokens 333..667 --provider holysheep"
    assert "own" not in here(line).out.splitlines()[1]
    both = here(f"{line} --own 4xA100-80GB --per-hour 12").out
    assert "saved against own" in both
    assert "$12.00 an hour each" in both


def test_almost_all_is_not_all(here: Here) -> None:
    """$42 to $84 of $35,000 is not everything saved."""
    out = here("%infer roi --requests-per-day 10000 --tokens 333..667 --provider holysheep --own 4xA100-80GB --per-hour 12").out
    assert "99.8 to 99.9 %" in out
    assert "100 %" not in out
