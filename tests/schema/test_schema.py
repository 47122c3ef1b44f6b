"""Answers as data: what holds, what does not and why, which columns come of it, and what is no schema."""

from __future__ import annotations

import enum
import json
import random
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from pydantic import BaseModel, Field, field_validator

from holynb import schema
from holynb.engines.openai import strict
from holynb.errors import BadOption
from holynb.results import frame
from holynb.types import Message, Outcome

REVIEW = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["good", "bad"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "stars": {"type": "integer"},
        "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"type": "string"},
    },
    "required": ["label", "score"],
}
GOOD = '{"label": "good", "score": 1, "stars": 4.0, "tags": ["a"]}'


def kinds(document) -> dict[str, str]:
    return {c.name: c.kind for c in schema.load(document).columns}


# -- answers ---------------------------------------------------------------------------------------------------------------
def test_an_answer_that_holds_becomes_typed_cells():
    answer = schema.load(REVIEW).check(GOOD)
    assert answer.error is None
    assert answer.cells == {"label": "good", "score": 1.0, "stars": 4, "urgent": None, "tags": ["a"], "note": None}
    assert isinstance(answer.cells["score"], float)
    assert isinstance(answer.cells["stars"], int)


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Here you are [1]: {GOOD} Hope it helps!",
        f"  {GOOD}\n",
        f"The {{label}} is below.\n\n{GOOD}",
        f"[] {{}} {GOOD}",
        f"a list ends with }} or ]: {GOOD}",
    ],
)
def test_words_and_fences_around_an_answer_are_looked_past(text):
    assert schema.load(REVIEW).check(text).cells["label"] == "good"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("I think it is good.", "it is not JSON"),
        ('{"label": "good", "score": 0.5', "it is not JSON"),
        ('{"label": "good", "score": NaN}', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"label": "good"}', "'score' is a required property"),
        ('{"label": "fine", "score": 1}', "label: 'fine' is not one of ['good', 'bad']"),
        ('{"label": "good", "score": "high"}', "score: 'high' is not of type 'number'"),
        ('{"label": "good", "score": 1, "tags": ["a", 2]}', "tags.1: 2 is not of type 'string'"),
        ('{"label": "good", "score": 1, "stars": 12345678901234567890}', "stars is too large a number"),
        ('["good", 1]', "is not of type 'object'"),
        ("null", "is not of type 'object'"),
    ],
)
def test_an_answer_that_does_not_hold_says_why(text, words):
    answer = schema.load(REVIEW).check(text)
    assert words in answer.error
    assert answer.value is None
    assert len(answer.error) < 1500


def test_a_torn_answer_is_not_taken_for_its_inner_part():
    nested = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "inner": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }
    assert schema.load(nested).check('{"name": "a", "inner": {"name": "b"}').error == "it is not JSON"


def test_null_stands_for_an_optional_property():
    answer = schema.load(REVIEW).check('{"label": "good", "score": 1, "note": null, "tags": null, "stars": null}')
    assert answer.error is None
    assert answer.value == {"label": "good", "score": 1}
    assert "label: None is not" in schema.load(REVIEW).check('{"label": null, "score": 1}').error


@given(st.text())
def test_any_text_is_checked_without_a_crash(text):
    answer = schema.load(REVIEW).check(text)
    assert (answer.error is None) == bool(answer.cells)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.fixed_dictionaries({"label": st.sampled_from(["good", "bad"]), "score": st.floats(0, 1)}, optional={"more": json_values}))
def test_what_a_schema_allows_comes_back_as_it_was(value):
    assert schema.load(REVIEW).check(json.dumps(value)).value == value


def test_an_answer_that_is_one_value():
    word = schema.load({"enum": ["yes", "no"]})
    assert [(c.name, c.key, c.kind) for c in word.columns] == [("value", None, "string")]
    for text in ("yes", '"yes"', '{"value": "yes"}', " yes\n"):
        assert word.check(text).cells == {"value": "yes"}
    assert "is not one of" in word.check("perhaps").error
    assert schema.load({"type": "string"}).check("42").cells == {"value": "42"}
    halves = r'{"value": "a\\ud83d \ud83d\uD83D\uDE00 \udE00"}'  # of surrogate pairs, which no column of text holds
    assert schema.load({"type": "string"}).check(halves).cells == {"value": "a\\ud83d \ufffd😀 \ufffd"}
    assert schema.load({"type": "array", "items": {"type": "integer"}}).check("[1, 2]").cells == {"value": [1, 2]}


