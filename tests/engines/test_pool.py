"""The pool as an engine: found, waited for, started, streamed, and every end of it a Fault that says what to do. The runner is the fake one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pool_fake import byte_model

import holynb
from holynb import pools
from holynb.engines import poolwire
from holynb.engines.pool import Pool
from holynb.errors import BadRoute, Fault
from holynb.events import Noted
from holynb.types import Delta, Done, Endpoint, Message, Request, Route, Sampling, Timeouts
from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.process import Process
from kernels_support.jupyter.rendezvous import Record

HERE = Path(__file__).parent.parent
ROUTE = Route("pool", "bytes")
PATIENT = Timeouts()
pytestmark = pytest.mark.usefixtures("fake_pools")


def request(text: str = "안녕 😀", *, stream: bool = False, row: int = 0, **sampling: Any) -> Request:
    return Request(row, (Message("user", text),), ROUTE, Sampling(max_tokens=500, **sampling), stream=stream)


async def collect(engine: Pool, incoming: Request, timeouts: Timeouts = PATIENT) -> list[Delta | Done]:
    return [item async for item in engine.send(incoming, timeouts)]


def engine_for(word: str = "bytes") -> Pool:
    return Pool(Endpoint(Route("pool", word), "pool"), lambda: None)


def with_engine(work: Any, word: str = "bytes") -> Any:
    """Run `work(engine)` on a loop of its own."""

    async def main() -> Any:
        engine = engine_for(word)
        try:
            return await work(engine)
        finally:
            await engine.aclose()

    return asyncio.run(main())


def test_a_whole_answer_with_usage(model: str) -> None:
    pools.start(model)
    items = with_engine(lambda e: collect(e, request()))
    done = items[-1]
    assert isinstance(done, Done)
    size = len("안녕 😀".encode())
    assert (done.completion.text, done.completion.finish_reason) == ("안녕 😀", "stop")
    assert (done.completion.usage.tokens_in, done.completion.usage.tokens_out) == (size, size)
    assert {i.text for i in items[:-1] if isinstance(i, Delta)} == {""}, "not streamed: signs of life only"


def test_a_row_under_which_memory_ran_out_is_marked(model: str) -> None:
    pools.start(model)

    async def work(engine: Pool) -> list[Any]:
        return [(await collect(engine, request(text)))[-1] for text in ("a !tight row", "a row")]

    marked, plain = with_engine(work)
    assert (marked.completion.text, marked.completion.finish_reason) == ("a !tight row", "stop")
    assert marked.completion.note.startswith("oom: the pool's memory ran out under this row, which was kept")
    assert plain.completion.note is None


def test_a_streamed_answer_comes_in_pieces(model: str) -> None:
    pools.start(model)
    items = with_engine(lambda e: collect(e, request("x" * 200 + "끝", stream=True)))
    texts = [i.text for i in items if isinstance(i, Delta)]
    assert texts[0] == ""
    assert "".join(texts) == "x" * 200 + "끝"
    assert len([t for t in texts if t]) > 1


def test_sampling_reaches_the_pool(model: str) -> None:
    pools.start(model)
    items = with_engine(lambda e: collect(e, request("one STOP two", stop=("STOP",), seed=3, temperature=0.5, top_p=0.9)))
    assert isinstance(items[-1], Done)
    assert items[-1].completion.text == "one "


def test_no_pool_names_the_command() -> None:
    with pytest.raises(BadRoute, match="%infer pool start org/name"):
        with_engine(lambda e: e.ready(lambda text: None), "org/name")
    with pytest.raises(Fault, match="%infer pool start MODEL --name bytes") as caught:
        with_engine(lambda e: collect(e, request()))
    assert caught.value.stops


def test_a_pool_that_may_be_meant_is_named(model: str) -> None:
    pools.start(model)
    for word, meant in (("byte", "bytes"), ("smollm2-135", "smollm2-135m")):
        with pytest.raises(BadRoute) as caught:
            with_engine(lambda e: e.ready(lambda text: None), word)
        words = f"pool/{word} is not running. Did you mean pool/{meant}? If not, start it: %infer pool start MODEL --name {word}"
        assert str(caught.value) == words
    pools.stop("bytes")
    pools.start(model, name="cut3", max_len=64)
    pools.stop("cut3")
    with pytest.raises(BadRoute, match=f"tart it: %infer pool start {model} --name cut3 --max-len 64$"):
        with_engine(lambda e: e.ready(lambda text: None), "cut3")


def test_a_starting_pool_is_waited_for_with_its_progress(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "0.7")
    pools.start(model, wait=False)
    notices: list[str] = []
    with_engine(lambda e: e.ready(notices.append))
    assert pools.status("bytes").state == "ready"
    assert "bytes: loading the weights" in notices


def test_a_pool_that_fails_while_waited_for_says_why(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_LOAD", "0.5")
    pools.start(model, wait=False)
    rank = pools.status("bytes").ranks

    async def work(engine: Pool) -> None:
        waiting = asyncio.create_task(engine.ready(lambda text: None))
        while not (ranks := rank or pools.status("bytes").ranks):  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.02)
        os.kill(ranks[0], signal.SIGKILL)
        await waiting

    with pytest.raises(BadRoute, match="pool logs bytes"):
        with_engine(work)


def test_the_embedded_pool_starts_itself_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    (home / "models").unlink()
    (byte_model(home / "models" / "smollm2-135m") / "holynb.json").touch()

    async def work(_: Pool) -> list[Any]:
        engines = [engine_for("smollm2-135m") for _ in range(3)]
        told: list[str] = []
        await asyncio.gather(*(e.ready(lambda text, level="info": told.append(text)) for e in engines))
        told.clear()
        sent = Request(0, (Message("user", "hi"),), Route("pool", "smollm2-135m"))
        items = await asyncio.gather(*(collect(e, sent) for e in engines))
        server = Process.of(pools.status("smollm2-135m").pid)
        assert server is not None
        server.signal(signal.SIGKILL)
        assert server.wait(30)
        again, _ = await asyncio.gather(*(collect(engines[0], sent) for _ in range(2)))  # it has ended since: it starts itself again
        assert [text for text in told if "again" in text] == ["pool/smollm2-135m ended and was started again."]
        pools.stop("all")
        with pytest.raises(Fault, match=r"told to end.*%infer pool start smollm2-135m") as stopped:
            await collect(engines[0], sent)
        assert stopped.value.stops, "somebody wanted its end: only a new run starts it again"
        assert pools.listing() == []
        await engines[0].ready(lambda text: None)
        await asyncio.gather(*(e.aclose() for e in engines))
        return [i[-1].completion.text for i in [*items, again]]

    assert with_engine(work) == ["hi"] * 4
    assert [i.name for i in pools.listing()] == ["smollm2-135m"]


@pytest.mark.parametrize(
    ("word", "why", "retry"),
    [
        ("smollm2-135m", "its last replica is gone: process 7 was killed by SIGKILL", True),
        ("smollm2-135m", "it was told to end (SIGTERM)", False),
        ("bytes", "its last replica is gone: process 7 was killed by SIGKILL", False),
    ],
)
def test_a_refusal_of_a_pool_that_ends_is_retried_where_it_comes_back(
    model: str, word: str, why: str, retry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools.start(model, name=word)
    message = f"The pool {word} does not run: {why}"
    monkeypatch.setattr(poolwire, "refusal", lambda *_: poolwire.fault({"code": "pool_failed", "message": message}, 503))
    with pytest.raises(Fault, match="does not run") as caught:
        with_engine(lambda e: collect(e, request(extra={"tools": ["none that a pool has"]})), word)
    assert (caught.value.kind, caught.value.retry, caught.value.stops) == ("connection", retry, not retry)
    assert (f"Start it: %infer pool start {model} --name {word}" in str(caught.value)) is not retry


def test_the_clock_does_not_run_in_the_queue(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four run at a time; the fifth waits longer than its timeout, and is fed signs of life that keep the clock at zero."""
    monkeypatch.setenv("HOLYNB_FAKE_STEP", "0.01")
    pools.start(model)

    async def work(engine: Pool) -> tuple[float, int]:
        busy = [asyncio.create_task(collect(engine, request("x" * 150, row=i))) for i in range(4)]
        await asyncio.sleep(0.3)
        clock = asyncio.get_running_loop().time
        last, gap, before = clock(), 0.0, 0
        async for item in engine.send(request("hi", row=4), Timeouts(silence=0.6)):
            gap, last = max(gap, clock() - last), clock()
            before += isinstance(item, Delta)
        await asyncio.gather(*busy)
        return gap, before

    gap, before = with_engine(work)
    assert gap < 0.6
    assert before > 3


