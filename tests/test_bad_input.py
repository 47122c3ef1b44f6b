"""Whole runs against servers and clocks that misbehave: each row ends as it should, the key goes nowhere, and attempts are what was sent."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme
from servers.asking import KEY
from servers.exact import END, EOF, RST, Asked, Exact, Step, chunk, reply, sse, stream_head
from servers.golden import OPENAI, openai_chunk

import holynb
from holynb.scheduler.limiter import Limiter
from holynb.ui.output import report, static

ROWS = 12
OK = reply(OPENAI.whole)
pytestmark = pytest.mark.usefixtures("keyed")


def run(server: Exact, rows: int = ROWS, **options: Any) -> Any:
    going = holynb.infer([f"row {i}" for i in range(rows)], "openai/gpt-4.1-mini", api_base=server.base, cache=False, **options)
    try:
        going.wait(120)
    except holynb.InferError as exc:
        assert KEY not in str(exc)
    return going.frame()


def first_time(bad: Sequence[Step], good: Sequence[Step] = (OK,)) -> Callable[[Asked, int], Sequence[Step]]:
    """Each row meets `bad` at its first attempt."""
    seen: Counter[str] = Counter()

    def script(request: Asked, number: int) -> Sequence[Step]:
        row = request.json["messages"][0]["content"]
        seen[row] += 1
        return bad if seen[row] == 1 else good

    return script


# -- answers that are none -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    "bad",
    [
        [reply("<html><title>Welcome</title>please log in</html>")],
        [reply(json.dumps(OPENAI.whole).encode()[:40])],
        [reply(b"")],
        [reply({"error": {"message": "the engine is not ready", "type": "server_error"}})],
        [reply(b"\x00\xff" * 500)],
        [b"HTTP/1.1 200 OK\r\n\x00\x01: \xff\r\nno colon at all\r\n\r\n", EOF],
        [b"\x16\x03\x01\x02\x00garbage", EOF],
        [reply(OPENAI.whole, content_length="1")],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", EOF],
    ],
    ids=["html", "half-json", "empty", "error-in-200", "binary", "nonsense-header", "tls-hello", "wrong-length", "wrong-chunk"],
)
def test_an_answer_that_is_none_is_asked_for_again(bad: Sequence[Step]):
    with Exact(first_time(bad)) as server:
        frame = run(server)
        assert len(server.asked) == int(frame["attempts"].sum()) == 2 * ROWS
    assert frame["status"].tolist() == ["ok"] * ROWS


@pytest.mark.parametrize("stream", [False, True])
def test_ten_megabytes_in_one_piece_are_an_answer_or_one_clear_line(stream: bool):
    long = "x" * (10 * 2**20)
    whole = OPENAI.whole | {"choices": [{"message": {"content": long}, "finish_reason": "stop"}]}
    script = [stream_head(), chunk(sse(openai_chunk(long), openai_chunk(finish="stop"), "[DONE]")), END] if stream else [reply(whole)]
    with Exact(script) as server:
        frame = run(server, 1, stream=stream, retries=1)
        if stream:  # an event without an end must not fill the memory, so events have a longest length
            assert frame["error_type"].tolist() == ["server"]
            assert len(frame["error"][0]) < 400
        else:
            assert frame["text"][0] == long
        assert len(server.asked) == int(frame["attempts"].sum())


def test_headers_of_nonsense_change_no_answer_and_stop_no_row():
    headers = {
        "x_ratelimit_limit_requests": "many",
        "x_ratelimit_remaining_requests": "-7",
        "x_ratelimit_reset_requests": "\xff\x00soon",
        "retry_after": "1e999",
        "x_ratelimit_remaining_tokens": "9" * 400,
        "x_ratelimit_limit_tokens": "0",
        "x_ratelimit_reset_tokens": "NaN",
        "date": "yesterday",
    }
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + b"".join(
        f"{k.replace('_', '-')}: {v}\r\n".encode("latin-1") for k, v in headers.items() if "\x00" not in v
    )
    body = json.dumps(OPENAI.whole).encode()
    with Exact([head + b"content-length: %d\r\n\r\n" % len(body) + body]) as server:
        frame = run(server)
        assert len(server.asked) == ROWS
    assert frame["status"].tolist() == ["ok"] * ROWS


# -- where the key must not go -------------------------------------------------------------------------------------------


def test_a_redirect_stops_the_run_and_the_key_stays():
    with Exact([OK]) as elsewhere, Exact([reply(b"", 308, location=f"http://localhost:{elsewhere.port}/v1/chat/completions")]) as server:
        frame = run(server, 50)
        assert elsewhere.connections == 0
        assert len(server.asked) == 1, "one request, not fifty"
    assert set(frame["error_type"]) == {"connection"}
    assert "a key never follows a redirect" in frame["error"][0]


def test_an_expired_certificate_stops_the_run_before_the_key_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    authority.issue_cert("127.0.0.1", not_before=then, not_after=then + dt.timedelta(days=9)).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Exact([OK], tls=context) as server:
        frame = run(server, 50)
        assert not server.asked
    assert set(frame["error_type"]) == {"connection"}
    assert "expired" in frame["error"][0]
    assert int(frame["attempts"].sum()) == 1, "one attempt, not fifty"


# -- clocks --------------------------------------------------------------------------------------------------------------


class Clock:
    """The clocks of this process, which a test can move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.steady = 0.0
        wall, steady = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: wall() + self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: steady() + self.steady)
        # A limiter's clock is its loop's.
        monkeypatch.setitem(Limiter.__init__.__kwdefaults__, "clock", lambda: steady() + self.steady)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("jump", [-7200.0, 7200.0, -40 * 365 * 86400.0])
