"""Task type → route: heard in a prompt, read in a column, or by the user's rules; and what it saves."""

from __future__ import annotations

import re
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_prompts import FIXTURE, UNSEEN

from holynb.config import settings
from holynb.errors import BadOption, BadRoute, BadSetting
from holynb.run import routing
from holynb.types import Message, Prompt, Route

GIVEN = Route("holysheep", "claude-sonnet-4")
CHEAP, STRONG = Route("holysheep", "gemini-2.5-flash"), Route("holysheep", "gpt-4.1")
pytestmark = pytest.mark.usefixtures("no_project")


def prompt(text: str, task: str | None = None) -> Prompt:
    return Prompt((Message("user", text),), task_type=task)


def goes(name: str, text: str, task: str | None = None, given: Route = GIVEN) -> Route:
    return routing.decide(routing.load(name), prompt(text, task), given).route


# -- what is heard in a prompt ---------------------------------------------------------------------------------------------
def right(labelled: list[tuple[str, str]]) -> float:
    return sum((routing.classify(text)[0] or "other") == task for task, text in labelled) / len(labelled)


def test_sixty_labelled_prompts_are_heard_right():
    assert len(FIXTURE) == 60
    korean = [(task, text) for task, text in FIXTURE if re.search("[가-힣]{2}", text)]
    assert len(korean) == 20
    assert right(FIXTURE) >= 0.9
    assert right(korean) >= 0.9
    assert right(UNSEEN) >= 0.9


def test_what_a_text_says_is_not_what_is_asked_of_it():
    review = "Please compare your plans. Why is Pro so expensive? I analyzed the trade-offs and classify it as spam."
    assert routing.classify(f"Translate into Korean:\n\n{review}")[0] is None
    assert routing.classify(f"Classify this comment as question or complaint.\n\n{review}")[0] == "classification"
    assert routing.classify(f"{review}\n\nAnalyze the complaint above.")[0] == "analysis"
    assert routing.classify("Write an analysis of the poem.")[0] is None
    assert routing.classify("Analyze the poem and write a report.")[0] == "analysis"


def test_the_words_that_decided_are_told():
    task, words = routing.classify("Classify the review as positive or negative.")
    assert task == "classification"
    assert "'Classify'" in words


@given(st.text(max_size=2000))
def test_any_text_is_one_of_the_three(text):
    assert routing.classify(text)[0] in ("classification", "analysis", None)


@pytest.mark.parametrize(
    "text", ["a,b," * 5000, "가/" * 5000, "into a, b, " * 3000, "(a, " * 5000, "A " * 100_000, "\n\n".join(["is this"] * 50_000)]
)
def test_no_text_takes_long(text):
    start = time.process_time()
    routing.classify(text)
    assert time.process_time() - start < 2  # 0.02 s


# -- task_type, unconfigured -----------------------------------------------------------------------------------------------
def test_the_articles_two_classes():
    assert goes("task_type", "x", "classification") == CHEAP
    assert goes("task_type", "x", "analysis") == STRONG
    assert goes("task_type", "x", "poetry") == GIVEN
    assert goes("task_type", "Classify: good or bad?") == CHEAP
    assert goes("task_type", "Analyze the causes.") == STRONG
    assert goes("task_type", "Hello!") == GIVEN


@pytest.mark.parametrize("word", ["classification", " Classify ", "SENTIMENT", "분류"])
def test_other_words_for_a_task(word):
    assert goes("task_type", "x", word) == CHEAP


def test_cheap_and_strong_are_the_users_aliases_first():
    settings.override(alias={"cheap": "sim/echo", "strong": "sim/stream"})
    assert goes("task_type", "x", "classification", Route("openai", "gpt-4.1")) == Route("sim", "echo")
    assert goes("task_type", "x", "analysis") == Route("sim", "stream")


def test_a_provider_without_a_cheaper_model_keeps_its_rows():
    assert goes("task_type", "x", "classification", Route("pool", "mine")) == Route("pool", "mine")


def test_each_listed_model_has_a_price_and_cheap_is_cheaper():
    from holynb.pricing import prices

    for provider, models in routing._data()["models"].items():
        cheap, strong = (prices.list_price(Route(provider, models[word])) for word in ("cheap", "strong"))
        assert cheap.output < strong.output


# -- a column, a set of rules ----------------------------------------------------------------------------------------------
def test_a_column_of_any_name_may_hold_the_task():
    router = routing.load("kind", ["text", "kind"])
    assert routing.decide(router, prompt("x", "analysis"), GIVEN).route == STRONG


SUPPORT = {
    "column": "kind",
    "other": "sim/echo",
    "escalate": "strong",
    "rules": [
        {"task": "refund", "any": ["Refund", "환불"], "shorter": 100},
        {"task": "legal", "pattern": r"clause \d+", "all": ["contract"]},
        {"task": "refund", "longer": 10_000},
    ],
    "routes": {"refund": "cheap", "legal": "openai/gpt-4.1"},
}


