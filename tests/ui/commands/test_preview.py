"""A dry run shows what would be sent, where and at what cost. It sends nothing and invents no figure."""

from __future__ import annotations

import pandas as pd
import pytest

import holynb
from holynb.config.options import Options
from holynb.pricing.estimate import estimate
from holynb.run import plan
from holynb.ui.commands import preview


def dry_run(body: str, route: str, **options: object) -> str:
    return preview.text(plan.make(body, route, Options.parse(options), variables={}))


def test_rows_sample_tokens_and_cost_are_told() -> None:
    df = pd.DataFrame({"a": ["one", "", "three", "four", "five"]})
    before = len(holynb.runs)
    text = dry_run("{{ a }}", "sim/echo", df=df, system="Be brief.", max_tokens=10)
    for part in (
        "4 rows would go to sim/echo",
        "1 row empty",
        "system: Be brief.",
        "user: one",
        "… and 1 more",
        "at most 40 out",
        "Cost, estimated: $",
    ):
        assert part in text
    assert "user: five" not in text
    assert len(holynb.runs) == before


def test_where_it_would_go_and_with_which_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-that-is-not-shown-0123456789")
    text = dry_run("hello", "openai/gpt-4.1")
    assert "https://api.openai.com/v1" in text
    assert "Key: OPENAI_API_KEY" in text
    assert "a-key-that" not in text


def test_which_aws_keys_would_sign_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    for route in ("bedrock/m", "sagemaker/m"):
        assert "Key: no AWS keys found (a role of this machine is looked up when a request is signed), no region: set" in dry_run(
            "hi", route
        )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-EXAMPLEKEY")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    text = dry_run("hi", "bedrock/arn:aws:bedrock:us-east-1::foundation-model/x.y")
    assert "Key: keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, region us-east-1." in text
    assert "EXAMPLE" not in text
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "ABSK-0123456789abcdef")
    assert "Key: AWS_BEARER_TOKEN_BEDROCK." in dry_run("hi", "bedrock/m")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    monkeypatch.setattr("holynb.config.aws_chain.installed", lambda: False)
    assert "Key: AWS keys need botocore: pip install 'holynb[aws]'." in dry_run("hi", "bedrock/m")


def test_an_unknown_price_is_a_question_mark() -> None:
    assert "Cost: ?" in dry_run("hello", "vllm/some-model")


def test_long_and_strange_prompts_are_cut_and_cleaned() -> None:
    text = dry_run("\x1b[31mred " * 1000, "sim/echo")
    assert "\x1b" not in text
    assert len(text) < 1500


def test_the_estimate_holds_the_real_count_of_known_texts() -> None:
    """Counts of SmolLM2's tokenizer, chat template included, as its pool reported them."""
    for prompt, count in (
        ("What is the capital of France?", 37),
        ("Shorten to a few words: Async http client/server framework (asyncio)", 47),
    ):
        (request,) = plan.make(prompt, "sim/echo", Options(), variables={}).rows.requests
        low, high = estimate([request]).tokens_in
        assert low <= count <= high


def test_rows_sent_first_are_told_and_make_it_narrow() -> None:
    texts = "\n".join(f"Say number {i} again" for i in range(100))
    assert "send a few rows first (-n 20)" in dry_run(texts, "sim/echo", lines=True)
    holynb.infer(texts, "sim/echo", lines=True, limit=20).wait()
    text = dry_run(texts, "sim/echo", lines=True)
    assert "80 rows would go to sim/echo." in text
    assert "20 rows answered at no cost, from the run log or by an identical row." in text
    assert "Tokens, estimated from 20 answers of the same kind: " in text
    assert "sent first" not in text


def test_limits_of_the_users_own_say_how_long() -> None:
    texts = "\n".join(f"number {i}" for i in range(120))
    assert "Time, at --rpm and --tpm: 120 s or more." not in dry_run(texts, "sim/echo", lines=True)
    assert "Time, at --rpm and --tpm: 2 min 0 s or more." in dry_run(texts, "sim/echo", lines=True, rpm=60)


def test_a_pool_costs_nothing() -> None:
    assert "Cost: none: your own devices." in dry_run("hello", "pool/smollm2-135m")


def row(route: str, budget: float | None, rows: int = 20, **options: object) -> str:
    lines = dry_run("\n".join(f"row {i}" for i in range(rows)), route, budget=budget, lines=True, dry_run=True, **options).splitlines()
    return next((line for line in lines if line.startswith("The budget")), "")