# -- columns -----------------------------------------------------------------------------------------------------------------
def test_columns_and_their_types():
    assert kinds(REVIEW) == {
        "label": "string",
        "score": "number",
        "stars": "integer",
        "urgent": "boolean",
        "tags": "json",
        "note": "string",
    }
    odd = {
        "a": {"type": ["integer", "null"]},
        "b": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "c": {"enum": [1, 2.5]},
        "d": {"const": True},
        "e": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "f": {"type": "object"},
        "g": {},
        "h": True,
        "i": {"enum": [1, "x"]},
    }
    assert kinds({"type": "object", "properties": odd}) == {
        "a": "integer",
        "b": "number",
        "c": "number",
        "d": "boolean",
        "e": "json",
        "f": "json",
        "g": "json",
        "h": "json",
        "i": "json",
    }


def test_a_property_never_hides_a_column_of_the_result():
    loaded = schema.load({"type": "object", "properties": {"model": {"type": "string"}, "cost": {"type": "number"}}})
    assert [c.name for c in loaded.columns] == ["answer_model", "answer_cost"]
    assert loaded.check('{"model": "x", "cost": 2}').cells == {"answer_model": "x", "answer_cost": 2.0}


# -- the wire ----------------------------------------------------------------------------------------------------------------
def test_the_wire_gets_closed_objects_with_everything_required():
    for document in (REVIEW, {"type": "array", "items": REVIEW}, {"enum": ["a"]}, Book):
        wire = schema.load(document).wire
        assert strict(wire)
        assert wire["type"] == "object"
    wire = schema.load(REVIEW).wire
    assert wire["properties"]["label"] == REVIEW["properties"]["label"]
    assert wire["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert REVIEW["required"] == ["label", "score"]  # the user's own is not changed


def test_open_objects_stay_open():
    assert schema.load({"type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "number"}}}}).wire[
        "properties"
    ]["m"]["anyOf"][0] == {"type": "object", "additionalProperties": {"type": "number"}}


def test_of_several_system_messages_the_first_alone_is_told():
    messages = schema.load(REVIEW).instruct((Message("system", "be brief"), Message("user", "x"), Message("system", "be kind")))
    assert [m.role for m in messages] == ["system", "user", "system"]
    assert messages[0].content.startswith("be brief\n\nAnswer with JSON alone")
    assert messages[2].content == "be kind"


def test_instruction_and_repair():
    loaded = schema.load(REVIEW)
    messages = (Message("system", "Be brief."), Message("user", "Rate this."))
    instructed = loaded.instruct(messages)
    assert instructed[0].content.startswith("Be brief.\n\nAnswer with JSON alone")
    assert json.dumps("label") in instructed[0].content
    assert loaded.instruct(messages[1:])[0].role == "system"
    again = loaded.repair(messages, "no", "it is not JSON")
    assert [m.role for m in again] == ["system", "user", "assistant", "user"]
    assert "it is not JSON" in again[-1].content
    assert loaded.repair(messages, " ", "it is empty")[-2].content


def test_one_repair_mends_what_a_tenth_of_answers_break():
    """A server without structured output that breaks one answer in ten, whatever it is asked: 1 in 100 is left."""
    rng, loaded = random.Random(5), schema.load(REVIEW)
    breaks = (lambda t: t[:-3], lambda t: "Sure! It is good.", lambda t: t.replace('"good"', '"fine"'), lambda t: t.replace("1", '"1"'))

    def server() -> str:
        answer = f"```json\n{GOOD}\n```" if rng.random() < 0.5 else GOOD
        return rng.choice(breaks)(GOOD) if rng.random() < 0.1 else answer

    valid = sum(any(loaded.check(server()).error is None for _ in range(2)) for _ in range(10_000))
    assert valid >= 9_850  # 99 % are expected, and this is 5 standard deviations below
    assert sum(loaded.check(server()).error is None for _ in range(10_000)) < 9_200


# -- pydantic ----------------------------------------------------------------------------------------------------------------
class Author(BaseModel):
    name: str
    born: int | None = None


class Book(BaseModel):
    title: str = Field(alias="bookTitle")
    pages: int = Field(gt=0)
    authors: list[Author] = []
    kind: typing.Literal["novel", "essay"] = "novel"

    @field_validator("title")
    @classmethod
    def not_shouted(cls, value: str) -> str:
        if value.isupper():
            raise ValueError("do not shout")
        return value.strip()


def test_a_model_checks_coerces_and_fills_in():
    loaded = schema.load(Book)
    assert loaded.name == "Book"
    assert {c.name: c.kind for c in loaded.columns} == {"bookTitle": "string", "pages": "integer", "authors": "json", "kind": "string"}
    answer = loaded.check('{"bookTitle": " Emma ", "pages": "474", "authors": [{"name": "Austen", "born": null}], "kind": null}')
    assert answer.cells == {"bookTitle": "Emma", "pages": 474, "authors": [{"name": "Austen", "born": None}], "kind": "novel"}
    assert "bookTitle: Value error, do not shout" in loaded.check('{"bookTitle": "EMMA", "pages": 1}').error
    assert "pages" in loaded.check('{"bookTitle": "Emma", "pages": 0}').error


def test_a_frame_asked_for_again_checks_nothing_again_and_shares_nothing():
    validated: list[str] = []

    class WatchedBook(Book):
        @field_validator("title")
        @classmethod
        def seen(cls, value: str) -> str:
            validated.append(value)
            return value

    loaded = schema.load(WatchedBook)
    texts = [json.dumps({"bookTitle": f"Book {i % 5}", "pages": 1 + i % 5, "authors": [{"name": "Austen"}]}) for i in range(20)]
    rows = [Outcome("ok", text) for text in texts] + [Outcome("ok", "no book"), None, Outcome("error", texts[0])]
    first, second = frame.build(rows, schema=loaded), frame.build(rows, schema=loaded)
    assert sorted(validated) == [f"Book {i}" for i in range(5)], "each answer once, however often it was given"
    assert_frame_equal(first, second)
    assert second["bookTitle"].isna().tolist() == [False] * 20 + [True] * 3
    first["authors"][0][0]["name"] = "changed"
    first["authors"][1].clear()
    assert_frame_equal(frame.build(rows, schema=loaded), second)


class Tree(BaseModel):
    children: list["Tree"] = []  # noqa: UP037 - it is not defined yet


class Odd(BaseModel, arbitrary_types_allowed=True):
    thing: random.Random


# -- what is no schema -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("answer", ["9007199254740993", "12345678901234567891", "1e400", "-1e400", "1" + "0" * 400])
def test_a_number_that_its_column_would_change_is_no_answer(answer: str):
    amount = schema.load({"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]})
    assert amount.check(f'{{"x": {answer}}}').error == "x is too large a number"
    assert amount.check('{"x": 100000000000000000000}').cells == {"x": 1e20}
    anything = schema.load({"type": "object", "properties": {"x": {"type": ["integer", "string"]}}, "required": ["x"]})
    assert anything.check('{"x": 12345678901234567891}').cells == {"x": 12345678901234567891}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "is an int, not a JSON Schema"),
        ([REVIEW], "is a list, not a JSON Schema"),
        ({}, "describes no answer"),
        ({"title": "x"}, "describes no answer"),
        ({"type": "objekt"}, "is not a JSON Schema at type"),
        ({"type": "object", "properties": []}, "is not a JSON Schema"),
        ({"type": "object", "required": "a"}, "is not a JSON Schema"),
        ({"type": "object", "requird": ["a"]}, "no keyword 'requird'. Did you mean required?"),
        ({"type": "object", "properties": {"a": {"tpye": "string"}}}, "no keyword 'tpye'. Did you mean type?"),
        ({"type": "array", "items": {"anyOf": [{"minimun": 3}]}}, "Did you mean minimum?"),
        ({"name": "Kim", "age": 3}, "there is no keyword 'name'"),
        ({"type": "string", "pattern": "("}, "is not a JSON Schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}, "contains itself (#/$defs/a)"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "contains itself (#)"),
        ({"$ref": "#/$defs/a"}, "points to nothing"),
        ({"$ref": "https://example.com/schema.json"}, "only #/… within it is followed"),
        (Tree, "contains itself"),
        (Odd, "has no JSON Schema"),
    ],
    ids=lambda v: None if isinstance(v, str) else str(v)[:40],
)
def test_what_is_no_schema(source, words):
    with pytest.raises(BadOption) as caught:
        schema.load(source)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schema_that_doubles_with_every_reference_is_refused():
    bomb = {
        f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}}}
        for i in range(30)
    }
    with pytest.raises(BadOption, match="more than 5,000 parts"):
        schema.load({"$ref": "#/$defs/d0", "$defs": {**bomb, "d30": {"type": "string"}}})


