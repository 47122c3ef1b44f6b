"""A pool whose model runs in vLLM: a stand-in with vLLM's command line, log, pages and failures, started as a user's own would be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pool_fake import Pool as RawPool

import holynb
from holynb import pools
from holynb.engines.pool import Pool
from holynb.errors import BadOption, BadRoute, Fault, InferError
from holynb.pool.server.config import PoolConfig
from holynb.pool.vllm import __main__ as vllm
from holynb.pool.vllm.__main__ import vllm_command
from holynb.pool.vllm.output import progress, reason, stats
from holynb.pool.vllm.reaper import members
from holynb.scheduler import Policy
from holynb.types import Delta, Done, Endpoint, Message, Request, Route, Sampling, Timeouts
from kernels_support.jupyter import rendezvous, socketdir
from kernels_support.jupyter.process import Process

TESTS = Path(__file__).parents[2]


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The Python of an environment that has the stand-in."""
    path = tmp_path / "vllm-env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{TESTS / "vllm_env"}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def ends(home: Path) -> Iterator[None]:
    yield
    pools.stop("all")
    assert list((home / "run").glob("*")) == []


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "weights"
    folder.mkdir()
    return str(folder)


def start(model: str, python: str, **options: Any) -> pools.PoolInfo:
    return pools.start(model, name="mine", engine="vllm", python=python, **options)


def deadline(what: Any, seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
    return result


def alive(pids: Any) -> list[int]:
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]


def raw() -> RawPool:
    """The running pool, asked over its socket."""
    record = pools.find("mine")
    assert record is not None
    return RawPool(Path(), record, None)  # type: ignore[arg-type]


def ask(prompt: str) -> tuple[str, Any]:
    """A row through the engine, as a cell sends it."""

    async def run() -> tuple[str, Any]:
        engine = Pool(Endpoint(Route("pool", "mine"), "pool"), lambda: None)
        try:
            text = ""
            request = Request(0, (Message("user", prompt),), Route("pool", "mine"), Sampling(max_tokens=64), stream=True)
            async for event in engine.send(request, Timeouts(connect=5, silence=10)):
                if isinstance(event, Delta):
                    text += event.text
                elif isinstance(event, Done):
                    return text, event.completion
            raise AssertionError("no end")
        finally:
            await engine.aclose()

    return asyncio.run(run())


def test_it_starts_answers_and_leaves_nothing(model: str, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_FAKE", "slow")
    notices: list[str] = []
    info = start(model, str(Path(python).parents[1]), port=0, notice=notices.append)
    assert (info.state, info.max_len, info.devices) == ("ready", 512, ("cpu",))
    assert "mine: vLLM: loading the weights 40 %" in notices
    assert any("KV cache size" in line for line in pools.logs("mine"))
    text, done = ask("one two three")
    assert text == "one two three "
    assert (done.finish_reason, done.usage.tokens_in, done.usage.tokens_out) == ("stop", 3, 3)
    ranks = deadline(lambda: len(ranks := pools.status("mine").ranks) >= 4 and ranks)
    info = deadline(lambda: (info := pools.status("mine")).tokens_out == 3 and info)
    assert (info.kv_total, info.kv_used, info.tokens_in) == (1024, 256, 3)
    (memory,) = info.memory
    assert memory.device == "cpu"
    assert memory.ours is not None
    assert 10 * 2**20 < memory.ours < memory.used
    pools.stop("mine")
    assert alive([info.pid, *ranks]) == []


def test_health_and_metrics_are_in_our_names(model: str, python: str) -> None:
    start(model, python)
    pool = raw()
    status, health = pool.ask("/health")
    assert (status, health["engine"], health["state"]) == (200, "vllm", "ready")
    assert (health["replicas"][0]["running"], health["replicas"][0]["waiting"]) == (0, 0)
    _, page = pool.ask("/metrics")
    assert 'holynb_kv_used_tokens{replica="0"} 256' in page
    assert 'holynb_requests_waiting{replica="0"} 0' in page
    assert 'part="ours"' in page
    status, whole = pool.ask("/v1/chat/completions", {"model": "mine", "messages": [{"role": "user", "content": "a b"}]})
    assert (status, whole["choices"][0]["message"]["content"]) == (200, "a b")
    status, refused = pool.ask("/v1/chat/completions", {"model": "mine", "messages": [{"role": "user", "content": "!long"}]})
    assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
    assert pool.ask("/v1/chat/completions", {"model": "other", "messages": []})[0] == 404
    assert pool.ask("/v1/chat/completions", b"[1]")[0] == 400
    assert pool.ask("/v1/chat/completions", b"{")[0] == 400


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("word", "says"), [("!crash", "SIGKILL"), ("!engine", "EngineDeadError: EngineCore encountered an issue")])
def test_a_crash_ends_the_row_with_the_reason(model: str, python: str, word: str, says: str, stream: bool) -> None:
    info = start(model, python)
    ranks = deadline(lambda: len(ranks := pools.status("mine").ranks) >= 4 and ranks)
    if stream:
        with pytest.raises(Fault) as caught:
            ask(f"one two {word} three")
        message = str(caught.value)
    else:
        body = {"model": "mine", "messages": [{"role": "user", "content": f"one two {word} three"}]}
        status, answer = raw().ask("/v1/chat/completions", body)
        assert (status, answer["error"]["code"]) == (500, "replica_died")
        message = answer["error"]["message"]
    assert "lost the server that wrote this row: vLLM" in message
    assert says in message
    deadline(lambda: alive([info.pid, *ranks]) == [])
    assert any("the pool mine ends: vLLM" in line for line in pools.logs("mine"))
    assert says in pools.end_reason("mine")


