"""No prompt and no chat template holds up the others: what cannot fit is refused by its bytes, and the rest is encoded beside the streams."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from pool_fake import Pool, Pools, byte_model

CHAT = "/v1/chat/completions"


def model(folder: Path, context: int = 512, template: str | None = None) -> str:
    byte_model(folder, context)
    if template is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return str(folder)


class Stream(threading.Thread):
    """A stream of some seconds, and when its pieces came."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool, self.times, self.text = pool, list[float](), ""
        self.began = threading.Event()

    def run(self) -> None:
        connection = self.pool.connect(60)
        body = {"messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 200, "stream": True}
        connection.request("POST", CHAT, json.dumps(body).encode())
        answer = connection.getresponse()
        while line := answer.readline():
            if line.startswith(b"data: {"):
                self.times.append(time.monotonic())
                self.text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                self.began.set()
        connection.close()

    def longest_gap(self) -> float:
        return max(b - a for a, b in zip(self.times, self.times[1:], strict=False))


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_read_as_tokens(pools: Pools) -> None:
    pool = pools.start()
    for path, body in (
        (CHAT, {"messages": [{"role": "user", "content": "word " * 6_000_000}]}),
        ("/v1/completions", {"prompt": "word " * 6_000_000}),
    ):
        began = time.monotonic()
        status, answer = pool.ask(path, body)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 512 tokens" in answer["error"]["message"]
        assert "30,000,000 bytes" in answer["error"]["message"]
        assert time.monotonic() - began < 10, "a machine under load needs 2 s; its tokens would take 30"


def test_streams_go_on_while_a_long_prompt_is_encoded(pools: Pools, tmp_path: Path) -> None:
    pool = pools.start("--model", model(tmp_path / "long", 2_500_000), HOLYNB_FAKE_STEP="0.02")
    stream = Stream(pool)
    stream.start()
    assert stream.began.wait(20)
    began = time.monotonic()
    status, answer = pool.ask(CHAT, {"messages": [{"role": "user", "content": "word and " * 450_000}]})
    took = time.monotonic() - began
    short_began = time.monotonic()
    stream.join(60)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert stream.text == "x" * 200
    assert stream.times[-1] > short_began, "the stream was still going"
    assert stream.longest_gap() < took / 2


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_never_ends_is_refused_and_holds_nobody_up(pools: Pools, tmp_path: Path, template: str) -> None:
    trap = "{% if messages[0].content == 'trap' %}" + template + "{% endif %}{{ messages[0].content }}"
    pool = pools.start("--model", model(tmp_path / "trap", template=trap), HOLYNB_FAKE_STEP="0.01")
    stream = Stream(pool)
    stream.start()
    assert stream.began.wait(20)
    status, answer = pool.ask(CHAT, {"messages": [{"role": "user", "content": "trap"}]})
    assert status == 400
    assert "chat template refuses these messages" in answer["error"]["message"]
    assert pool.ask(CHAT, {"messages": [{"role": "user", "content": "hi"}]})[0] == 200
    stream.join(60)
    assert stream.text == "x" * 200


def test_a_request_for_too_many_answers_is_refused(pools: Pools) -> None:
    status, answer = pools.start().ask("/v1/completions", {"prompt": ["a"] * 5000})
    assert status == 400
    assert "at most 4,096 answers" in answer["error"]["message"]