@pytest.fixture
def support():
    settings.override(router={"support": SUPPORT})
    return routing.load("support", ["kind"])


def test_rules_in_order(support):
    def decided(text: str, task: str | None = None) -> tuple[str | None, str, str]:
        d = routing.decide(support, prompt(text, task), GIVEN)
        return d.task, str(d.route), d.why

    assert decided("I want a REFUND for contract clause 7") == ("refund", str(CHEAP), "rule 1")
    assert decided("환불 해 주세요") == ("refund", str(CHEAP), "rule 1")
    assert decided("Contract, Clause 7: " + "refund " * 50) == ("legal", "openai/gpt-4.1", "rule 2")
    assert decided("a clause 7 of nothing") == (None, "sim/echo", "no rule holds")
    assert decided("word " * 3000) == ("refund", str(CHEAP), "rule 3")
    assert decided("I want a refund", "legal") == ("legal", "openai/gpt-4.1", "its column says so")
    assert decided("I want a refund", "Analyze") == ("analysis", "sim/echo", "its column says so")


def test_an_invalid_answer_may_go_further_up(support):
    assert support.escalated(GIVEN) == STRONG
    assert routing.load("task_type").escalated(GIVEN) == Route("holysheep", "gpt-4.1"), "the stronger of the two classes"


def test_a_rule_that_matches_nothing_is_named(support):
    decisions = [routing.decide(support, prompt(t), GIVEN) for t in ("refund please", "hello")]
    assert [r.task for r in routing.unused(support, decisions)] == ["legal", "refund"]


def test_rules_without_routes_use_the_two_classes():
    settings.override(router={"mine": {"rules": [{"task": "classification", "any": ["label"]}]}})
    assert goes("mine", "label this") == CHEAP
    assert goes("mine", "analyze this") == GIVEN


def test_a_router_without_rules_listens():
    settings.override(router={"mine": {"routes": {"analysis": "openai/gpt-4.1"}}})
    assert goes("mine", "Analyze the causes.") == Route("openai", "gpt-4.1")
    assert goes("mine", "Classify: good or bad?") == GIVEN


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("suport", ["kind"], "Did you mean support?"),
        ("knd", ["kind"], "Did you mean kind?"),
        ("support", ["text"], "reads the column 'kind', which is not there"),
    ],
)
def test_a_router_that_is_not_there(support, name, columns, words):
    with pytest.raises(BadOption) as caught:
        routing.load(name, columns)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": []}, "Did you mean rules?"),
        ({"rules": {"task": "x"}}, "rules should be a list of tables"),
        ({"rules": [{"any": ["x"]}]}, "rule 1 needs a task"),
        ({"rules": [{"task": "refund"}]}, "holds for every prompt"),
        ({"rules": [{"task": "refund", "any": "refund"}]}, "any should be a list of words"),
        ({"rules": [{"task": "refund", "any": [""]}]}, "any should be a list of words"),
        ({"rules": [{"task": "refund", "pattern": "("}]}, "is not a regular expression"),
        ({"rules": [{"task": "refund", "longer": -1}]}, "longer should be a number of characters"),
        ({"rules": [{"task": "refund", "ayn": ["x"]}]}, "Did you mean any?"),
        ({"rules": [{"task": "unheard", "any": ["x"]}]}, "no route for it"),
        ({"routes": ["cheap"]}, "routes should be a table"),
        ({"routes": {"refund": 3}}, "routes should be a table"),
        ({"column": 3}, "column should be text"),
    ],
)
def test_rules_that_cannot_be(change, words):
    settings.override(router={"support": {**SUPPORT, **change}})
    with pytest.raises(BadSetting) as caught:
        routing.load("support", ["kind"])
    assert words in str(caught.value)
    assert "[router.support]" in str(caught.value)


def test_a_route_that_leads_nowhere_is_found_before_the_first_row():
    settings.override(router={"support": {**SUPPORT, "routes": {"refund": "opneai/gpt-4.1", "legal": "cheap"}}})
    with pytest.raises(BadRoute, match="Did you mean openai"):
        routing.load("support", ["kind"])


# -- what it saves ---------------------------------------------------------------------------------------------------------
def test_the_saving_is_the_difference_of_two_bills():
    router = routing.load("task_type")
    asked = prompt("Classify: good or bad? " + "word " * 1000)
    cheap = routing.decide(router, asked, GIVEN)
    n = (routing.saving(asked, cheap, GIVEN, 1000) - routing.saving(asked, cheap, GIVEN, 0)) / 1000
    assert n == (Decimal(15) - Decimal("2.5")) / 1_000_000
    assert routing.saving(asked, routing.Decision(None, GIVEN, ""), GIVEN, 1000) == 0
    assert routing.saving(asked, routing.Decision(None, GIVEN, ""), CHEAP, 1000) < 0
    assert routing.saving(asked, cheap, Route("vllm", "m"), 1000) is None