@pytest.mark.parametrize(
    ("text", "kind", "retry"), [("x" * 600, "context_length", False), ("!oom", "oom", True), ("!boom", "server", True)]
)
def test_faults_have_their_kinds(model: str, text: str, kind: str, retry: bool) -> None:
    pools.start(model)
    with pytest.raises(Fault) as caught:
        with_engine(lambda e: collect(e, request(text)))
    assert (caught.value.kind, caught.value.retry) == (kind, retry)


def test_a_killed_server_in_the_middle_of_a_row(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_STEP", "0.05")
    info = pools.start(model)

    async def work(engine: Pool) -> None:
        async for item in engine.send(request("x" * 200, stream=True), Timeouts()):
            if isinstance(item, Delta) and item.text:
                os.kill(info.pid, signal.SIGKILL)

    with pytest.raises(Fault) as caught:
        with_engine(work)
    assert caught.value.kind in {"truncated", "connection"}


def test_a_frozen_pool_is_noticed(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.engines.pool._DEAD_AFTER_S", 1.0)
    monkeypatch.setenv("HOLYNB_FAKE_STEP", "0.02")
    info = pools.start(model)

    async def work(engine: Pool) -> None:
        async for item in engine.send(request("x" * 300, stream=True), Timeouts()):
            if isinstance(item, Delta) and item.text:
                os.kill(info.pid, signal.SIGSTOP)

    with pytest.raises(Fault, match="did not respond"):
        with_engine(work)


def test_the_clock_does_not_run_while_a_pool_s_server_comes_again(home: Path) -> None:
    """As on a cluster: the pool's end on this machine holds the row, and says that there is no server."""
    from holynb.pool.ray.bridge import PoolBridge

    async def work(engine: Pool) -> list[Any]:
        path = home / "s"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        rendezvous.write(home / "run", Record("bytes", Process.mine(), str(path), token=None, facts={"on": "ray://x:1"}))
        try:
            async with PoolBridge().serving(sock):
                items = engine.send(request(), Timeouts(silence=0.3))
                seen = [await asyncio.wait_for(anext(items), 20) for _ in range(3)]
                await items.aclose()
                return seen
        finally:
            rendezvous.remove(home / "run", "bytes", owner=Process.mine())

    assert with_engine(work) == [Delta("")] * 3


def test_a_row_that_is_closed_early_is_cancelled(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_FAKE_STEP", "0.02")
    pools.start(model)

    async def work(engine: Pool) -> None:
        stream = engine.send(request("x" * 400, stream=True), Timeouts())
        async for item in stream:
            if isinstance(item, Delta) and item.text:
                break
        await stream.aclose()
        for _ in range(100):
            if pools.status("bytes").requests == 0:
                return
            await asyncio.sleep(0.05)
        pytest.fail("the row still runs")

    with_engine(work)


def test_a_row_that_meets_a_pool_that_is_ending_hears_why(home: Path) -> None:
    """Its sockets go a moment before its record does."""
    run, log = home / "run", home / "logs" / "pool-bytes.log"
    log.parent.mkdir()
    rendezvous.write(run, rendezvous.Record("bytes", Process.mine(), str(home / "no-socket"), facts={"model": "m"}))

    async def work(engine: Pool) -> Any:
        with pytest.raises(Fault, match="failed: No such file") as alive:
            await collect(engine, request())
        assert alive.value.retry, "it may come back"
        asking = asyncio.create_task(collect(engine, request()))
        asyncio.get_running_loop().call_later(0.3, log.write_text, "error: the pool bytes ends: the cat sat on it\n")
        asyncio.get_running_loop().call_later(0.4, rendezvous.remove, run, "bytes")
        return await asking

    with pytest.raises(
        Fault, match=r"pool/bytes is not running any more: the cat sat on it. Start it: %infer pool start MODEL --name bytes"
    ) as caught:
        with_engine(work)
    assert (caught.value.kind, caught.value.stops, caught.value.unreachable) == ("connection", True, True)


def test_a_kernel_with_few_files_loses_no_row(model: str) -> None:
    """Each row has a connection: those that find no file left wait for the others, however often."""
    pools.start(model)
    code = (
        "import resource, holynb; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "frame = holynb.infer([f'row {i}' for i in range(100)], 'pool/bytes').wait().frame()\n"
        "print(sorted(set(frame['status'])), frame['attempts'].max() > 1, list(frame['text']) == [f'row {i}' for i in range(100)])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120, env=env)
    assert done.stdout == "['ok'] True True\n", done.stderr


def test_the_mark_is_in_the_frame_and_in_the_log(model: str) -> None:
    pools.start(model)
    run = holynb.infer(["a !tight row", "a row"], str(ROUTE)).wait()
    frame = run.frame()
    assert frame["status"].tolist() == ["ok", "ok"]
    assert frame["error"][0].startswith("oom: the pool's memory ran out under this row")
    assert frame["error_type"].isna().all()
    assert frame["error"].isna()[1]
    again = holynb.infer(["a !tight row", "a row"], str(ROUTE)).wait().frame()
    assert again["cached"].tolist() == [True, True]
    assert again["error"][0] == frame["error"][0], "the log keeps it"


def test_what_the_pool_s_model_cannot_do_is_said_once_below_the_result(model: str) -> None:
    pools.start(model)
    run = holynb.infer(["a row", "another", "a !tight row"], str(ROUTE), think="low").wait()
    said = [(e.level, e.text) for e in run.journal.events_since(0)[0] if isinstance(e, Noted) and "think" in e.text]
    assert said == [("warning", "pool/bytes does not think: its chat template knows no thinking.")]
    assert run.frame()["error"].str.contains("does not think").all(), "each row has it too, and the log keeps it"