def test_a_wall_clock_that_jumps_moves_no_limit_and_no_deadline(clock: Clock, jump: float):
    def script(request: Asked, number: int) -> Sequence[Step]:
        if number == 5:
            clock.wall += jump
        if number == 7:
            return [reply({"error": {"message": "slow down"}}, 429, retry_after="0.2")]
        return [0.05, OK]

    with Exact(script) as server:
        went = holynb.infer(
            [f"row {i}" for i in range(30)],
            "openai/gpt-4.1-mini",
            api_base=server.base,
            cache=False,
            concurrency=4,
            deadline=60,
            timeout=20,
            rpm=6000,
            budget=5.0,
        ).wait(60)
        frame = went.frame()
        assert len(server.asked) == int(frame["attempts"].sum()) == 31
    assert frame["status"].tolist() == ["ok"] * 30
    assert 0 <= frame["latency_s"].min() <= frame["latency_s"].max() < 60
    assert went.plot().keys() >= {"latency", "tokens"}
    assert "30 rows" in static.bundle(report.of(went), "all")["text/plain"]
    times = [e.at for e in went.journal.events_since(0)[0]]
    assert min(b - a for a, b in pairwise(times)) > -5, "time goes on where the clock is set back"


@pytest.mark.parametrize(("counts", "end"), [(True, [600.0]), (False, [RST]), (True, [RST])], ids=["silent", "reset", "both"])
def test_a_laptop_that_sleeps_loses_no_row(clock: Clock, counts: bool, end: Sequence[Step]):
    """Ten minutes pass between two moments; what was under way then is never answered. counts: whether sleep moves the steady clock too."""
    asleep: list[int] = []

    def script(request: Asked, number: int) -> Sequence[Step]:
        if number == 8:
            clock.wall += 600
            clock.steady += 600 if counts else 0
        if 4 <= number < 8:
            asleep.append(number)
            return end
        return [0.05, OK]

    with Exact(script) as server:
        frame = run(server, 40, concurrency=8, timeout=30)
        # Where the steady clock jumps, the silence of everything under way has lasted ten minutes, of some before the server read it.
        assert 44 <= len(server.asked) <= int(frame["attempts"].sum()) <= 44 + 8
    assert len(asleep) == 4
    assert frame["status"].tolist() == ["ok"] * 40
