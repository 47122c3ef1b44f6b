"""The nouns: routes divide at the first slash, a secret never shows itself, the same request has the same key."""

from __future__ import annotations

import hashlib
import json
import pickle
import traceback
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.errors import BadRoute, Fault, closest
from holynb.types import Embedding, Engine, Message, Prompt, Request, Route, Sampling, Secret, Usage

KEY = "sk-test-1234567890abcdef"


def test_only_the_first_slash_divides_a_route():
    route = Route.parse("pool/org/name")
    assert (route.provider, route.model, str(route)) == ("pool", "org/name", "pool/org/name")


@pytest.mark.parametrize("text", ["", "gpt-4.1", "/x", "x/", "a b/c", "sim/ec ho", "sim/\ud800"])
def test_what_is_not_a_route_is_refused_with_an_example(text: str):
    with pytest.raises(BadRoute, match="sim/echo"):
        Route.parse(text)


def test_a_secret_never_shows_itself():
    secret = Secret(KEY, "TEST_KEY")
    try:
        raise ValueError(f"{secret} {secret!r}")
    except ValueError:
        shown = traceback.format_exc()
    assert KEY not in shown + repr([secret]) + str({"k": secret})
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(secret)
    assert secret.reveal() == KEY


@given(st.integers(0, 16), st.integers(8, 24), st.text(max_size=20), st.text(max_size=20))
def test_a_server_that_echoes_a_key_whole_or_in_part_is_masked(start: int, length: int, before: str, after: str):
    part = KEY[start : start + length]
    masked = Secret(KEY).mask(before + part + after)
    assert part not in masked
    assert "***" in masked


@given(st.text(alphabet=st.characters(blacklist_characters="-"), max_size=60))
def test_masking_leaves_other_text_alone(text: str):
    assert Secret("zz-zz-zz-zz-zz").mask(text) == text


def test_a_row_says_over_the_run():
    base = Sampling(max_tokens=10, temperature=0.5, extra={"a": 1, "b": 1})
    assert Sampling(temperature=0.0, extra={"b": 2}).over(base) == Sampling(10, 0.0, extra={"a": 1, "b": 2})


def test_an_empty_prompt_has_nothing_but_white_space_and_system():
    assert Prompt((Message("system", "be brief"), Message("user", " \n"))).empty
    assert not Prompt((Message("user", "0"),)).empty
    assert Prompt((Message("user", "first"), Message("assistant", "x"), Message("user", "last"))).text == "last"


def request(**changes: object) -> Request:
    return replace(Request(0, (Message("user", "hi"),), Route("sim", "echo"), Sampling(max_tokens=5)), **changes)


def test_the_same_request_has_the_same_key_wherever_it_stands():
    assert request().key("u") == request(row=7, stream=True).key("u")


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": (Message("user", "hi "),)},
        {"messages": (Message("system", "x"), Message("user", "hi"))},
        {"route": Route("sim", "other")},
        {"sampling": Sampling(max_tokens=6)},
        {"sampling": Sampling(max_tokens=5, extra={"k": 1})},
        {"sample": 1},
        {"schema": {"type": "object"}},
    ],
)
def test_anything_that_changes_the_answer_changes_the_key(changes: dict[str, object]):
    assert request(**changes).key("u") != request().key("u")
    assert request().key("u") != request().key("v")


@pytest.mark.parametrize(
    ("base", "route", "sampling", "sample", "schema", "key"),
    [
        (
            *("https://api.openai.com/v1", "openai/gpt-6-luna", Sampling(max_tokens=5), 0, None),
            "76260fceb17613b35b7599a16ff2a45ce69ca8c517ab5279ba08f5645d36b04c",
        ),
        (
            *("https://api.anthropic.com", "anthropic/claude-sonnet-5-5"),
            *(Sampling(2048, 0.2, 0.9, ("END",), 7, {"top_k": 20, "a": 1}), 0, None),
            "e97b66e93e335a556f1628674737d2ce275ef28f1909908409291915079c739f",
        ),
        ("", "pool/smollm2-135m", Sampling(max_tokens=512), 2, None, "5b4c6b92fc3007a1d1c3316dcdcf0861e44f9959460f14697532cbdc06234b5f"),
        ("", "sim/echo", Sampling(), 0, {"type": "object"}, "0bc9d7e48d33932b83cf8599caafd529686974e54b115ab9cde1a617da3d3d77"),
    ],
)
def test_keys_are_those_that_older_run_logs_hold(base: str, route: str, sampling: Sampling, sample: int, schema: object, key: str):
    """Recorded with holynb before it had `think` and tiers."""
    messages = (Message("system", "Answer in one word."), Message("user", "Is it good?"))
    asked = Request(3, messages, Route.parse(route), sampling, sample, schema=schema, tiers=("flex",))
    assert asked.key(base) == key
    thinking = {replace(asked, sampling=replace(sampling, think=t)).key(base) for t in ("off", "low", 4000)}
    assert len(thinking | {key}) == 4, "how much it thinks is part of what is asked"


@given(st.lists(st.text() | st.characters(categories=["Cs", "Cc", "Zl"]), max_size=3), st.sampled_from([None, Embedding(), Embedding(3)]))
def test_a_key_is_the_hash_of_plain_json(texts: list[str], embedding: Embedding | None):
    """Put together of parts, some of them known from the row before."""
    messages = tuple(Message("user", text) for text in texts)
    for extra in ({}, {"b": [1], "a": "".join(texts)}):
        asked = request(messages=messages, sampling=Sampling(max_tokens=5, extra=extra), embedding=embedding)
        sampling = [5, None, None, [], None, dict(sorted(extra.items()))]
        identity = ["u", "sim/echo", [["user", text] for text in texts], sampling, 0, None]
        identity += [] if embedding is None else [{"embedding": embedding.dimensions}]
        text = json.dumps(identity, ensure_ascii=False, separators=(",", ":"))
        assert asked.key("u") == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def test_a_key_of_broken_text_is_a_key():
    assert len(request(messages=(Message("user", "\ud800 half"),)).key("u")) == 64


def test_unknown_tokens_stay_unknown_in_a_sum():
    assert Usage(1, None) + Usage(2, 3) == Usage(3, 3)
    assert Usage() + Usage() == Usage()


def test_faults_have_known_kinds_and_facts():
    assert Fault("server", "x").retry
    assert not Fault("auth", "x").retry
    with pytest.raises(ValueError, match="unknown kind"):
        Fault("strange", "x")
    with pytest.raises(TypeError, match="wiat"):
        Fault("server", "x", wiat=1)


def test_the_closest_word_is_offered():
    assert closest("--modle", ["--model", "--df"]) == " Did you mean --model?"
    assert closest("zzz", ["abc"]) == ""


def test_a_scripted_engine_is_an_engine():
    from engines_fake import Scripted, always

    assert isinstance(Scripted(always()), Engine)