def test_every_row_of_a_lost_vllm_says_why(model: str, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row hears it at once; those that come later, and its own second try, find no pool any more and say the same."""
    monkeypatch.setattr("holynb.run.run.Policy", partial(Policy, patience=3.0))  # it does not come back, however long they wait
    start(model, python)
    run = holynb.infer(["one !engine two", *(f"row {i} " + "word " * 20 for i in range(12))], "pool/mine", concurrency=2, cache=False)
    with pytest.raises(InferError, match="EngineDeadError"):
        run.wait()
    lost = run.frame()["error"]
    assert len(lost) >= 10
    assert lost.str.contains("EngineDeadError: EngineCore encountered an issue").all(), list(lost)


def test_a_refusal_is_a_fault_of_its_kind(model: str, python: str) -> None:
    start(model, python)
    with pytest.raises(Fault) as caught:
        ask("!long")
    assert caught.value.kind == "context_length"
    with pytest.raises(BadOption, match="already running, with the engine vllm"):
        pools.start(model, name="mine")


def test_a_client_that_goes_away_stops_its_row(model: str, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_FAKE_STEP", "0.05")
    start(model, python)
    connection = raw().connect()
    body = {"model": "mine", "stream": True, "messages": [{"role": "user", "content": "word " * 400}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
    connection.getresponse().read(200)
    deadline(lambda: pools.status("mine").requests == 1)
    connection.close()
    deadline(lambda: pools.status("mine").requests == 0)
    before = deadline(lambda: pools.status("mine").tokens_out)
    assert before < 300


@pytest.mark.parametrize(("fails", "says"), [("oom", "CUDA out of memory"), ("port", "Address already in use")])
def test_a_start_that_fails_says_why_in_one_line(model: str, python: str, fails: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_FAKE", fails)
    with pytest.raises(BadRoute, match=says) as caught:
        start(model, python)
    assert "\n" not in str(caught.value)
    assert "ended with code 1" in str(caught.value)


@pytest.mark.parametrize("who", ["server", "reaper", "both"])
def test_a_killed_part_leaves_no_process(model: str, python: str, who: str) -> None:
    info = start(model, python)
    ranks = deadline(lambda: len(ranks := pools.status("mine").ranks) >= 4 and ranks)
    reaper = next(p for p in ranks if os.getsid(p) == p)
    for pid in {"server": [info.pid], "reaper": [reaper], "both": [info.pid, reaper]}[who]:
        os.kill(pid, signal.SIGKILL)
    deadline(lambda: pools.find("mine") is None)  # `find` removes stale records
    deadline(lambda: alive([info.pid, *ranks]) == [], 8)


def test_a_vllm_that_is_stopped_is_ended_and_says_so(model: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its sockets open: nothing but its silence tells."""
    monkeypatch.setattr(vllm, "_PAGE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(vllm, "_HUNG_S", 1.0)
    config = PoolConfig("mine", model, tmp_path)
    service, folder = vllm.VllmService(config), socketdir.make()
    backend = vllm.VllmProcess(config, service, rendezvous.Record("mine", Process.mine(), str(folder / "s")), python)

    async def work() -> list[Process]:
        running = asyncio.create_task(backend.start())
        await asyncio.wait_for(service.wait_serving(), 20)
        assert service.child is not None
        every = members(service.child.pid)
        for process in every:
            if process.pid != service.child.pid:
                process.signal(signal.SIGSTOP)
        await asyncio.wait_for(running, 20)
        await backend.stop()
        return every

    every = asyncio.run(work())
    socketdir.remove(folder)
    assert (service.state, service.why) == ("failed", "vLLM did not respond for 1 s (stopped or hung), and is ended")
    assert len(every) > 1
    assert not any(p.alive for p in every)


def test_what_cannot_be_is_said_before_anything_starts(model: str, python: str, tmp_path: Path, home: Path) -> None:
    for options, words in (
        ({"python": "/nowhere/python"}, "there is no such Python"),
        ({"python": sys.executable}, "there is no vLLM in that environment"),
        ({"python": python, "restart": 1}, "--restart belongs to the native engine"),
        ({"python": python, "pp": 2, "micro_batches": 2}, "--micro-batches belongs"),
        ({"python": python, "on": "ray"}, "leave it out with --on"),
        ({"python": None}, "--engine vllm: there is no vLLM"),
    ):
        with pytest.raises(BadOption, match=words) as caught:
            pools.start(model, engine="vllm", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadOption, match="--python belongs to --engine vllm"):
        pools.start(model, python=python)
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    with pytest.raises(BadOption, match="cannot be run"):
        pools.start(model, engine="vllm", python=str(broken))
    assert not (home / "run").exists() or not list((home / "run").iterdir())


def test_its_command_line() -> None:
    config = PoolConfig("n", "m", Path("/h"), devices=("cuda:0",) * 8, tp=2, pp=2, max_len=512, dtype="bfloat16", memory=0.5)
    argv = vllm_command("/v/python", "m", config, Path("/s/v"))
    assert argv[:3] == ["/v/python", "-m", "vllm.entrypoints.openai.api_server"]
    pairs = dict(zip(argv[3::2], argv[4::2], strict=True))
    assert pairs == {
        "--model": "m",
        "--uds": "/s/v",
        "--served-model-name": "n",
        "--tensor-parallel-size": "2",
        "--pipeline-parallel-size": "2",
        "--data-parallel-size": "2",
        "--dtype": "bfloat16",
        "--max-model-len": "512",
        "--gpu-memory-utilization": "0.5",
    }
    assert "--gpu-memory-utilization" not in vllm_command("p", "m", PoolConfig("n", "m", Path("/h")), Path("/s"))


def test_its_log_as_progress_and_reason() -> None:
    head = "(EngineCore pid=9) INFO 11-23 06:43:19 [core.py:133] "
    assert progress([]) == ("starting vLLM", None)
    assert progress([head + "init engine took 45 s", "(A pid=1) INFO 11-23 06:43:24 [launcher.py:195] Route: /ping, Methods: GET"]) == (
        "vLLM: init engine took 45 s",
        None,
    )
    assert progress([head + "x", "Loading safetensors checkpoint shards:  45% Completed | 1/2"]) == ("vLLM: loading the weights", 0.45)
    assert len(progress([head + "y" * 400])[0]) < 120
    cause = "(EngineCore pid=9) ERROR 11-23 06:43:19 [core.py:1] ValueError: No available memory for the cache blocks."
    assert "No available memory" in reason([cause, "RuntimeError: Engine core initialization failed. See root cause above."])
    assert reason(["a", "b"]) == "Its last words: a | b"
    assert reason([]) == "It said nothing."


def test_its_metrics_as_ours() -> None:
    page = (
        'vllm:num_requests_running{engine="1"} 3.0\nvllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:num_requests_running{engine="0"} 1.0\n'
    )
    page += 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0\nother{engine="0"} 9\n'
    assert stats(page) == [{"running": 1, "kv_total": 1600, "kv_used": 800}, {"running": 3}]
    assert stats("") == []


def test_members_of_a_session_are_found() -> None:
    assert os.getpid() in [p.pid for p in members(os.getsid(0))]
    assert rendezvous.Record("x", members(os.getsid(0))[0]).here
