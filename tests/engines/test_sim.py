"""The simulator: deterministic, honest about tokens, and able to fail in every way that the real ones do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb import engines
from holynb.engines import sim
from holynb.errors import KINDS, BadRoute, Fault
from holynb.types import Completion, Delta, Done, Endpoint, Engine, Message, Request, Route, Sampling, Timeouts


def connect(model: str) -> Engine:
    return engines.connect(Endpoint(Route("sim", model), "sim"), lambda: None)


def request(text: str = "Say hello.", *, row: int = 0, stream: bool = False, **sampling: object) -> Request:
    return Request(row, (Message("user", text),), Route("sim", "echo"), Sampling(**sampling), stream=stream)  # type: ignore[arg-type]


async def collect(engine: Engine, incoming: Request) -> tuple[list[str], Completion]:
    deltas: list[str] = []
    done: list[Done] = []
    async for item in engine.send(incoming, Timeouts()):
        assert not done, "something came after Done"
        if isinstance(item, Delta):
            deltas.append(item.text)
        else:
            done.append(item)
    return deltas, done[0].completion


def ask(model: str, incoming: Request, engine: Engine | None = None) -> tuple[list[str], Completion]:
    return asyncio.run(collect(engine or connect(model), incoming))


def fault(model: str, incoming: Request, engine: Engine | None = None) -> Fault:
    with pytest.raises(Fault) as caught:
        ask(model, incoming, engine)
    return caught.value


def test_it_is_an_engine():
    assert isinstance(connect("echo"), Engine)


@given(st.text(min_size=1))
def test_the_echo_is_the_prompt(text: str):
    deltas, answer = ask("echo", request(text, stream=True, max_tokens=2048))
    assert answer.text == text == "".join(deltas)
    assert answer.finish_reason == "stop"


def test_half_of_a_surrogate_pair_is_mended_as_in_every_engines_answer():
    assert ask("echo", request("a\ud83d b\ud83d\ude00"))[1].text == "a\ufffd b😀"


def test_a_long_prompt_comes_back_whole_and_a_small_limit_cuts_it():
    long = "word " * 20_000
    assert ask("echo", request(long, max_tokens=2048))[1].text == long
    cut = ask("echo", request("one two three", max_tokens=2))[1]
    assert (cut.text, cut.finish_reason, cut.usage.tokens_out) == ("one two", "length", 2)


def test_tokens_are_words_and_marks():
    answer = ask("echo", request("Hello, world!"))[1]
    assert sim.tokens("Hello, world!") == ["Hello", ",", " world", "!"]
    assert (answer.usage.tokens_in, answer.usage.tokens_out, answer.usage.tokens_cached) == (4, 4, 0)


def test_nothing_is_streamed_unless_asked():
    assert ask("echo", request())[0] == []


def test_the_story_has_sixty_words_at_ten_a_second_and_follows_the_seed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sim, "WORDS_PER_S", 1000.0)
    start = time.monotonic()
    deltas, answer = ask("stream", request(stream=True, seed=1))
    assert time.monotonic() - start >= 0.06
    assert len(deltas) == 60 == len(answer.text.split())
    assert ask("stream", request(seed=1))[1].text == answer.text
    assert len({ask("stream", request(seed=seed))[1].text for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("name", "kind", "retry", "stops"),
    [
        ("429", "rate_limit", True, False),
        ("rate_limit", "rate_limit", True, False),
        ("401", "auth", False, True),
        ("quota", "quota", False, True),
        ("500", "server", True, False),
        ("cut", "truncated", True, False),
        ("malformed", "server", True, False),
        ("oom", "oom", True, False),
        ("content_filter", "content_filter", False, False),
        ("context_length", "context_length", False, False),
    ],
)
def test_one_fault_on_demand(name: str, kind: str, retry: bool, stops: bool):
    error = fault("echo", request(extra={"fault": name}))
    assert (error.kind, error.retry, error.stops) == (kind, retry, stops)
    assert "simulated" in error.message


def test_a_fault_passes_after_so_many_attempts_of_the_row():
    engine = connect("echo")
    sent = request(extra={"fault": 429, "times": 2, "retry_after": 1})
    assert [fault("echo", sent, engine).wait for _ in range(2)] == [1.0, 1.0]
    assert ask("echo", sent, engine)[1].text == "Say hello."
    assert fault("echo", request(row=1, extra={"fault": 429}), engine).limits is not None


def test_a_refused_key_is_refused_again():
    engine = connect("echo")
    assert {fault("echo", request(extra={"fault": "401"}), engine).kind for _ in range(5)} == {"auth"}


def test_slow_is_only_late_and_a_stall_has_begun_its_answer():
    start = time.monotonic()
    deltas, answer = ask("echo", request(stream=True, extra={"fault": "slow", "seconds": 0.05}))
    assert time.monotonic() - start >= 0.05
    assert "".join(deltas) == answer.text == "Say hello."

    async def stalled() -> list[str]:
        seen: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                sent = request(stream=True, extra={"fault": "stall"})
                async for item in connect("echo").send(sent, Timeouts()):
                    seen += [item.text] if isinstance(item, Delta) else []
        return seen

    assert asyncio.run(stalled()) == ["half an "]


def test_nobody_there_takes_as_long_as_connecting_may():
    async def refused() -> Fault:
        with pytest.raises(Fault) as caught:
            async for _ in connect("echo").send(request(extra={"fault": "connect"}), Timeouts(connect=0.05)):
                pass
        return caught.value

    start = time.monotonic()
    error = asyncio.run(refused())
    assert time.monotonic() - start >= 0.05
    assert (error.kind, error.retry) == ("timeout", True)
    assert "within 0.05 s (--connect-timeout)" in error.message


def test_a_fault_may_be_kept_to_one_model():
    extra = {"fault": "500", "at": "stream"}
    assert ask("echo", request(extra=extra))[1].text == "Say hello."
    assert fault("stream", request(extra=extra)).kind == "server"


def test_latency_is_waited():
    start = time.monotonic()
    ask("echo", request(extra={"latency": 0.05}))
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize(
    "extra",
    [
        {"fault": "42"},
        {"latency": "soon"},
        {"fault": "429", "retry_after": -1},
        {"fault": "429", "times": "nan"},
        {"at": "ecko", "fault": "429"},
    ],
)
def test_nonsense_is_one_clear_line_and_stops(extra: dict[str, object]):
    error = fault("echo", request(extra=extra))
    assert error.kind == "bad_request"
    assert error.stops
    assert next(iter(extra)) in error.message or "retry_after" in error.message or "times" in error.message


def test_flaky_meets_everything_in_its_share_and_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sim, "FLAKY_SECONDS", {})

    def fates() -> list[str]:
        async def one(engine: Engine, row: int) -> str:
            try:
                return (await collect(engine, request(f"row {row}", row=row)))[1].finish_reason
            except Fault as exc:
                return exc.kind

        async def all_of() -> list[str]:
            engine = connect("flaky")
            return [await one(engine, row) for row in range(600)]

        return asyncio.run(all_of())

    first = fates()
    count = Counter(first)
    assert first == fates()
    assert {"rate_limit", "server", "truncated", "oom", "content_filter"} <= count.keys() <= {*KINDS, "stop"}
    assert 0.25 < 1 - count["stop"] / 600 < 0.5


def test_an_unknown_model_is_named_before_anything_is_sent():
    with pytest.raises(BadRoute, match=r"sim/ecko.*Did you mean sim/echo"):
        connect("ecko")


def test_it_thinks_first_where_it_is_asked_to():
    async def heard() -> list[Delta | Done]:
        return [item async for item in connect("echo").send(request("tea", stream=True, extra={"thoughts": 3}), Timeouts())]

    *deltas, done = asyncio.run(heard())
    assert deltas == [Delta("", "a", 1), Delta("", " prompt", 2), Delta("", " set", 3), Delta("tea")]
    assert isinstance(done, Done)
    assert (done.completion.text, done.completion.reasoning, done.completion.thinking) == ("tea", "a prompt set", True)
    assert (done.completion.usage.tokens_out, done.completion.usage.tokens_reasoning) == (4, 3)
    text, cut = ask("echo", request("tea", max_tokens=2, extra={"thoughts": 3}))
    assert (text, cut.text, cut.finish_reason, cut.reasoning) == ([], "", "length", "a prompt")
