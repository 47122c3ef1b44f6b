"""The life of a pool: starting, serving, losing what it stands on, ending; and what is left afterwards, which is nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from pool_fake import Pool, Pools

CHAT = "/v1/chat/completions"
SLOW = {"HOLYNB_FAKE_STEP": "0.05"}
LONG = {"messages": [{"role": "user", "content": "x" * 400}]}


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def nothing_left(pool: Pool) -> None:
    """No process, no socket, no file but logs."""
    pool.wait(lambda: pool.process.poll() is not None and all(gone(r.pid) for r in pool.record.ranks))
    assert not Path(str(pool.record.socket)).parent.exists()
    assert list((pool.home / "run").iterdir()) == []


def in_background(pool: Pool, body: dict[str, Any] = LONG) -> tuple[threading.Thread, list[Any]]:
    """Ask in a thread. The answer, or the error of the connection, is put in the list."""
    got: list[Any] = []

    def work() -> None:
        try:
            got.append(pool.ask(CHAT, body))
        except (OSError, http.client.HTTPException) as exc:
            got.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, got


def running(pool: Pool) -> int:
    return sum(r.get("running", 0) for r in pool.ask("/health")[1]["replicas"])


def test_told_to_end_it_leaves_nothing(pools: Pools) -> None:
    pool = pools.start("--port", "0")
    assert stat.S_IMODE(Path(str(pool.record.socket)).parent.stat().st_mode) == 0o700
    assert len(pool.record.ranks) == 1
    for pid in (pool.process.pid, pool.record.ranks[0].pid):
        assert any("holynb-pool" in part for part in psutil.Process(pid).cmdline())
        assert os.getsid(pid) == pid
    pool.process.terminate()
    nothing_left(pool)
    assert pool.process.returncode == 0
    assert "told to end (SIGTERM)" in pool.log()


def test_told_to_end_in_the_middle_of_a_row_it_says_so(pools: Pools) -> None:
    pool = pools.start(**SLOW)
    thread, got = in_background(pool)
    pool.wait(lambda: running(pool))
    pool.process.terminate()
    thread.join(15)
    status, answer = got[0]
    assert status == 500
    assert "told to end" in answer["error"]["message"]
    nothing_left(pool)


def test_a_killed_server_takes_its_ranks_along(pools: Pools) -> None:
    pool = pools.start()
    pool.process.kill()
    pool.wait(lambda: all(gone(r.pid) for r in pool.record.ranks), 5)


def test_a_killed_rank_is_an_error_that_says_why(pools: Pools) -> None:
    pool = pools.start(**SLOW)
    thread, got = in_background(pool)
    pool.wait(lambda: running(pool))
    os.kill(pool.record.ranks[0].pid, signal.SIGKILL)
    thread.join(15)
    status, answer = got[0]
    assert (status, answer["error"]["code"]) == (500, "replica_died")
    assert "SIGKILL" in answer["error"]["message"]
    assert "loaded bytes on cpu" in answer["error"]["message"], "the last lines of its log"
    nothing_left(pool)
    assert pool.process.returncode == 1


def test_a_rank_that_fails_says_with_what(pools: Pools) -> None:
    pool = pools.start()
    status, answer = pool.ask(CHAT, {"messages": [{"role": "user", "content": "!boom"}]})
    assert status == 500
    assert "illegal memory access" in answer["error"]["message"]
    nothing_left(pool)


def test_a_dead_replicas_rows_go_to_the_other(pools: Pools) -> None:
    pool = pools.start("--devices", "cpu,cpu", HOLYNB_FAKE_STEP="0.02")
    asks = [in_background(pool, {"messages": [{"role": "user", "content": f"row {i} " + "x" * 50}]}) for i in range(6)]
    pool.wait(lambda: running(pool) == 6)
    os.kill(pool.record.ranks[0].pid, signal.SIGKILL)
    for i, (thread, got) in enumerate(asks):
        thread.join(30)
        status, answer = got[0]
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"] == f"row {i} " + "x" * 50
    health = pool.ask("/health")[1]
    assert [r["replica"] for r in health["replicas"]] == [1]
    assert "SIGKILL" in health["deaths"][0]
    page = pool.ask("/metrics")[1]
    assert 'running{replica="1"}' in page, "it is called as before"
    assert 'replica="0"' not in page


def test_the_server_loads_no_torch(pools: Pools) -> None:
    pool = pools.start()
    assert pool.ask(CHAT, {"messages": [{"role": "user", "content": "hi"}]})[0] == 200
    loaded = Path(f"/proc/{pool.process.pid}/maps").read_text()
    assert "tokenizers" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_has_its_rows_cancelled(pools: Pools, stream: bool) -> None:
    pool = pools.start(**SLOW)
    connection = pool.connect()
    connection.request("POST", CHAT, json.dumps({**LONG, "stream": stream}).encode())
    pool.wait(lambda: running(pool))
    connection.close()
    pool.wait(lambda: not running(pool) and pool.ask("/health")[1]["requests"] == 0, 3)
    assert 'how="cancelled"} 1' in pool.ask("/metrics")[1]


def test_what_waits_in_the_queue_gets_signs_of_life_and_then_its_first_chunk(pools: Pools) -> None:
    pool = pools.start(HOLYNB_FAKE_STEP="0.02")
    busy = [in_background(pool, {"messages": [{"role": "user", "content": "x" * 200}]}) for _ in range(4)]
    pool.wait(lambda: running(pool) == 4)
    events = pool.events(CHAT, {"messages": [{"role": "user", "content": "hi"}]})
    first = next(i for i, e in enumerate(events) if isinstance(e, dict))
    assert first >= 1
    assert set(events[:first]) == {": alive"}
    assert events[first]["choices"][0]["delta"]["role"] == "assistant"
    for thread, got in busy:
        thread.join(20)
        assert got[0][0] == 200


def test_a_row_under_which_memory_ran_out_is_marked(echo: Pool) -> None:
    body = {"messages": [{"role": "user", "content": "a !tight row"}]}
    status, answer = echo.ask(CHAT, body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "a !tight row")
    assert answer["usage"]["notes"] == ["oom"]
    last = echo.events(CHAT, {**body, "stream_options": {"include_usage": True}})[-2]
    assert last["usage"]["notes"] == ["oom"]
    assert "notes" not in echo.ask(CHAT, {"messages": [{"role": "user", "content": "a row"}]})[1]["usage"]


def test_requests_to_a_starting_pool_wait(pools: Pools) -> None:
    pool = pools.start(ready=False, HOLYNB_FAKE_LOAD="1")
    assert pool.ask("/health")[0] == 503
    status, answer = pool.ask(CHAT, {"messages": [{"role": "user", "content": "hi"}]})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "hi")


def test_what_waits_for_a_pool_that_fails_hears_why(pools: Pools) -> None:
    pool = pools.start(ready=False, HOLYNB_FAKE_LOAD="0", HOLYNB_FAKE_FAIL="no kernel image is available")
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, answer = pool.ask(CHAT, LONG)
        assert status == 503
        assert "no kernel image" in answer["error"]["message"]
    nothing_left(pool)
    assert pool.process.returncode == 1
    assert "error: the pool echo ends: a replica did not start: process " in pool.log()
    assert "no kernel image" in pool.log()


def test_a_replica_that_fails_is_not_heard_of_only_when_the_others_have_loaded(pools: Pools) -> None:
    pool = pools.start("--devices", "cpu,cpu", ready=False, HOLYNB_FAKE_LOAD="120")
    pool.record = pool.wait(lambda: (now := pool.now()) and len(now.ranks) == 2 and now)
    os.kill(pool.record.ranks[1].pid, signal.SIGKILL)
    nothing_left(pool)
    assert pool.process.returncode == 1
    assert f"a replica did not start: process {pool.record.ranks[1].pid} was killed by SIGKILL" in pool.log()


def test_it_ends_by_itself_when_nobody_uses_it(pools: Pools) -> None:
    pool = pools.start("--idle", "2")
    nothing_left(pool)
    assert pool.process.returncode == 0
    assert "it was idle for 2 s" in pool.log()


def test_it_ends_when_nobody_could_find_it_any_more(pools: Pools) -> None:
    pool = pools.start()
    next((pool.home / "run").glob("*.json")).unlink()
    nothing_left(pool)


def test_an_interrupt_of_the_starters_group_does_not_reach_it(pools: Pools) -> None:
    pool = pools.start()
    assert os.getpgid(pool.process.pid) != os.getpgid(0)
    assert os.getpgid(pool.record.ranks[0].pid) not in {os.getpgid(0), os.getpgid(pool.process.pid)}


def test_a_second_pool_of_the_same_name_is_refused(pools: Pools) -> None:
    pool = pools.start()
    argv = [sys.executable, "-m", "holynb.pool.server", "--name", "echo", "--model", "x", "--home", str(pool.home)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=30, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    )
    assert done.returncode == 1
    assert "already running" in done.stdout
    assert pool.ask("/health")[0] == 200


@pytest.mark.parametrize(("model", "words"), [("/no/such/folder", "is no folder"), ("{home}", "lacks config.json")])
def test_a_model_that_is_none(pools: Pools, tmp_path: Path, model: str, words: str) -> None:
    home = tmp_path / "h"
    home.mkdir()
    argv = [sys.executable, "-m", "holynb.pool.server", "--name", "x", "--model", model.format(home=home), "--home", str(home)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=30, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    )
    assert done.returncode == 1
    assert done.stdout.startswith("error: ")
    assert words in done.stdout
    assert done.stderr == ""
    assert list((home / "run").iterdir()) == []


def test_a_taken_port_is_said(pools: Pools) -> None:
    pool = pools.start("--port", "0")
    argv = [
        sys.executable,
        "-m",
        "holynb.pool.server",
        "--name",
        "b",
        "--model",
        "x",
        "--home",
        str(pool.home),
        "--port",
        str(pool.record.port),
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=30, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    )
    assert done.returncode == 1
    assert f"port {pool.record.port} cannot be used" in done.stdout


# -- the port, under the official SDK --------------------------------------------------------------------------------
@pytest.fixture
def client(echo: Pool) -> Any:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{echo.record.port}/v1", api_key=str(echo.record.token), max_retries=0) as client:
        yield client


def test_the_sdk_chats_streams_and_completes(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "안녕 😀"}]
    answer = client.chat.completions.create(model="echo", messages=messages, temperature=0, seed=1)
    assert answer.choices[0].message.content == "안녕 😀"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 2 * len("안녕 😀".encode())
    with client.chat.completions.create(model="echo", messages=messages, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "안녕 😀"
    assert chunks[-1].usage is not None
    assert client.completions.create(model="echo", prompt="plain").choices[0].text == "plain"
    assert next(m.id for m in client.models.list()) == "echo"


def test_the_sdk_sees_errors_as_its_own(client: openai.OpenAI, echo: Pool) -> None:
    messages: Any = [{"role": "user", "content": "x" * 600}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=messages)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=messages)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with (
        pytest.raises(openai.APIError, match="does not fit in the device's memory"),
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "!oom"}], stream=True) as stream,
    ):
        list(stream)


def test_the_port_without_its_token_tells_nothing(echo: Pool) -> None:
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": f"bearer {echo.record.token}x"}):
        response = httpx.get(f"http://127.0.0.1:{echo.record.port}/v1/models", headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert "echo" not in response.text


def test_health_without_the_token_says_whether_it_answers_and_no_more(echo: Pool) -> None:
    response = httpx.get(f"http://127.0.0.1:{echo.record.port}/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    key = {"authorization": f"Bearer {echo.record.token}"}
    assert httpx.get(f"http://127.0.0.1:{echo.record.port}/health", headers=key).json()["name"] == "echo"
    assert httpx.post(f"http://127.0.0.1:{echo.record.port}/health").status_code == 401


def test_the_token_may_come_as_an_api_key(echo: Pool) -> None:
    url = f"http://127.0.0.1:{echo.record.port}/v1/models"
    assert httpx.get(url, headers={"x-api-key": str(echo.record.token)}).status_code == 200
    assert httpx.get(url, headers={"x-api-key": "another"}).status_code == 401


def test_a_page_in_a_browser_is_told_nothing_by_whatever_name_it_comes(echo: Pool) -> None:
    """A page may let its own name point to this machine, and asks before it posts; it has no token."""
    url = f"http://127.0.0.1:{echo.record.port}{CHAT}"
    browser = {"host": "rebound.example", "origin": "http://rebound.example"}
    asks = {**browser, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    body = {"messages": [{"role": "user", "content": "secret"}]}
    for response in (httpx.options(url, headers=asks), httpx.post(url, headers=browser, json=body)):
        assert response.status_code == 401
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "secret" not in response.text
    key = {"authorization": f"bearer  {echo.record.token}"}
    response = httpx.post(url, headers={**key, "host": "hub.example"}, json=body)
    assert response.status_code == 200, "a proxy of the user's own, with the key"
    assert not [name for name in response.headers if name.startswith("access-control")]
