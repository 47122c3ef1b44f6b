"""The contract that every hosted wire keeps, over the exact bytes its servers send. A wire that is added to engines.WIRES must be here."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from servers import aws, golden
from servers.asking import KEY, ask, endpoint, hear, refuse, request, run
from servers.exact import END, EOF, RST, Exact, chunk, reply, stream_head
from servers.golden import PIECES, TEXT, Golden

from holynb import engines
from holynb.engines import hosted
from holynb.errors import Fault
from holynb.types import Endpoint, Engine, Usage


@pytest.fixture(params=golden.WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Golden:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def keys_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    aws.set_keys(monkeypatch)


def at(server: Exact, wire: Golden, **options: Any) -> Endpoint:
    return endpoint(server.base + wire.path, wire.wire, options=wire.options, **options)


def keyed(response: bytes) -> bytes:
    """The response with the key where a server echoes it, and the length put right."""
    head, _, body = response.partition(b"\r\n\r\n")
    body = body.replace(b"{key}", KEY.encode())
    return re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), head) + b"\r\n\r\n" + body


def fold(engine: hosted.Hosted, *pieces: bytes) -> Any:
    answer = engine._wire.answer()
    for piece in pieces:
        answer.feed(piece)
    return answer.end()


def engine_of(wire: Golden) -> hosted.Hosted:
    engine = engines.connect(endpoint("http://127.0.0.1:9", wire.wire, options=wire.options), lambda: None)
    assert isinstance(engine, hosted.Hosted)
    return engine


def test_every_hosted_wire_is_here():
    assert {w.wire for w in golden.WIRES} == set(engines.WIRES) - {"pool", "sim"}


# -- answers -------------------------------------------------------------------------------------------------------------


def test_it_is_an_engine(wire: Golden):
    assert isinstance(engine_of(wire), Engine)


def test_a_whole_answer(wire: Golden):
    with Exact([reply(wire.whole)]) as server:
        deltas, answer = ask(at(server, wire))
    assert deltas == []
    assert (answer.text, answer.finish_reason, answer.model, answer.usage) == (TEXT, "stop", wire.model, wire.usage)


def test_a_streamed_answer(wire: Golden):
    with Exact(wire.streamed()) as server:
        deltas, answer = ask(at(server, wire), request(stream=True))
    assert "".join(deltas) == TEXT
    assert (answer.text, answer.finish_reason, answer.model, answer.usage) == (TEXT, "stop", wire.model, wire.usage)


def test_text_comes_piece_by_piece(wire: Golden):
    """Each event on its own yields its own text; what is no text yields none."""
    answer = engine_of(wire)._wire.answer()
    seen = [answer.feed(wire.stream[i : i + 1]) for i in range(len(wire.stream))]
    assert [t for t in seen if t] == list(PIECES)


def test_the_golden_stream_cut_at_every_position(wire: Golden):
    engine = engine_of(wire)
    whole = fold(engine, wire.stream)
    for i in range(len(wire.stream) + 1):
        assert fold(engine, wire.stream[:i], wire.stream[i:]) == whole, i


def test_what_ends_early_is_truncated_or_whole_and_never_in_between(wire: Golden):
    engine, ended = engine_of(wire), False
    for i in range(len(wire.stream) + 1):
        try:
            answer = fold(engine, wire.stream[:i])
        except Fault as fault:
            assert fault.kind == "truncated", (i, fault)
            assert not ended, "once the finish reason is there, it stays"
        else:
            ended = True
            assert answer.text == TEXT, i
    assert ended


def test_bytes_that_are_no_stream_are_a_fault(wire: Golden):
    for junk in (b"\x00" * 64, b"data: {half\n\n", b"data: 17\n\n", b"event: error\ndata: {}\n\n", b"\xff" * 100):
        answer = engine_of(wire)._wire.answer()
        try:
            answer.feed(junk)
            answer.end()
        except Fault as fault:
            assert fault.kind in ("server", "truncated")
        else:
            pytest.fail(f"{junk!r} was taken for an answer")


def test_streams_leave_their_connection(wire: Golden):
    async def five(engine: Engine) -> None:
        for _ in range(5):
            await hear(engine, request(stream=True))

    with Exact(wire.streamed()) as server:
        run(five, at(server, wire))
        assert (len(server.asked), server.connections) == (5, 1)


@pytest.mark.parametrize("end", [EOF, RST, END])
def test_a_break_in_the_middle(wire: Golden, end: Any):
    with Exact([stream_head(wire.kind), chunk(wire.stream[: len(wire.stream) // 2]), 0.05, end]) as server:
        fault = refuse(at(server, wire), request(stream=True))
    assert (fault.kind, fault.retry) == ("truncated", True)


def test_a_slow_first_byte_is_waited_for(wire: Golden):
    with Exact([0.1, reply(wire.whole)]) as server:
        assert ask(at(server, wire))[1].text == TEXT


# -- refusals ------------------------------------------------------------------------------------------------------------


def test_too_many_requests(wire: Golden):
    with Exact([wire.limited]) as server:
        fault = refuse(at(server, wire))
    assert (fault.kind, fault.retry, fault.stops, fault.wait) == ("rate_limit", True, False, wire.wait)


def test_a_refused_key_stops_and_is_not_shown(wire: Golden):
    with Exact([keyed(wire.refused)]) as server:
        fault = refuse(at(server, wire))
        assert KEY.encode() in keyed(wire.refused)
    assert (fault.kind, fault.retry, fault.stops) == ("auth", False, True)
    assert "***" in (fault.raw or "")


def test_too_long(wire: Golden):
    with Exact([wire.too_long]) as server:
        fault = refuse(at(server, wire))
    assert (fault.kind, fault.retry, fault.stops) == ("context_length", False, False)


def test_filtered(wire: Golden):
    with Exact([wire.filtered]) as server:
        fault = refuse(at(server, wire))
    assert (fault.kind, fault.retry, fault.stops) == ("content_filter", False, False)


def test_failing(wire: Golden):
    with Exact([wire.failing]) as server:
        fault = refuse(at(server, wire))
    assert (fault.kind, fault.retry, fault.stops) == ("server", True, False)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (reply("<html><title>502 Bad Gateway</title></html>", 502), "server"),
        (reply("<html>hello</html>"), "server"),
        (reply(b'{"half'), "server"),
        (reply(b""), "server"),
        (reply(b"{}"), "server"),
        (reply(b"[]"), "server"),
        (reply(b"null"), "server"),
        (reply(b"404 page not found", 404), "not_found"),
        (reply({"error": {"message": "odd"}}), "server"),
        (reply(b"", 302, location="http://127.0.0.1:9/"), "connection"),
        (reply(b"<html>too large</html>", 413), "context_length"),
        (reply(b"\xff\xfe\x00", 500), "server"),
        (reply(b"", 429), "rate_limit"),
    ],
)
def test_a_server_that_is_none(wire: Golden, response: bytes, kind: str):
    with Exact([response]) as server:
        fault = refuse(at(server, wire))
    assert fault.kind == kind
    assert len(fault.message) < 500


def test_an_error_in_the_middle_of_a_200(wire: Golden):
    """As an event of the wire, after half of the answer."""
    if wire.wire == "bedrock":
        broken = golden.bedrock_exception("serviceUnavailableException", {"message": "The service isn't currently available."})
        with Exact([stream_head(wire.kind), chunk(b"".join((*golden.BEDROCK_EVENTS[:6], broken))), END]) as server:
            fault = refuse(at(server, wire), request(stream=True))
        assert (fault.kind, fault.retry, fault.status) == ("server", True, 503)
        return
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "code": 529}}
    event = f"event: error\ndata: {json.dumps(error)}\n\n".encode()
    text = golden.OPENAI.stream if wire.wire == "sagemaker" else wire.stream
    stream = b"\n\n".join([*text.split(b"\n\n")[:3], event])
    stream = golden.frames(stream) if wire.wire == "sagemaker" else stream
    with Exact([stream_head(wire.kind), chunk(stream), END]) as server:
        fault = refuse(at(server, wire), request(stream=True))
    assert (fault.kind, fault.retry, fault.status) == ("server", True, 529)


def test_nothing_of_the_key_is_in_the_engine(wire: Golden):
    async def looked(engine: Any) -> str:
        await hear(engine, request())
        return repr(engine) + repr(engine.endpoint) + repr(engine._secret)

    with Exact([reply(wire.whole)]) as server:
        text = run(looked, at(server, wire))
    assert KEY not in text


def test_what_is_counted_is_never_added_twice(wire: Golden):
    """The same tokens on every wire: 20 in, of them 16 from a cache (Anthropic: 10, and 6 written), 7 out with 3 of thinking."""
    assert (wire.usage.tokens_in, wire.usage.tokens_out) == (20, 7)
    with Exact([reply(wire.whole)]) as server:
        assert ask(at(server, wire))[1].usage != Usage()
