"""What follows from what is known of a model: how much it thinks, which of two thinks less, and how long it may answer by default."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.config import models
from holynb.config.model_entries import KnownModel, Reading, ThinkingControl
from holynb.config.model_traits import EffortRange, ModelTraits
from holynb.efforts import EFFORTS
from holynb.run.plan import traits
from holynb.types import THINK_LEVELS, Route

READING = Reading(dt.date(2026, 11, 28), "https://example.com")
LEVELS = ("low", "medium", "high")
OFF = {"reasoning_effort": "none"}


def model(thinks: bool | None = None, output: int | None = 128_000, **control: object) -> ModelTraits:
    told = ThinkingControl("reasoning_effort", READING, **control) if control else None  # type: ignore[arg-type]
    return ModelTraits(KnownModel("openai", ("m",), READING, output=output, thinks=True if told else thinks, thinking=told))


UNKNOWN, NOT_KNOWN_TO = ModelTraits(), model()
NEVER = model(thinks=False)
CAN = model(thinks=True)
MEDIUM = model(values=LEVELS, default="medium", off=OFF)
HIGH = model(values=("low", "medium", "high", "xhigh", "max"), default="high", off=False)
SOMEHOW = model(values=LEVELS, off=OFF)
OFF_BY_ITSELF = model(budget=(1024, 0), default="off", off=OFF)
MINIMAL = model(values=("minimal", "low"), default="minimal", off=False)
ON = model(values=LEVELS, default="on")


@pytest.mark.parametrize(
    ("traits", "think", "span"),
    [
        (UNKNOWN, None, (0, 6)),
        (UNKNOWN, "off", (0, 6)),
        (NOT_KNOWN_TO, None, (0, 6)),
        (NEVER, None, (0, 0)),
        (NEVER, "high", (0, 0)),
        (CAN, None, (0, 6)),
        (CAN, "off", (0, 6)),
        (CAN, "low", (1, 6)),
        (MEDIUM, None, (3, 3)),
        (MEDIUM, "low", (2, 2)),
        (MEDIUM, "max", (4, 4)),
        (MEDIUM, "off", (0, 0)),
        (MEDIUM, 0, (0, 0)),
        (MEDIUM, 500, (1, 6)),
        (HIGH, "off", (2, 2)),
        (HIGH, "max", (6, 6)),
        (SOMEHOW, None, (0, 6)),
        (ON, None, (1, 6)),
        (ON, "off", (0, 2)),
        (OFF_BY_ITSELF, None, (0, 0)),
        (OFF_BY_ITSELF, "medium", (3, 3)),
        (MINIMAL, None, (1, 1)),
        (MINIMAL, "off", (1, 1)),
        (MINIMAL, "high", (2, 2)),
    ],
)
def test_how_much_a_model_thinks(traits: ModelTraits, think: str | int | None, span: tuple[int, int]) -> None:
    assert traits.thinks(think) == span


@pytest.mark.parametrize(
    ("this", "than", "think", "thought", "less"),
    [
        (NEVER, MEDIUM, None, False, True),
        (OFF_BY_ITSELF, MEDIUM, None, False, True),
        (OFF_BY_ITSELF, MEDIUM, "medium", False, False),
        (MEDIUM, HIGH, None, False, True),
        (HIGH, MEDIUM, None, False, False),
        (MEDIUM, MEDIUM, None, True, False),
        (MEDIUM, HIGH, "off", False, True),  # it can be switched off, and the other cannot
        (MEDIUM, HIGH, "max", False, True),  # high is the most that it can
        (MEDIUM, HIGH, "low", False, False),
        (MINIMAL, MEDIUM, None, False, True),
        (SOMEHOW, HIGH, None, True, False),  # nobody says how much
        (ON, MEDIUM, None, True, False),
        (NEVER, UNKNOWN, None, False, False),  # it may not have thought at all
        (NEVER, UNKNOWN, None, True, True),
        (MINIMAL, UNKNOWN, None, True, False),
        (UNKNOWN, MEDIUM, None, True, False),
        (UNKNOWN, UNKNOWN, None, True, False),
        (NEVER, NEVER, None, False, False),
        (NEVER, MEDIUM, 500, False, True),
        (MEDIUM, HIGH, 500, False, False),
    ],
)
def test_which_of_two_thinks_less(this: ModelTraits, than: ModelTraits, think: str | int | None, thought: bool, less: bool) -> None:
    assert this.thinks_less(than, think, thought=thought) is less


@pytest.mark.parametrize(
    ("traits", "think", "tokens"),
    [
        (UNKNOWN, None, 2048),
        (UNKNOWN, "high", 2048),
        (NEVER, None, 2048),
        (NOT_KNOWN_TO, None, 2048),
        (CAN, None, 8192),
        (MEDIUM, None, 8192),
        (MEDIUM, "low", 8192),
        (MEDIUM, "off", 2048),
        (HIGH, "off", 8192),  # it thinks all the same
        (OFF_BY_ITSELF, None, 2048),
        (OFF_BY_ITSELF, "low", 8192),
        (model(values=LEVELS, default="medium", output=4096), None, 4096),
        (model(values=LEVELS, default="medium", output=None), None, 8192),
        (MEDIUM, 500, 8192),
        (MEDIUM, 16_000, 18_048),  # what is thought, and an answer of usual length
        (MEDIUM, 100_000, 106_250),  # 95 % of what both may have
        (model(values=LEVELS, output=10_000), 16_000, 10_000),
        (model(budget=(1, 24_576), output=None), 99_999, 26_624),  # what is sent is its most
        (model(budget=(1024, 0), output=None), 99_999, 106_248),  # its most is not published
        (ModelTraits(pool=True), None, 512),
        (ModelTraits(pool=True), "high", 512),
    ],
)
def test_the_longest_answer_by_default(traits: ModelTraits, think: str | int | None, tokens: int) -> None:
    assert traits.longest(think) == tokens


@pytest.mark.parametrize(
    ("traits", "think", "word"),
    [
        (MEDIUM, None, "low"),
        (MEDIUM, "high", "low"),
        (MEDIUM, "low", "off"),
        (MEDIUM, "off", None),
        (MEDIUM, 0, None),
        (MEDIUM, 500, "low"),
        (HIGH, None, "low"),
        (HIGH, "low", None),
        (MINIMAL, None, None),
        (SOMEHOW, None, "low"),
        (NEVER, None, None),
        (OFF_BY_ITSELF, None, None),
        (UNKNOWN, None, "low"),
    ],
)
def test_what_makes_it_think_less(traits: ModelTraits, think: str | int | None, word: str | None) -> None:
    assert traits.quieter(think) == word


controls = st.builds(
    model,
    values=st.lists(st.sampled_from(EFFORTS[1:]), min_size=1, unique=True).map(tuple),
    default=st.none() | st.sampled_from(["on", "off"]),
    off=st.sampled_from([None, False, OFF]),
)
anybody = st.sampled_from([UNKNOWN, NEVER, CAN, NOT_KNOWN_TO]) | controls
told = st.none() | st.sampled_from(THINK_LEVELS) | st.integers(0, 10**6)


@given(anybody, anybody, anybody, told)
def test_thinking_less_is_an_order(a: ModelTraits, b: ModelTraits, c: ModelTraits, think: str | int | None) -> None:
    assert not a.thinks_less(a, think)
    assert not (a.thinks_less(b, think) and b.thinks_less(a, think))
    if a.thinks_less(b, think) and b.thinks_less(c, think):
        assert a.thinks_less(c, think)


@given(anybody, told)
def test_a_span_is_one(traits: ModelTraits, think: str | int | None) -> None:
    span = traits.thinks(think)
    assert isinstance(span, EffortRange)
    assert 0 <= span.least <= span.most <= 6
    assert traits.longest(think) >= 1


def test_every_level_that_ships_has_a_rank() -> None:
    for shipped in models.shipped():
        if shipped.thinking is not None:
            assert set(shipped.thinking.values) <= set(EFFORTS), f"{shipped.provider} {shipped.models[0]}"


@pytest.mark.parametrize(
    ("route", "least", "tokens"),
    [
        ("azure/gpt-6-luna", 3, 8192),
        ("vertex/gemini-3.8-flash", 3, 8192),
        ("bedrock/openai.gpt-oss-20b-1:0", 3, 8192),
        ("vllm/openai/gpt-oss-20b", 3, 2048),  # how much it takes is its user's affair
        ("vllm/Qwen3-8B", 0, 2048),
        ("azure/my-deployment", 0, 2048),
    ],
)
def test_models_that_others_serve(route: str, least: int, tokens: int) -> None:
    of = traits(Route.parse(route))
    assert (of.thinks().least, of.longest()) == (least, tokens)


@pytest.mark.parametrize(
    ("route", "tokens"),
    [
        ("openai/gpt-6-luna", 8192),
        ("openai/gpt-4.1-mini", 2048),
        ("openai/gpt-5-mini", 8192),
        ("openai/gpt-5.1", 2048),  # it does not think unless it is told to
        ("anthropic/claude-opus-5-5", 8192),
        ("anthropic/claude-haiku-4-5", 2048),
        ("gemini/gemini-2.5-flash", 8192),
        ("deepseek/deepseek-flash", 8192),
        ("openai/of-tomorrow", 2048),
    ],
)
def test_models_that_ship(route: str, tokens: int) -> None:
    at = Route.parse(route)
    assert ModelTraits(models.find(at.provider, at.model)).longest() == tokens
