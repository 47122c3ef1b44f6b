"""The page of every word is complete, true and up to date, and `%infer help WORD` says what stands on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holynb.config import layers, providers
from holynb.config.option_table import TABLE
from holynb.engines import finish
from holynb.errors import KINDS, BadOption
from holynb.results import columns
from holynb.ui import line_magic, reference
from holynb.ui.cell import grammar
from holynb.ui.output.helplines import HELP_WIDTH

ROOT = Path(__file__).parents[2]
#: Names that only holynb's own processes and tests set for each other.
INTERNAL = {"HOLYNB_DEMO_TOKEN", "HOLYNB_POOL_RUNNER", "HOLYNB_RAY_RUNTIME_ENV", "HOLYNB_RAY_WAY"}


def words(kind: str) -> list[str]:
    return [e.word for e in reference.entries() if e.kind == kind]


def test_page_in_the_repository_is_what_the_code_says() -> None:
    page = (ROOT / "notebooks" / "REFERENCE.md").read_text("utf-8")
    assert page == line_magic.reference_page(), "write it anew: .venv/bin/holynb reference > notebooks/REFERENCE.md"


@pytest.mark.parametrize("entry", [e for e in reference.entries() if e.kind == "option"], ids=lambda e: e.word)
def test_every_option_has_an_example_that_sets_it(entry: reference.Entry) -> None:
    option = next(o for o in TABLE if o.flags[-1] == entry.word)
    assert entry.example.startswith("%%infer ")
    assert option.name in grammar.parse(entry.example.removeprefix("%%infer ")).options


def test_every_column_of_a_result_is_explained() -> None:
    assert sorted(words("column")) == sorted([*columns.of([], judged=True), "embedding"])


def test_every_word_that_a_result_says_of_itself_is_explained() -> None:
    assert sorted(words("kind of error")) == sorted(KINDS)
    assert sorted(words("status")) == sorted([*columns.STATUS, "pending"])
    tables = (finish.OPENAI, finish.RESPONSES, finish.ANTHROPIC, finish.GEMINI, finish.TGI, finish.BEDROCK, finish.SERVERS)
    assert {"other", "refusal", *(reason for table in tables for reason in table.values())} == set(words("finish reason"))


def test_every_setting_is_explained() -> None:
    fields = [f"provider.NAME.{name}" for name in layers.PROVIDER_FIELDS]
    own = [f"{name}.{field}" for name, fields_ in layers.OWN_FIELDS.items() for field in fields_]
    assert sorted(words("setting")) == sorted([*layers.NAMES, *fields, *own])


def test_every_variable_of_ours_and_every_key_is_explained() -> None:
    code = "\n".join(p.read_text("utf-8") for p in (ROOT / "holynb").rglob("*.py"))
    ours = set(re.findall(r"HOLYNB_[A-Z_]+", code)) - INTERNAL
    keys = {p.key for p in providers.table().values() if p.key}
    assert ours | keys <= set(words("variable"))


@pytest.mark.parametrize(
    "word",
    [
        "--df",
        "df",
        "-n",
        "--no-cache",
        "tokens_in",
        "asked_route",
        "trust.hosts",
        "HOLYNB_HOME",
        "OPENAI_API_KEY",
        "invalid_output",
        "skipped",
        "length",
    ],
)
def test_help_says_a_word_in_80_columns(word: str) -> None:
    text = line_magic.help_text(word)
    assert word in text or word in reference.find(word)[0].also
    assert max(map(len, text.split("\n"))) <= HELP_WIDTH


@pytest.mark.parametrize(
    ("word", "says"), [("stages", "stage  (word)"), ("p50", "median"), ("ttft", "first token"), ("stop", "finish reason")]
)
def test_a_word_of_the_panel_is_explained_as_it_is_typed(word: str, says: str) -> None:
    assert says in line_magic.help_text(word)


def test_an_unknown_word_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadOption, match="--max-tokens"):
        line_magic.help_text("--max-token")
