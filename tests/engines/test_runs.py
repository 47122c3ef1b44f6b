"""Whole runs over real sockets: what servers saw is what the frame says, and nothing a server does loses a row or shows a key."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from servers.asking import KEY
from servers.exact import END, EOF, Asked, Exact, Step, chunk, reply, sse, stream_head, streamed
from servers.golden import ANTHROPIC, GEMINI, OPENAI, TEXT, openai_chunk, openai_error

import holynb
from holynb import loop

pytestmark = pytest.mark.usefixtures("keyed")


def run(server: Exact, rows: int = 1, route: str = "openai/gpt-4.1-mini", **options: Any) -> Any:
    prompts = [f"row {i}" for i in range(rows)]
    run = holynb.infer(prompts, route, api_base=server.base, cache=False, **options)
    try:
        run.wait(60)
    except holynb.InferError as exc:
        assert KEY not in str(exc)
    return run.frame()


def test_keep_alives_do_not_hold_up_the_timeout():
    with Exact([stream_head(), *[chunk(b": keep-alive\n\n"), 0.05] * 200, END]) as server:
        start = time.monotonic()
        frame = run(server, stream=True, timeout=0.4, retries=0)
    assert time.monotonic() - start < 5
    assert frame["error_type"].tolist() == ["timeout"]


def test_slow_tokens_are_no_silence():
    steps: list[Step] = [stream_head()]
    for piece in "slow but sure":
        steps += [chunk(sse(openai_chunk(piece))), 0.2]
    with Exact([*steps, chunk(sse(openai_chunk(finish="stop"), "[DONE]")), END]) as server:
        frame = run(server, stream=True, timeout=2, retries=0)
    assert frame["text"].tolist() == ["slow but sure"]
    assert frame["latency_s"][0] > 2.0


def test_a_refused_key_costs_one_request_however_many_rows():
    with Exact([openai_error(401, f"Incorrect API key provided: {KEY}", "invalid_api_key")]) as server:
        frame = run(server, 200)
        assert len(server.asked) == 1
    assert set(frame["error_type"]) == {"auth"}
    assert "https://platform.openai.com/api-keys" in frame["error"][0]
    assert KEY not in frame.to_csv()


def test_an_empty_purse_costs_one_request_too():
    with Exact([openai_error(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota")]) as server:
        frame = run(server, 50)
        assert len(server.asked) == 1
    assert set(frame["error_type"]) == {"quota"}


def test_every_attempt_is_counted_and_no_row_is_lost(home: Path):
    rng = random.Random(5)

    def script(request: Asked, number: int) -> Sequence[Step]:
        draw = rng.random()
        if number and draw < 0.2:
            return [reply({"error": {"message": f"boom {KEY}"}}, 500, retry_after_ms="5")]
        if number and draw < 0.3:
            return [stream_head(), chunk(sse(openai_chunk("half"))), EOF]
        return [streamed(sse(openai_chunk(request.json["messages"][0]["content"]), openai_chunk(finish="stop"), "[DONE]"))]

    with Exact(script) as server:
        frame = run(server, 60, stream=True, retries=20)
        assert int(frame["attempts"].sum()) == len(server.asked)
    assert frame["text"].tolist() == [f"row {i}" for i in range(60)]
    loop.close()
    kept = b"".join(p.read_bytes() for p in home.glob("*.sqlite*"))
    assert kept
    assert not any(KEY.encode()[i : i + 8] in kept for i in range(len(KEY) - 7))


def test_a_parameter_that_is_refused_is_learned_by_all_rows():
    def script(request: Asked, number: int) -> Sequence[Step]:
        if "max_completion_tokens" in request.json:
            error = {"message": "Unrecognized request argument: max_completion_tokens", "param": "max_completion_tokens", "code": None}
            return [reply({"error": error}, 400)]
        return [reply(OPENAI.whole)]

    with Exact(script) as server:
        frame = run(server, 40)
        assert int(frame["attempts"].sum()) == len(server.asked)
        assert len(server.asked) < 60, "only those that were under way together"
    assert set(frame["status"]) == {"ok"}


@pytest.mark.parametrize(("route", "wire"), [("anthropic/claude-sonnet-4-5", ANTHROPIC), ("gemini/gemini-2.5-flash", GEMINI)])
@pytest.mark.parametrize("stream", [False, True])
def test_the_other_wires_run_too(route: str, wire: Any, stream: bool):
    with Exact(wire.streamed() if stream else [reply(wire.whole)]) as server:
        frame = run(server, 3, route, stream=stream)
    assert frame["text"].tolist() == [TEXT] * 3
    assert frame["tokens_in"].tolist() == [20] * 3
    assert frame["tokens_out"].tolist() == [7] * 3