def test_references_are_written_out():
    source = {
        "type": "object",
        "properties": {"a/b": {"$ref": "#/$defs/x~1y", "description": "mine"}},
        "$defs": {"x/y": {"type": "integer"}},
    }
    assert schema.load(source).document["properties"]["a/b"] == {"type": "integer", "description": "mine"}


def test_properties_may_bear_the_names_of_keywords():
    assert kinds(
        {"type": "object", "properties": {"type": {"type": "string"}, "items": {"type": "integer"}, "$ref": {"type": "string"}}}
    ) == {
        "type": "string",
        "items": "integer",
        "$ref": "string",
    }


# -- where it comes from -----------------------------------------------------------------------------------------------------
def test_a_variable_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "review.json").write_text("\ufeff" + json.dumps(REVIEW), "utf-8")
    assert schema.load("review.json").name == "review"
    assert schema.load("mine", {"mine": REVIEW}).name == "mine"
    assert schema.load("Book", {"Book": Book}).model is Book
    (tmp_path / "broken.json").write_text("{")
    for name, variables, words in (
        ("reviw", {"review": REVIEW, "other": 3}, "Did you mean review?"),
        ("nowhere.json", {}, "there is no such file"),
        ("broken.json", {}, "it is not JSON"),
        ("mine", {"mine": 3}, "is an int"),
    ):
        with pytest.raises(BadOption) as caught:
            schema.load(name, variables)
        assert words in str(caught.value)


