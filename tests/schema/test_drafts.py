"""Schemas as tools write them, in older drafts: the same answers hold as by the draft's own rules, or the word is refused by name.

The rules are those of the package jsonschema, draft by draft. Looked at for the same kind of fault: tuples, `dependencies`, boolean limits,
`id` and `$id`, what stands beside a `$ref`, pointers with escapes and indexes, `nullable`, dynamic references, `contentSchema`; answers whose
nulls stand for what was left out, in a tuple too.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holynb.errors import BadOption
from holynb.schema import load, normalize

D7, D4 = "http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-04/schema#"


def document(**schema: Any) -> Any:
    return normalize.resolve({"type": "object", **schema}, "--schema s")


def refusal(**schema: Any) -> str:
    with pytest.raises(BadOption) as caught:
        document(**schema)
    return str(caught.value)


TWO = [{"type": "integer"}, {"type": "string"}]


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"items": TWO, "additionalItems": False}, {"prefixItems": TWO, "items": False}),
        ({"items": TWO}, {"prefixItems": TWO}),
        ({"items": [], "additionalItems": {"type": "null"}}, {"items": {"type": "null"}}),
        ({"items": {"type": "string"}, "additionalItems": False}, {"items": {"type": "string"}}),
        ({"minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
        ({"maximum": 5, "exclusiveMaximum": False}, {"maximum": 5}),
        ({"exclusiveMinimum": 0}, {"exclusiveMinimum": 0}),
        ({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["d"]}}}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        ({"type": "string", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"$ref": "#/definitions/n", "nullable": True, "title": "T"}, {"title": "T", "anyOf": [{"type": "number"}, {"type": "null"}]}),
        ({"allOf": [{"$ref": "#/definitions/n"}], "nullable": True}, {"anyOf": [{"allOf": [{"type": "number"}]}, {"type": "null"}]}),
        ({"$ref": "#/definitions/n", "description": "d"}, {"type": "number", "description": "d"}),
        ({"$ref": "#/definitions/a%20b~1c"}, {"type": "boolean"}),
        ({"$ref": "#/definitions/list/anyOf/1"}, {"type": "null"}),
        ({"$ref": "https://example.com/s#/definitions/n"}, {"type": "number"}),
        ({"$ref": "#/definitions/never"}, {"not": {}}),
        ({"type": "string", "contentSchema": {"type": "object"}}, {"type": "string", "contentSchema": {"type": "object"}}),
        ({"type": "object", "properties": {"id": {"type": "string"}, "items": {"type": "null"}}}, {"type": "object", "properties": {"id": {"type": "string"}, "items": {"type": "null"}}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("named", [D7, "https://json-schema.org/draft/2020-12/schema", None])
def test_a_word_of_an_older_draft_is_written_as_today(schema: dict[str, Any], written: dict[str, Any], named: str | None) -> None:
    definitions = {"n": {"type": "number"}, "a b/c": {"type": "boolean"}, "list": {"anyOf": [TWO[0], {"type": "null"}]}, "never": False}
    whole = {
        "properties": {"x": schema},
        "definitions": definitions,
        "id": "https://example.com/s#",
        **({"$schema": named} if named else {}),
    }
    assert document(**whole)["properties"]["x"] == written


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "is of draft-03, which is not read"),
        ({"properties": {"x": {"prefixItems": TWO, "additionalItems": False}}}, "additionalItems beside prefixItems"),
        ({"properties": {"x": {"prefixItems": TWO, "items": TWO}}}, "a list of items beside prefixItems"),
        ({"properties": {"x": {"exclusiveMinimum": True}}}, "exclusiveMinimum: true without minimum"),
        ({"properties": {"x": {"nullable": "yes", "type": "string"}}}, "nullable: 'yes'"),
        ({"dependencies": {"a": ["b"]}, "dependentRequired": {"a": ["c"]}}, "in dependencies and in dependentRequired"),
        ({"properties": {"x": {"$dynamicRef": "#x"}}}, "$dynamicRef, which is not followed: write $ref"),
        ({"properties": {"x": {"$recursiveRef": "#"}}}, "$recursiveRef, which is not followed"),
        ({"properties": {"x": {"$id": "https://a.example/x", "$ref": "#/definitions/n"}}}, "has an $id, against which"),
        ({"$schema": D7, "properties": {"x": {"$ref": "#/definitions/n", "minimum": 3}}}, "draft-07 ignores 'minimum' beside a $ref"),
        ({"properties": {"x": {"$ref": "#/definitions/o", "properties": {"a": {"type": "null"}}}}}, "'properties' beside a $ref"),
        ({"properties": {"x": {"$ref": "#/definitions/o", "type": "string"}}}, "'type' beside a $ref to what says it otherwise"),
        ({"properties": {"x": {"$ref": 3}}}, "$ref is an int"),
        ({"properties": {"x": {"$ref": "#there"}}}, "points to nothing"),
        ({"properties": {"x": {"divisibleBy": 3}}}, "no keyword 'divisibleBy'"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(schema: dict[str, Any], words: str) -> None:
    definitions = {"n": {"type": "number"}, "o": {"type": "object", "properties": {"a": {"type": "string"}}}}
    assert words in refusal(**{"properties": {"y": {}}, "definitions": definitions, **schema})


def test_both_hold_of_a_reference_and_what_is_beside_it() -> None:
    """`required` of the one replaced `required` of the other, so that an answer without half of its fields was valid."""
    base = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
    schema = document(**{"$ref": "#/$defs/base", "properties": {"b": {"type": "string"}}, "required": ["b"], "$defs": {"base": base}})
    assert schema["required"] == ["a", "b"]
    assert list(schema["properties"]) == ["a", "b"]


def test_nulls_in_a_tuple_stand_for_what_was_left_out() -> None:
    part = {"type": "object", "properties": {"note": {"type": "string"}, "n": {"type": "integer"}}, "required": ["n"]}
    schema = load(
        {
            "$schema": D7,
            "type": "object",
            "required": ["t"],
            "properties": {"t": {"type": "array", "items": [part], "additionalItems": False}},
        }
    )
    assert schema.check('{"t": [{"n": 1, "note": null}]}').cells == {"t": [{"n": 1}]}
    assert schema.check('{"t": [{"n": 1}, 2]}').error is not None


# -- against the rules of each draft -------------------------------------------------------------------------------------------
names = st.sampled_from("abc")
instances = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.sampled_from(["", "a", "abc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
types = st.sampled_from(["integer", "string", "null", "array", "object", "boolean"]).map(lambda t: {"type": t})
limits = st.fixed_dictionaries({}, optional={"minimum": st.integers(-1, 3), "maximum": st.integers(-1, 3), "minLength": st.integers(0, 2), "maxItems": st.integers(0, 2)})  # fmt: skip
ref = st.just({"$ref": "#/definitions/d"})


def older(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(names, max_size=2, unique=True)
    return st.fixed_dictionaries(
        {},
        optional={
            "items": inner | st.lists(inner, min_size=1, max_size=2),
            "additionalItems": inner | st.booleans(),
            "dependencies": st.dictionaries(names, some | inner, max_size=2),
            "properties": st.dictionaries(names, inner, max_size=2),
            "additionalProperties": st.booleans(),
            "required": st.lists(names, min_size=1, max_size=2, unique=True),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "enum": st.lists(st.integers(0, 3) | st.none(), min_size=1, max_size=3, unique=True),
        },
    )


seventh = st.recursive(types | limits | ref | st.fixed_dictionaries({"const": st.integers(0, 2)}) | st.fixed_dictionaries({"exclusiveMinimum": st.integers(0, 2)}), older, max_leaves=6)  # fmt: skip
fourth = st.recursive(types | limits | ref | st.fixed_dictionaries({"minimum": st.integers(0, 2), "exclusiveMinimum": st.booleans()}), older, max_leaves=6)  # fmt: skip


def agrees(kind: Any, schema: Any, values: list[Any]) -> None:
    try:
        read = normalize.validator(normalize.resolve(schema, "--schema s"))
    except BadOption:
        assume(False)
    theirs = kind(schema)
    for value in values:
        assert read.is_valid(value) == theirs.is_valid(value), value


@settings(max_examples=60)
@given(seventh, types | limits, st.lists(instances, max_size=8))
def test_answers_hold_as_by_draft_07(schema: dict[str, Any], definition: dict[str, Any], values: list[Any]) -> None:
    whole = {"$schema": D7, "anyOf": [schema, {"type": "boolean"}], "definitions": {"d": definition}}
    agrees(jsonschema.Draft7Validator, whole, values)


@settings(max_examples=60)
@given(fourth, types | limits, st.lists(instances, max_size=8))
def test_answers_hold_as_by_draft_04(schema: dict[str, Any], definition: dict[str, Any], values: list[Any]) -> None:
    whole = {"$schema": D4, "anyOf": [schema, {"type": "boolean"}], "definitions": {"d": definition}}
    agrees(jsonschema.Draft4Validator, whole, values)


modern = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["object", "array", "integer"]), "required": st.lists(names, min_size=1, max_size=2, unique=True), "properties": st.dictionaries(names, types, max_size=2), "additionalProperties": st.booleans(), "prefixItems": st.lists(types, min_size=1, max_size=2), "items": types | st.booleans(), "minimum": st.integers(-1, 3), "maximum": st.integers(-1, 3), "enum": st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), "minItems": st.integers(0, 2)})  # fmt: skip


@settings(max_examples=60)
@given(modern, modern, st.lists(instances, max_size=8))
def test_a_reference_and_what_is_beside_it_hold_as_by_2020_12(target: dict[str, Any], own: dict[str, Any], values: list[Any]) -> None:
    whole = {"anyOf": [{"$ref": "#/$defs/d", **own}], "$defs": {"d": target}}
    agrees(jsonschema.Draft202012Validator, whole, values)
