"""What was thought, through a whole run: in the frame on every path, from the log as it came, apart from the text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
import pytest
from servers.exact import END, Exact, chunk, reply, sse, stream_head
from servers.golden import openai_chunk
from servers.reader import book

import holynb
from holynb import loop, runlog
from holynb.engines import hosted
from holynb.run import session
from holynb.scheduler import Policy

DEADLINE = 30.0
USED = {"prompt_tokens": 9, "completion_tokens": 700, "total_tokens": 709, "completion_tokens_details": {"reasoning_tokens": 650}}


@pytest.fixture(autouse=True)
def everything_closed(home: Any) -> Iterator[None]:
    session._session.clear()
    hosted._traits_by_model.clear()
    yield
    loop.close()
    runlog.close()


def answered(text: str = "tea", thoughts: str | None = "hm", word: str = "stop", used: Any = USED) -> bytes:
    message = {"role": "assistant", "content": text} | ({"reasoning_content": thoughts} if thoughts is not None else {})
    return reply({"model": "m", "usage": used, "choices": [{"index": 0, "message": message, "finish_reason": word}]})


def infer(server: Exact, rows: Any = "a", **options: Any) -> holynb.Run:
    base = {"api_base": f"{server.base}/v1", "max_tokens": 512, "retries": 0}
    return holynb.infer(rows, "openai/gpt-4.1-mini", **{**base, **options})


def thought(frame: pd.DataFrame) -> list[tuple[Any, Any, Any]]:
    columns = (frame[c].astype(object).where(frame[c].notna(), None) for c in ("text", "reasoning", "tokens_reasoning"))
    return list(zip(*columns, strict=True))


pytestmark = pytest.mark.usefixtures("keyed")


@pytest.mark.parametrize("schema", [None, {"type": "object", "properties": {"reasoning": {"type": "string"}}, "required": ["reasoning"]}])
def test_live_and_cached_rows_have_it(schema: Any):
    text = "tea" if schema is None else '{"reasoning": "own"}'
    with Exact([answered(text)]) as server:
        live = infer(server, schema=schema).wait(DEADLINE).frame()
        cached = infer(server, schema=schema).wait(DEADLINE).frame()
        assert len(server.asked) == 1
    assert thought(live) == thought(cached) == [(text, "hm", 650)]
    assert (live["tokens_out"][0], cached["cached"][0]) == (700, True)
    assert schema is None or live["answer_reasoning"][0] == "own"


def test_rows_whose_server_says_nothing_have_none():
    with Exact([answered(thoughts=None, used={"prompt_tokens": 9, "completion_tokens": 3})]) as server:
        frame = infer(server).wait(DEADLINE).frame()
    assert thought(frame) == [("tea", None, None)]
    assert (str(frame["reasoning"].dtype), str(frame["tokens_reasoning"].dtype)) == ("string", "Int64")


@pytest.mark.parametrize("options", [{"samples": 2}, {"compare": "openai/gpt-4.1-mini,openai/gpt-4.1"}])
def test_compared_rows_have_it(options: dict[str, Any]):
    with Exact([answered()]) as server:
        frame = infer(server, **options).wait(DEADLINE).frame()
    assert thought(frame) == [("tea", "hm", 650)] * 2


def test_an_answer_that_was_thought_away_keeps_what_was_thought():
    spent = {**USED, "completion_tokens": 650}
    with Exact([answered("", "hm", "length", spent)]) as server:
        live, cached = _failed(server), _failed(server)
        assert len(server.asked) == 1
    for row in (live.iloc[0], cached.iloc[0]):
        assert (row["status"], row["error_type"], row["reasoning"], row["tokens_reasoning"]) == ("error", "truncated", "hm", 650)


def _failed(server: Exact) -> pd.DataFrame:
    with pytest.raises(holynb.InferError) as caught:
        infer(server).wait(DEADLINE)
    return caught.value.run.frame()  # type: ignore[no-any-return]


def test_parts_of_a_long_row_are_summed_and_the_last_thoughts_are_its_own():
    with Exact([answered()]) as server:
        run = infer(server, f"List.\n\n{book(3)}", chunk="1000").wait(DEADLINE)
        row, chunks, asked = run.frame().iloc[0], run.chunks(), len(server.asked)
    assert asked > 2
    assert (row["tokens_reasoning"], row["tokens_out"], row["reasoning"]) == (650 * asked, 700 * asked, "hm")
    assert set(chunks["reasoning"]) == {"hm"}


def test_it_is_not_carried_by_into():
    df = pd.DataFrame({"q": ["a"]})
    with Exact([answered()]) as server:
        run = infer(server, "{{ q }}", df=df, into="out").wait(DEADLINE)
    assert list(run.frame().columns) == ["q", "out"]
    assert thought(run.result()) == [("tea", "hm", 650)]


def test_a_stopped_row_keeps_what_it_had_thought(monkeypatch):
    monkeypatch.setattr("holynb.run.run.Policy", partial(Policy, grace=0.1))
    first = sse({**openai_chunk(), "choices": [{"index": 0, "delta": {"reasoning_content": "half a "}}]})
    with Exact([stream_head(), chunk(first), chunk(first), 20.0, END]) as server:
        run = infer(server, stream=True)
        until = time.monotonic() + DEADLINE
        while run.journal.partial_thoughts(0) != "half a half a ":
            assert time.monotonic() < until
            time.sleep(0.01)
        assert run.journal.thinking() == {0: (14, None)}
        run.cancel()
        frame = run.wait(DEADLINE).frame()
    assert thought(frame) == [(None, "half a half a ", None)]
    assert frame["status"][0] == "cancelled"
    assert run.journal.thinking() == {}


def test_thoughts_are_content_for_the_silence_limit():
    """Fourteen thoughts in 2.8 s with a limit of 2 s; then as many empty keep-alives."""
    piece = chunk(sse({**openai_chunk(), "choices": [{"index": 0, "delta": {"reasoning_content": "hm "}}]}))
    empty = chunk(sse({**openai_chunk(), "choices": [{"index": 0, "delta": {"content": "", "reasoning_content": ""}}]}))
    ended = chunk(sse(openai_chunk("tea", "stop"), "[DONE]"))
    with Exact([stream_head(), *[piece, 0.2] * 14, ended, END]) as server:
        frame = infer(server, stream=True, timeout=2).wait(DEADLINE).frame()
    assert thought(frame)[0][:2] == ("tea", "hm " * 14)
    with Exact([stream_head(), piece, *[empty, 0.2] * 14, ended, END]) as server, pytest.raises(holynb.InferError) as caught:
        infer(server, "b", stream=True, timeout=2).wait(DEADLINE)
    assert caught.value.run.frame()["error_type"][0] == "timeout"
