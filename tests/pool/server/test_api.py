"""The OpenAI-compatible surface over a real server process, with a runner that writes the prompt back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pool_fake import Pool

SENTENCE = "안녕하세요 😀 naïve <script> 끝"
CHAT = "/v1/chat/completions"


def chat(text: str = SENTENCE, **more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **more}


def test_a_chat_is_answered_with_usage(echo: Pool) -> None:
    status, answer = echo.ask(CHAT, chat())
    assert status == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": SENTENCE, "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    count = len(SENTENCE.encode())
    assert answer["usage"] == {
        "prompt_tokens": count,
        "completion_tokens": count,
        "total_tokens": 2 * count,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "echo"


def test_a_stream_says_the_same_and_never_a_broken_character(echo: Pool) -> None:
    events = echo.events(CHAT, chat(stream_options={"include_usage": True}))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-1] == "data: [DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == len(SENTENCE.encode())
    pieces = [e["choices"][0]["delta"].get("content", "") for e in events[:-2]]
    assert "".join(pieces) == SENTENCE
    assert not any("\ufffd" in p for p in pieces)
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert len({e["id"] for e in events[:-1]}) == 1


def test_deltas_are_joined(echo: Pool) -> None:
    """400 tokens at up to 1,000 a second are not 400 events."""
    events = echo.events(CHAT, chat("x" * 200))
    assert len(events) < 60


def test_max_tokens_cuts_and_says_length(echo: Pool) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        _, answer = echo.ask(CHAT, chat("abcdef", **{name: 3}))
        assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == ("abc", "length")
        assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_across_tokens(echo: Pool, stream: bool) -> None:
    body = chat("one two END three", stop=["END", "nowhere"])
    if stream:
        events = echo.events(CHAT, body)
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1])
        finish = events[-2]["choices"][0]["finish_reason"]
    else:
        _, answer = echo.ask(CHAT, body)
        text, finish = answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]
        assert answer["usage"]["completion_tokens"] < len("one two END three")
    assert (text, finish) == ("one two ", "stop")


def test_plain_completions_of_texts_ids_and_several(echo: Pool) -> None:
    _, answer = echo.ask("/v1/completions", {"model": "echo", "prompt": "hello", "max_tokens": 50})
    assert answer["choices"][0]["text"] == "hello"
    assert answer["object"] == "text_completion"
    _, answer = echo.ask("/v1/completions", {"prompt": ["ab", "cd"], "n": 2, "max_tokens": 9})
    assert [c["text"] for c in answer["choices"]] == ["ab", "ab", "cd", "cd"]
    assert answer["usage"]["prompt_tokens"] == 4
    _, answer = echo.ask("/v1/completions", {"prompt": [104, 105]})
    assert answer["choices"][0]["text"] == "hi"
    events = echo.events("/v1/completions", {"prompt": ["ab", "cd"], "stream_options": {"include_usage": True}})
    texts = ["", ""]
    for event in events[:-2]:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == ["ab", "cd"]


def test_without_max_tokens_plain_completions_end_after_16(echo: Pool) -> None:
    _, answer = echo.ask("/v1/completions", {"prompt": "x" * 100})
    assert answer["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        (chat(temperature="hot"), "temperature"),
        (chat(temperature=-1), "temperature"),
        (chat(top_p=1.5), "top_p"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(seed=1.5), "seed"),
        (chat(stop=[""]), "stop"),
        (chat(stream="yes"), "stream"),
        (chat(n=0), "n"),
        (chat(tools=[{}]), "tools"),
        (chat(logprobs=3), "logprobs"),
        (chat(frequency_penalty=3), "frequency_penalty"),
        (chat(response_format={"type": "x"}), "response_format"),
        (chat(temperature=True), "temperature"),
        (chat(response_format={"type": "json_schema", "json_schema": []}), "response_format.json_schema.schema"),
        (chat(response_format={"type": "json_object"}, ignore_eos=True), "ignore_eos"),
        (chat(response_format={"type": {}}), "response_format"),
        (chat(temperature=10**400), "temperature"),
        (chat(seed=2**63), "seed"),
        (chat(stream=True, stream_options=["include_usage"]), "stream_options"),
        (chat(stream=True, stream_options={"include_usage": "no"}), "stream_options.include_usage"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": [], "text": "x"}]}]}, "messages.0.content"),
    ],
)
def test_a_bad_body_names_its_field(echo: Pool, body: dict[str, Any], param: str) -> None:
    status, answer = echo.ask(CHAT, body)
    assert status == 400
    assert answer["error"]["param"] == param
    assert answer["error"]["type"] == "invalid_request_error"


def test_neutral_fields_are_fine(echo: Pool) -> None:
    body = chat(
        "ok", frequency_penalty=0, presence_penalty=0, logprobs=False, tools=[], logit_bias={}, response_format={"type": "text"}, user="me"
    )
    assert echo.ask(CHAT, body)[0] == 200


def test_text_parts_and_developer_messages_are_read(echo: Pool) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    _, answer = echo.ask(CHAT, {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]})
    assert answer["choices"][0]["message"]["content"] == "sab"


def test_too_long_a_prompt_is_a_context_error(echo: Pool) -> None:
    status, answer = echo.ask(CHAT, chat("x" * 600))
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "512" in answer["error"]["message"]
    assert "600" in answer["error"]["message"]


def test_what_the_template_refuses_is_said(echo: Pool) -> None:
    status, answer = echo.ask(CHAT, {"messages": [{"role": "tool", "content": "x"}]})
    assert status == 400
    assert "no tools here" in answer["error"]["message"]


def test_unknown_models_paths_and_no_json(echo: Pool) -> None:
    status, answer = echo.ask(CHAT, chat(model="gpt-4.1"))
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "echo" in answer["error"]["message"]
    assert echo.ask("/v1/nothing")[0] == 404
    status, answer = echo.ask(CHAT, b"{nope")
    assert status == 400
    assert "JSON" in answer["error"]["message"]
    assert echo.ask(CHAT, [1])[0] == 400


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"messages": "\xff"}', "not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d!"}]}', r"\ud83d, half of"),
        (b'{"model": "\\udE00", "messages": []}', r"\ude00, half of"),
    ],
    ids=["arrays", "objects", "no UTF-8", "5,000 digits", "half a pair", "the other half"],
)
def test_what_no_client_means_is_its_fault_and_not_the_servers(echo: Pool, raw: bytes, why: str) -> None:
    status, answer = echo.ask(CHAT, raw)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert why in answer["error"]["message"]
    assert echo.ask(CHAT, b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}')[1]["choices"][0]["message"]["content"] == "😀"


def test_a_whole_number_may_be_of_any_size_where_more_means_all(echo: Pool) -> None:
    assert echo.ask(CHAT, chat("ok", max_tokens=10**400, top_k=10**30, seed=2**63 - 1, n=3))[0] == 200


def test_a_method_that_a_path_does_not_have(echo: Pool) -> None:
    """What it has is in the header that says so."""
    for path, method, allowed in ((CHAT, "GET", "POST"), ("/v1/models", "POST", "GET")):
        connection = echo.connect()
        connection.request(method, path)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["type"]) == (405, "invalid_request_error")
        assert allowed in str(answer.getheader("allow"))
        connection.close()


def test_a_client_that_leaves_while_it_sends_is_no_fault_of_the_pool(echo: Pool) -> None:
    before = echo.log()
    connection = echo.connect()
    connection.putrequest("POST", CHAT)
    connection.putheader("content-length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert echo.ask(CHAT, chat("fine"))[0] == 200
    echo.wait(lambda: echo.ask("/health")[1]["requests"] == 0)
    assert echo.log() == before


def test_a_row_that_ran_out_of_memory_is_its_own_error(echo: Pool) -> None:
    status, answer = echo.ask(CHAT, chat("!oom"))
    assert (status, answer["error"]["code"]) == (500, "oom")
    events = echo.events(CHAT, chat("!oom"))
    assert events[-1]["error"]["code"] == "oom"
    assert echo.ask(CHAT, chat("fine"))[0] == 200


def test_models_health_and_metrics(echo: Pool) -> None:
    _, models = echo.ask("/v1/models")
    assert models["data"][0]["id"] == "echo"
    _, health = echo.ask("/health")
    assert (health["state"], health["max_len"], health["requests"]) == ("ready", 512, 0)
    _, page = echo.ask("/metrics")
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert values["holynb_pool_ready"] == "1"
    assert int(values["holynb_generation_tokens_total"]) > 0
    assert values['holynb_ttft_seconds_bucket{le="+Inf"}'] == values["holynb_ttft_seconds_count"]
    assert values['holynb_device_memory_bytes{device="cpu",part="weights",replica="0"}'] == "4"
    assert values['holynb_kv_total_tokens{replica="0"}'] == "4000"
    assert int(values['holynb_requests_total{how="stop"}']) > 0


def test_a_model_by_its_name(echo: Pool) -> None:
    assert echo.ask("/v1/models/echo")[1]["id"] == "echo"
    status, answer = echo.ask("/v1/models/other")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    folder = echo.ask("/v1/models")[1]["data"][1]["id"]
    assert echo.ask(f"/v1/models/{folder}")[1]["id"] == folder, "a model's name may have slashes"


def test_tokens_of_a_text_and_back(echo: Pool) -> None:
    _, answer = echo.ask("/tokenize", {"prompt": "hé"})
    assert answer == {"tokens": [104, 195, 169], "count": 3, "max_model_len": 512}
    assert echo.ask("/tokenize", {"content": "hi"})[1]["tokens"] == [104, 105]
    chatted = echo.ask("/tokenize", chat("a"))
    assert chatted[1]["tokens"] == [97]
    assert echo.ask("/detokenize", {"tokens": [104, 195, 169, 256]})[1]["prompt"] == "hé<end>"
    assert echo.ask("/apply-template", chat("a"))[1] == {"prompt": "a"}
    for path, body in (("/tokenize", {"prompt": 7}), ("/tokenize", {"text": "x"}), ("/detokenize", {"tokens": [999]}), ("/detokenize", {})):
        status, refused = echo.ask(path, body)
        assert status == 400, (path, body)
        assert refused["error"]["param"]


def test_an_earlier_turn_may_have_called_a_tool_instead_of_saying_something(echo: Pool) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {"messages": [{"role": "user", "content": "a"}, said, {"role": "user", "content": "b"}], "tools": [call], "tool_choice": "none"}
    assert echo.ask(CHAT, body)[1]["choices"][0]["message"]["content"] == "ab"
    for wrong in ({**said, "tool_calls": []}, {**said, "tool_calls": "f"}, {**said, "tool_calls": [{"id": "1"}]}):
        assert echo.ask(CHAT, {"messages": [wrong]})[0] == 400


def test_two_turns_of_the_assistant_leave_nothing_to_answer(echo: Pool) -> None:
    said = {"role": "assistant", "content": "x"}
    assert echo.ask(CHAT, {"messages": [{"role": "user", "content": "a"}, said]})[0] == 200
    status, answer = echo.ask(CHAT, {"messages": [{"role": "user", "content": "a"}, said, said]})
    assert (status, answer["error"]["param"]) == (400, "messages")


def test_a_body_that_is_said_to_be_no_json(echo: Pool) -> None:
    for kind, expected in (("application/json; charset=utf-8", 200), ("application/vnd.api+json", 200), ("text/plain", 415)):
        connection = echo.connect()
        connection.request("POST", CHAT, json.dumps(chat("a")), {"content-type": kind})
        answer = connection.getresponse()
        assert answer.status == expected
        assert "error" in json.loads(answer.read()) or expected == 200
        connection.close()


def test_the_prompt_comes_first_where_it_is_to_be_echoed(echo: Pool) -> None:
    for prompt in ("né", list("né".encode())):
        _, answer = echo.ask("/v1/completions", {"prompt": prompt, "echo": True})
        assert answer["choices"][0]["text"] == "néné"
        _, alone = echo.ask("/v1/completions", {"prompt": prompt, "echo": True, "max_tokens": 0})
        assert (alone["choices"][0]["text"], alone["usage"]["completion_tokens"]) == ("né", 0)
        events = echo.events("/v1/completions", {"prompt": prompt, "echo": True})
        assert "".join(e["choices"][0]["text"] for e in events[:-1]) == "néné"


def test_a_prompt_is_cut_to_its_end(echo: Pool) -> None:
    assert echo.ask(CHAT, chat("abcdef", truncate_prompt_tokens=2))[1]["choices"][0]["message"]["content"] == "ef"


def test_a_stop_string_within_the_first_tokens_is_text(echo: Pool) -> None:
    assert echo.ask(CHAT, chat("abXcdXe", stop="X", min_tokens=4))[1]["choices"][0]["message"]["content"] == "abXcd"


@pytest.mark.parametrize("field", ["stop_token_ids", "allowed_token_ids"])
def test_a_token_that_the_model_does_not_have(echo: Pool, field: str) -> None:
    status, answer = echo.ask(CHAT, chat(**{field: [300]}))
    assert (status, answer["error"]["param"]) == (400, field)
    assert echo.ask(CHAT, chat(logit_bias={"300": 1}))[1]["error"]["param"] == "logit_bias"


def test_choices_of_a_seed_are_told_apart_and_so_are_prompts(echo: Pool) -> None:
    _, answer = echo.ask("/v1/completions", {"prompt": ["ab", "cd"], "n": 2, "seed": 2**63 - 1})
    assert [c["index"] for c in answer["choices"]] == [0, 1, 2, 3]
