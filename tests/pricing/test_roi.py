"""A month of APIs against own GPUs: the article's table to the dollar range, the load at which the cheaper one changes, and advice."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.errors import BadOption
from holynb.pricing.roi import ARTICLE, OwnGpus, Workload, listed_routes, parse_own, parse_tokens, roi, round_dollars
from holynb.types import Route

ARTICLES = Workload(10_000, (333, 667))
A100S = OwnGpus(4, "A100-80GB", Decimal(2))
pytestmark = pytest.mark.usefixtures("no_project")


# -- the article's table -----------------------------------------------------------------------------------------------------
def test_the_articles_table():
    comparison = roi(ARTICLES, listed_routes("holysheep"))
    assert {line.route.model: (round_dollars(line.month[0]), round_dollars(line.month[1])) for line in comparison.lines} == {
        "gpt-4.1": ("$800", "$1,600"),
        "claude-sonnet-4": ("$1,500", "$3,000"),
        "gemini-2.5-flash": ("$250", "$500"),
        "deepseek-v3.2": ("$42", "$84"),
    }
    assert all(line.assumed for line in comparison.lines)
    assert ARTICLES.month == (99_900_000, 200_100_000)
    assert dict(ARTICLE) == {"AWS SageMaker": 5000, "Azure OpenAI": 3000}


def test_input_and_output_have_their_own_prices():
    (line,) = roi(Workload(1000, (1000, 1000), out_share=0.25), [Route("openai", "gpt-4.1")]).lines
    assert line.month == (Decimal("105"), Decimal("105"))  # 22.5 M in at $2, 7.5 M out at $8


def test_an_unknown_price_is_unknown():
    comparison = roi(ARTICLES, [Route("vllm", "m")], A100S)
    assert comparison.lines[0].month is comparison.lines[0].saving is comparison.lines[0].break_even_requests is None
    assert "No price is known" in comparison.advice


# -- own GPUs ----------------------------------------------------------------------------------------------------------------
def test_own_gpus_cost_by_the_hour_and_the_saving_is_a_share_of_that():
    comparison = roi(ARTICLES, [Route("holysheep", "gpt-4.1")], A100S)
    assert comparison.own_month == (5760, 5760)
    (line,) = comparison.lines
    assert [round(s, 3) for s in line.saving] == [Decimal("0.722"), Decimal("0.861")]
    assert line.break_even_requests == 48_000  # 720 M tokens a month at $8 are $5,760
    assert roi(Workload(line.break_even_requests, (500, 500)), [line.route], A100S).lines[0].saving == (0, 0)


def test_more_load_than_they_carry_needs_more_of_them():
    slow = OwnGpus(1, "L4", Decimal("0.3"), tokens_per_s=50, utilisation=0.5)
    assert slow.capacity() == 64_800_000
    assert roi(ARTICLES, [Route("holysheep", "gpt-4.1")], slow).own_month == (2 * 216, 4 * 216)


def test_where_a_token_of_full_gpus_is_dearer_nothing_ever_flips():
    comparison = roi(ARTICLES, listed_routes("holysheep"), OwnGpus(4, "A100-80GB", Decimal(2), 2500, 0.5))
    assert round(comparison.own_per_million, 3) == Decimal("1.778")
    assert [line.break_even_requests is None for line in comparison.lines] == [False, False, False, True]  # $0.42 a million is below 1.78


@given(
    st.floats(1, 1e6),
    st.floats(1, 1e4),
    st.floats(0, 1),
    st.integers(1, 64),
    st.decimals("0.01", "100", places=2),
    st.one_of(st.none(), st.floats(1, 1e6)),
    st.floats(0.01, 1),
)
def test_at_the_load_where_it_flips_both_cost_the_same(per_day, tokens, share, devices, hour, speed, used):
    own = OwnGpus(devices, "X", hour, speed, used)
    comparison = roi(Workload(per_day, (tokens, tokens), share), listed_routes("openai"), own)
    assert comparison.advice
    for line in comparison.lines:
        if line.break_even_requests is None:
            assert comparison.own_per_million is not None
            assert comparison.own_per_million >= min(line.input, line.output)
            continue
        at = roi(Workload(line.break_even_requests, (tokens, tokens), share), [line.route], own).lines[0]
        below = roi(
            Workload(max(line.break_even_requests - 1, 0.5), (tokens, tokens), share), [line.route], OwnGpus(devices, "X", hour)
        ).lines[0]
        assert at.month[0] >= own.month() * Decimal("0.999999")
        assert line.break_even_requests == 1 or below.saving[0] > Decimal("-0.000001")


# -- advice ------------------------------------------------------------------------------------------------------------------
def test_the_advice_and_the_flip_agree() -> None:
    """$72 lies within $42 to $84: own GPUs are no advice at 10,000 requests a day when the table says that they are cheaper from 11,400 on."""
    comparison = roi(ARTICLES, [Route("holysheep", "deepseek-v3.2")], OwnGpus(1, "CPU", Decimal("0.10"), 400.0))
    assert comparison.lines[0].break_even_requests
    assert comparison.lines[0].break_even_requests > ARTICLES.requests_per_day
    assert comparison.advice.startswith("Stay with the API")


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (None, ["deepseek-v3.2", "$42 to $84", "36 × as much"]),
        (A100S, ["Stay with the API", "$5,800", "cheaper from about 910,000 requests a day"]),
        (OwnGpus(4, "A100-80GB", Decimal(2), 2500), ["Stay with the API", "even fully used a token of theirs costs more"]),
        (
            OwnGpus(1, "H200", Decimal("0.5"), 20_000, 0.6),
            ["Stay with holysheep/deepseek-v3.2 if its answers are good enough", "$360 for 1 × H200"],
        ),
        (OwnGpus(1, "toy", Decimal("0.01"), 20_000, 0.6), ["Own GPUs: 1 × toy cost $7.20 a month", "60% utilisation"]),
        (OwnGpus(1, "toy", Decimal("0.01")), ["Own GPUs", "150 tokens a second (not measured"]),
    ],
)
def test_one_sentence_with_its_reason(own, words):
    advice = roi(ARTICLES, listed_routes("holysheep"), own).advice
    assert all(word in advice for word in words), advice
    assert "\n" not in advice
    assert advice.endswith(".")


def test_one_route_alone_is_not_compared_with_itself():
    assert roi(ARTICLES, [Route("holysheep", "gpt-4.1")]).advice.startswith("holysheep/gpt-4.1 costs $800 to $1,600 a month")


# -- words -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "$0"),
        ("799.2", "$800"),
        ("1600.8", "$1,600"),
        ("41.958", "$42"),
        ("0.0423", "$0.042"),
        ("9.96", "$10"),
        ("0.996", "$1"),
        ("12345", "$12,000"),
        ("99.6", "$100"),
        ("7.2", "$7.20"),
        ("3", "$3"),
        ("0.5", "$0.50"),
    ],
)
def test_forecasts_have_two_digits_that_count(value, shown):
    assert round_dollars(Decimal(value)) == shown


def test_what_a_person_types():
    assert parse_tokens("333..667") == (333, 667)
    assert parse_tokens(" 1,000 .. 2_000 ") == (1000, 2000)
    assert parse_tokens("500") == (500, 500)
    assert parse_own("4xA100-80GB") == (4, "A100-80GB")
    assert parse_own("2 × H200") == (2, "H200")
    assert parse_own("RTX 4090") == (1, "RTX 4090")
    assert [parse_own(t) for t in ("2x4090", "4090", "2x24GB", "80 GB")] == [(2, "4090"), (1, "4090"), (2, "24GB"), (1, "80 GB")]


@pytest.mark.parametrize("text", ["", "0", "667..333", "0..5", "a..b", "1.5", "-3"])
def test_tokens_that_cannot_be(text):
    with pytest.raises(BadOption, match=r"333\.\.667"):
        parse_tokens(text)


@pytest.mark.parametrize("text", ["", "4x", "0xA100", "-1xA100", "80"])
def test_gpus_that_cannot_be(text):
    with pytest.raises(BadOption, match="4xA100-80GB"):
        parse_own(text)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Workload(0, (1, 2)),
        lambda: Workload(float("nan"), (1, 2)),
        lambda: Workload(1, (2, 1)),
        lambda: Workload(1, (1, 2), 1.5),
        lambda: OwnGpus(0, "X", Decimal(1)),
        lambda: OwnGpus(1, "X", Decimal(0)),
        lambda: OwnGpus(1, "X", Decimal("NaN")),
        lambda: OwnGpus(1, "X", Decimal(1), -5),
        lambda: OwnGpus(1, "X", Decimal(1), 5, 0),
    ],
)
def test_figures_that_cannot_be(build):
    with pytest.raises(BadOption):
        build()


def test_the_routes_a_provider_lists():
    assert [r.model for r in listed_routes("holysheep")] == ["gpt-4.1", "claude-sonnet-4", "gemini-2.5-flash", "deepseek-v3.2"]
    assert Route("openai", "gpt-4.1") in listed_routes("azure")
    for provider in ("openai", "anthropic", "gemini", "deepseek"):
        assert all(line.month for line in roi(ARTICLES, listed_routes(provider)).lines)
    with pytest.raises(BadOption, match="Known: holysheep, openai"):
        listed_routes("pool")
