"""A pool whose model thinks, over HTTP: thoughts apart from text, counted, ended, and left out, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import thinking_models as models
from pool_fake import Pool, Pools

CHAT = "/v1/chat/completions"
REAL = ("--runner", "holynb.pool.engine.runner:Runner")
#: What a pool that echoes its prompt answers as a model that thinks does: the template writes the tags.
ECHO = (
    "{%- for m in messages %}{{- '<think>\n' + (reasoning_effort or '') + m.content + '\n</think>\n\nSo: ' + m.content }}{%- endfor %}"
    "{%- if enable_thinking %}{%- endif %}"
)


def served(made: Pools, folder: Path, *flags: str) -> Pool:
    return made.start("--model", str(folder), *flags, OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pools(tmp_path_factory.mktemp("pool"))
    yield served(made, models.thinking_model(tmp_path_factory.mktemp("model"), ECHO))
    made.end()


def body(words: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}], "temperature": 0, **more}


def streamed(pool: Pool, asked: dict[str, Any]) -> tuple[str, str, str | None, dict[str, Any]]:
    """The thought, the text, the finish reason and the usage of a stream, in which no delta holds both."""
    events = [e for e in pool.events(CHAT, asked | {"stream_options": {"include_usage": True}}) if isinstance(e, dict)]
    choices = [c for e in events for c in e["choices"]]
    assert not any(c["delta"].get("reasoning_content") and c["delta"].get("content") for c in choices)
    thought = "".join(c["delta"].get("reasoning_content") or "" for c in choices)
    text = "".join(c["delta"].get("content") or "" for c in choices)
    return thought, text, choices[-1]["finish_reason"], events[-1]["usage"]


def whole(pool: Pool, asked: dict[str, Any]) -> tuple[str, str, str | None, dict[str, Any]]:
    status, answer = pool.ask(CHAT, asked)
    assert status == 200, answer
    (choice,) = answer["choices"]
    message = choice["message"]
    return message.get("reasoning_content", ""), message["content"], choice["finish_reason"], answer["usage"]


@pytest.mark.parametrize("words", ["One and one 🙂.", "about <think> and </think>", "가나다"])
def test_whole_and_streamed_thoughts_stand_beside_the_text(echo: Pool, words: str) -> None:
    told, said, finish, usage = whole(echo, body(words))
    assert (told, said, finish) == (words, f"So: {words}", "stop")
    thought = len(f"\n{words}\n".encode()) + 2
    assert usage["completion_tokens_details"] == {"reasoning_tokens": thought}
    assert usage["completion_tokens"] == thought + len(f"\n\nSo: {words}".encode())
    assert streamed(echo, body(words)) == (told, said, finish, usage)


def test_a_thought_that_is_cut_is_no_text(echo: Pool) -> None:
    asked = body("One and one", max_tokens=8)
    told, said, finish, usage = whole(echo, asked)
    assert (told, said, finish) == ("One an", "", "length")
    assert usage["completion_tokens_details"]["reasoning_tokens"] == usage["completion_tokens"] == 8
    assert streamed(echo, asked) == (told, said, finish, usage)


def test_stop_strings_are_looked_for_in_the_answer(echo: Pool) -> None:
    for read in (whole, streamed):
        told, said, finish, _ = read(echo, body("One, two", stop=[", t"]))
        assert (told, said, finish) == ("One, two", "So: One", "stop")


def test_several_choices_think_each_for_itself(echo: Pool) -> None:
    status, answer = echo.ask(CHAT, body("One", n=3, seed=1))
    assert status == 200
    assert [(c["message"]["reasoning_content"], c["message"]["content"]) for c in answer["choices"]] == [("One", "So: One")] * 3
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3 * 7


def test_completions_are_raw_and_take_no_thinking(echo: Pool) -> None:
    asked = {"prompt": "<think>One</think>Two", "max_tokens": 99}
    status, answer = echo.ask("/v1/completions", asked)
    assert (status, answer["choices"][0]["text"]) == (200, asked["prompt"])
    assert "completion_tokens_details" not in answer["usage"]
    for field in ({"thinking_budget": 5}, {"reasoning_effort": "low"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        status, answer = echo.ask("/v1/completions", asked | field)
        assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, next(iter(field)), "unsupported_parameter")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("thinking_budget", -1),
        ("thinking_budget", "12k"),
        ("thinking_budget", 1.5),
        ("thinking_token_budget", -2),
        ("reasoning_effort", "hihg"),
        ("reasoning_effort", 3),
        ("chat_template_kwargs", {"enable_thinking": "no"}),
        ("continue_final_message", True),
    ],
)
def test_bad_values_are_refused_by_name(echo: Pool, field: str, value: Any) -> None:
    status, answer = echo.ask(CHAT, body("One", **{field: value}))
    assert (status, answer["error"]["param"].partition(".")[0]) == (400, field)
    assert field in answer["error"]["message"]


def test_a_template_is_shown_as_it_is_rendered(echo: Pool) -> None:
    messages = body("One")["messages"]
    status, answer = echo.ask("/apply-template", {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}})
    assert (status, answer["prompt"]) == (200, "<think>\nOne\n</think>\n\nSo: One")
    status, answer = echo.ask("/apply-template", {"messages": messages, "reasoning_effort": "low"})
    assert (status, answer["prompt"]) == (200, "<think>\nlowOne\n</think>\n\nSo: One")


# -- with a model ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pytest.importorskip("torch")
    made = Pools(tmp_path_factory.mktemp("pool"))
    yield served(made, models.random_thinker(tmp_path_factory.mktemp("model")), *REAL)
    made.end()


def test_nothing_of_a_random_model_holds_a_tag(thinker: Pool) -> None:
    """It opens and closes thoughts wherever its tokens come: none of the tags is ever text, thinking or not."""
    asked = models.asked_of_random(36)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda one: whole(thinker, one), asked))
    assert not [a for a in answers if "think>" in a[1] or "think>" in a[0]]
    assert sum(a[3]["completion_tokens_details"]["reasoning_tokens"] > 0 for a in answers) > 8, "many of them think"
    assert not any(a[3]["completion_tokens_details"]["reasoning_tokens"] for a in answers[1::3]), "thinking is off"
    assert all(a[3]["completion_tokens"] == 40 for a in answers)
    raw = {"prompt": "One", "max_tokens": 40, "ignore_eos": True, "seed": 1, "logit_bias": models.BEGINS}
    assert "<think>" in thinker.ask("/v1/completions", raw)[1]["choices"][0]["text"]


def test_a_thought_ends_after_its_budget_beside_rows_that_go_on(thinker: Pool) -> None:
    def one(budget: int | None) -> tuple[str, str, str | None, dict[str, Any]]:
        more = {} if budget is None else {"thinking_budget": budget}
        never = {"257": 25, "258": -100}
        return whole(thinker, body("One", temperature=1, seed=3, max_tokens=30, ignore_eos=True, logit_bias=never, **more))

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(one, [None, 0, 1, 5, 12, 100]))
    assert [a[3]["completion_tokens_details"]["reasoning_tokens"] for a in answers] == [30, 1 + 0 + 2, 1 + 1 + 2, 1 + 5 + 2, 1 + 12 + 2, 30]
    assert {(a[2], a[3]["completion_tokens"]) for a in answers} == {("length", 30)}


def test_an_answer_with_a_schema_begins_behind_its_thought(thinker: Pool) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    for more in ({"thinking_budget": 6, "logit_bias": {"257": 100}}, {"chat_template_kwargs": {"enable_thinking": False}}):
        told, said, finish, usage = whole(thinker, body("One", max_tokens=60, **form, **more))
        assert json.loads(said).keys() == {"ok"}
        assert (finish, usage["completion_tokens_details"]["reasoning_tokens"]) == ("stop", 9 if "logit_bias" in more else 0)
        assert told == ""


def test_log_probabilities_are_of_the_answer_alone(thinker: Pool) -> None:
    asked = body(
        "One",
        max_tokens=20,
        ignore_eos=True,
        temperature=1,
        seed=5,
        thinking_budget=4,
        logit_bias={"257": 25, "258": -100},
        repetition_penalty=8,
        logprobs=True,
        top_logprobs=1,
    )
    status, answer = thinker.ask(CHAT, asked)
    (choice,) = answer["choices"]
    listed = choice["logprobs"]["content"]
    assert status == 200
    thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert thought == 1 + 4 + 2
    said = b"".join(bytes(t["bytes"]) for t in listed if t["token"] != "<think>").decode("utf-8", "replace")
    assert said == choice["message"]["content"] != ""
    chunks = [c for e in thinker.events(CHAT, asked) if isinstance(e, dict) for c in e["choices"]]
    assert not any(c["logprobs"] for c in chunks if c["delta"].get("reasoning_content"))
    assert [t for c in chunks if c["logprobs"] for t in c["logprobs"]["content"]] == listed