class Mood(enum.Enum):
    good = "positive"
    bad = "negative"


class Plain:
    mood: str


WRITTEN = {
    "positive,negative": '{"enum": ["positive", "negative"]}',
    "yes|no": '{"enum": ["yes", "no"]}',
    '["a", "b"]': '{"enum": ["a", "b"]}',
    '{"enum": ["a", "b"]}': '{"enum": ["a", "b"]}',
    '{"enum": [true, "b"]}': "{'enum': [True, 'b']}",
    "labels": '{"enum": labels}',
    "pair": '{"enum": list(pair)}',
    "Mood": '{"enum": [m.value for m in Mood]}',
    "Choice": '{"enum": list(Choice.__args__)}',
    "fields": '{"type": "object", "properties": {"mood": {"enum": ["positive", "negative"]}, "title": {"type": "string"}}, "required": ["mood", "title"]}',
    "str": '{"type": "string"}',
}
HELD = {
    "labels": ["positive", "negative"],
    "pair": ("positive", "negative"),
    "Mood": Mood,
    "Choice": typing.Literal["positive", "negative"],
    "fields": {"mood": ["positive", "negative"], "title": str},
}


@pytest.mark.parametrize("given", WRITTEN)
def test_labels_and_fields_are_told_the_schema_that_they_stand_for(given: str) -> None:
    with pytest.raises(BadOption) as caught:
        schema.load(given, HELD)
    assert str(caught.value).endswith(f". Write answer = {WRITTEN[given]} in a cell above, and --schema answer here.")
    assert schema.load(eval(WRITTEN[given], {}, dict(HELD))).columns, "what is said is a schema"


def test_in_a_call_the_schema_is_said_as_its_argument() -> None:
    for source in (["a", "b"], "a,b", typing.Literal["a", "b"]):
        with pytest.raises(BadOption, match=r'\. Write schema=\{"enum": \["a", "b"\]\}\.$'):
            schema.load(source)
    with pytest.raises(BadOption, match=r"Begin it with class Plain\(pydantic\.BaseModel\):"):
        schema.load(Plain)


def test_what_stands_for_no_schema_that_a_line_has_room_for_is_refused_without_one() -> None:
    many = [f"label {i}" for i in range(40)]
    with pytest.raises(BadOption, match=r"label 7\", …\]"):
        schema.load(",".join(many), {})
    for source in ("nothing.json", "[1, [2]]", "{broken", json.dumps({"type": "object", "title": "x" * 300})):
        with pytest.raises(BadOption) as caught:
            schema.load(source, {})
        assert "Write" not in str(caught.value)
        assert len(str(caught.value)) < 200


def test_half_a_surrogate_pair_in_a_schema_is_refused_before_a_column_is_named_with_it() -> None:
    with pytest.raises(BadOption, match="contains half of a surrogate pair, which no column can hold"):
        schema.load({"type": "object", "properties": {"y\ud800": {"type": "string"}}})