@pytest.mark.usefixtures("home", "no_project")
def test_a_budget_that_holds_few_rows_because_the_model_thinks_is_told() -> None:
    """Arithmetic by hand: deepseek-v4-pro takes 70 bytes and more at $1.74 and 8,192 tokens at $3.48 a million, so $0.0286 a row."""
    from holynb.pricing import prices
    from holynb.types import Message, Route

    one = prices.worst_case(Route("deepseek", "deepseek-v4-pro"), (Message("user", "row 19"),), 8192)
    short = prices.worst_case(Route("deepseek", "deepseek-v4-pro"), (Message("user", "row 19"),), 2048)
    assert one is not None
    assert short is not None
    told = row("deepseek/deepseek-v4-pro", float(one * 3))
    assert "holds 3 rows at once: deepseek/deepseek-v4-pro thinks, so each reserves an answer of 8,192 tokens" in told
    assert told.endswith(f"With --think low --max-tokens 2048 it holds {int(one * 3 // short)}.")
    assert "holds no row: " in row("deepseek/deepseek-v4-pro", float(one) * 0.9)


@pytest.mark.usefixtures("home", "no_project")
@pytest.mark.parametrize(
    ("route", "budget", "options"),
    [
        ("deepseek/deepseek-v4-pro", None, {}),
        ("deepseek/deepseek-v4-pro", 100, {}),  # it holds all
        ("deepseek/deepseek-v4-pro", 0.1, {"max_tokens": 8192}),  # as somebody said
        ("deepseek/deepseek-v4-pro", 0.1, {"rows": 2}),  # there are no more
        ("deepseek/deepseek-v4-pro", 0.1, {"concurrency": 2}),
        ("deepseek/deepseek-v4-pro", 0.00001, {}),  # a shorter answer does not fit either
        ("openai/gpt-4.1-mini", 0.01, {}),  # it does not think
        ("anthropic/claude-haiku-4-5", 0.01, {}),  # not unless it is told to
    ],
)
def test_where_thinking_holds_nothing_back_nothing_is_said(route: str, budget: float | None, options: dict[str, object]) -> None:
    assert row(route, budget, **options) == ""  # type: ignore[arg-type]


def coverage(route: str, budget: float, rows: int, **options: object) -> str:
    lines = dry_run("\n".join(f"row {i}" for i in range(rows)), route, budget=budget, lines=True, dry_run=True, **options).splitlines()
    return next((line for line in lines if line.startswith("Budget")), "")


@pytest.mark.usefixtures("home", "no_project")
def test_a_dry_run_says_how_many_rows_a_budget_covers() -> None:
    """By hand: `row 0` is 5 bytes and 64 tokens beside, at $0.4 a million; 100 tokens at $1.6: $0.0001876 a row."""
    assert coverage("openai/gpt-4.1-mini", 1, 10, max_tokens=100) == "Budget: $1.00 covers all 10 rows, which cost $0.0019 at worst."
    short = "Budget: $0.0010 is sure to cover 5 of 10 rows: at worst $0.00019 each, $0.0019 in all. What it does not cover is not sent."
    assert coverage("openai/gpt-4.1-mini", 0.001, 10, max_tokens=100) == short
    assert coverage("openai/gpt-4.1-mini", 0.0001, 1, max_tokens=100).startswith("Budget: $0.00010 is sure to cover 0 of 1 row:")
    assert coverage("pool/smollm2-135m", 1, 2) == ""
    assert coverage("sim/echo", 0.0001, 4, judge="sim/echo").startswith("Budget: $0.00010; the whole may cost $")


@pytest.mark.usefixtures("home", "no_project")
def test_with_answers_like_them_it_says_what_is_likely() -> None:
    """Answers of sim/echo are as long as their prompt, far below --max-tokens."""
    rows = [f"Which department is this for? row {i}" for i in range(60)]
    holynb.infer(rows[:10], "sim/echo", max_tokens=100).wait(20)

    def told(budget: float) -> str:
        return dry_run("\n".join(rows), "sim/echo", budget=budget, lines=True, dry_run=True, max_tokens=100)

    assert " With answers as long as those so far it covers all 50 rows. " in told(0.04)
    assert (
        "is sure to cover 2 of 50 rows: at worst $0.0010 each, $0.050 in all. With answers as long as those so far it covers 19 rows."
        in told(0.0025)
    )
    assert " With answers as long as those so far it covers 0 rows. " in told(0.0001)


@pytest.mark.usefixtures("home", "no_project")
def test_a_misspelt_model_is_suggested_whether_it_seems_to_have_a_price_or_not() -> None:
    assert dry_run("x", "openai/gpt-6-lunna", dry_run=True).count("Did you mean openai/gpt-6-luna?") == 1
    assert dry_run("x", "openai/gpt-6-lunaa", dry_run=True).count("Did you mean openai/gpt-6-luna?") == 1, (
        "what begins like a model has its price"
    )
    assert "Did you mean" not in dry_run("x", "openai/gpt-6-luna-2026-11-01", dry_run=True)
    assert "pool/smollm2-135mm is not running. Did you mean pool/smollm2-135m? If not, start it: " in dry_run("x", "pool/smollm2-135mm")
    assert "not running" not in dry_run("x", "pool/smollm2-135m")
