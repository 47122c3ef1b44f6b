"""One client, in a process of its own: sends N chat requests with C at once, reads each answer's text and usage, and prints what it took as JSON.

`python clients.py NAME --base URL -n N -c C [--stream]`. Every client is warmed up first; only the measured part counts. `cpu` is this process's CPU
seconds, all threads. Nobody else's client is given anything it does not do by default, except a pool as wide as C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

KEY = "sk-benchmark-0123456789abcdef"
MODEL = "gpt-4.1-mini"
FRAMES = 102  # JSON events of one streamed answer, as server.js sends them

#: One request: its number → how many stream chunks it read.
Send = Callable[[int], Awaitable[int]]


def body(i: int, *, stream: bool) -> dict[str, Any]:
    prompt = f"Explain in one paragraph what a cache is good for, for reader number {i}."
    messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": prompt}]
    return {
        "model": MODEL,
        "messages": messages,
        "max_tokens": 64,
        **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
    }


def read(answer: dict[str, Any]) -> int:
    """Touch what a caller needs."""
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 60
    return 1


def count_line(line: str) -> int:
    if not line.startswith("data: ") or line == "data: [DONE]":
        return 0
    chunk = json.loads(line[6:])
    if chunk["choices"]:
        chunk["choices"][0]["delta"].get("content")
    return 1


async def httpx_client(base: str, c: int, *, stream: bool) -> Send:
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=c, max_keepalive_connections=c), timeout=120)
    url, headers = f"{base}/chat/completions", {"Authorization": f"Bearer {KEY}"}

    async def send(i: int) -> int:
        if not stream:
            return read((await client.post(url, json=body(i, stream=False), headers=headers)).json())
        async with client.stream("POST", url, json=body(i, stream=True), headers=headers) as reply:
            return sum([count_line(line) async for line in reply.aiter_lines()])

    return send


async def aiohttp_client(base: str, c: int, *, stream: bool) -> Send:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=c))
    url, headers = f"{base}/chat/completions", {"Authorization": f"Bearer {KEY}"}

    async def send(i: int) -> int:
        async with session.post(url, json=body(i, stream=stream), headers=headers) as reply:
            if not stream:
                return read(await reply.json())
            return sum([count_line(line.decode().rstrip("\n")) async for line in reply.content])

    return send


async def openai_client(base: str, c: int, *, stream: bool) -> Send:
    import httpx
    from openai import AsyncOpenAI

    limits = httpx.Limits(max_connections=c, max_keepalive_connections=c)
    try:
        client = AsyncOpenAI(base_url=base, api_key=KEY, http_client=httpx.AsyncClient(limits=limits, timeout=120))
    except TypeError:  # from 3.0 it takes another library's client; its own default is 1,000 connections wide
        client = AsyncOpenAI(base_url=base, api_key=KEY)

    async def send(i: int) -> int:
        if not stream:
            answer = await client.chat.completions.create(**body(i, stream=False))
            return read({"choices": [{"message": {"content": answer.choices[0].message.content}}], "usage": answer.usage.model_dump()})
        chunks = await client.chat.completions.create(**body(i, stream=True))
        return sum([1 async for chunk in chunks if not chunk.choices or chunk.choices[0].delta is not None])

    return send


async def litellm_client(base: str, c: int, *, stream: bool) -> Send:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    async def send(i: int) -> int:
        asked = body(i, stream=stream) | {"model": f"openai/{MODEL}"}
        answer = await litellm.acompletion(**asked, api_base=base, api_key=KEY)
        if stream:
            return sum([1 async for _ in answer])
        return read({"choices": [{"message": {"content": answer.choices[0].message.content}}], "usage": dict(answer.usage)})

    return send


CLIENTS = {"httpx": httpx_client, "aiohttp": aiohttp_client, "openai": openai_client, "litellm": litellm_client}


async def drive(name: str, base: str, n: int, c: int, *, stream: bool) -> dict[str, Any]:
    """C workers over N requests."""
    send = await CLIENTS[name](base, c, stream=stream)
    await work(send, range(-min(c, 64), 0), c)
    started, cpu = time.perf_counter(), time.process_time()
    took, chunks = await work(send, range(n), c)
    assert stream is False or name == "litellm" or chunks == n * FRAMES, chunks
    return measured(time.perf_counter() - started, time.process_time() - cpu, took, chunks)


async def work(send: Send, numbers: range, c: int) -> tuple[list[float], int]:
    todo, took, chunks = iter(numbers), [], 0

    async def worker() -> None:
        nonlocal chunks
        for i in todo:
            started = time.perf_counter()
            got = await send(i)  # first, or the sum is read before the wait
            chunks += got
            took.append(time.perf_counter() - started)

    await asyncio.gather(*(worker() for _ in range(c)))
    return took, chunks


def holynb_run(base: str, n: int, c: int, *, stream: bool) -> dict[str, Any]:
    """The full stack: scheduler, limits, journal, SQLite run log, prices, and the frame at the end."""
    import holynb

    os.environ["OPENAI_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOLYNB_HOME"] = home
        said = {"api_base": base, "concurrency": c, "max_tokens": 64, "system": "You are brief.", "stream": stream}
        asked = [body(i, stream=False)["messages"][1]["content"] for i in range(-max(256, 2 * c), n)]
        holynb.infer(asked[:-n], f"openai/{MODEL}", **said).wait().frame()
        started, cpu = time.perf_counter(), time.process_time()
        run = holynb.infer(asked[-n:], f"openai/{MODEL}", **said).wait()
        frame = run.frame()
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert (frame["status"] == "ok").all(), frame["error"].value_counts()
        assert (frame["tokens_out"] == 60).all()
        assert not frame["cached"].any()
        assert (frame["attempts"] == 1).all()
    return measured(wall, cpu, list(frame["latency_s"]), n * FRAMES if stream else n)


def measured(wall: float, cpu: float, took: list[float], chunks: int) -> dict[str, Any]:
    n, ordered = len(took), sorted(took)
    rank = {f"p{p}_ms": 1000 * ordered[min(n - 1, n * p // 100)] for p in (50, 99)}
    return {
        "n": n,
        "wall": wall,
        "rps": n / wall,
        "cpu_per_1000": 1000 * cpu / n,
        "chunks_per_s": chunks / wall,
        "cpu_us_per_chunk": 1e6 * cpu / chunks,
        "max_ms": 1000 * ordered[-1],
        **rank,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*CLIENTS, "holynb"])
    parser.add_argument("--base", required=True)
    parser.add_argument("-n", type=int, required=True)
    parser.add_argument("-c", type=int, required=True)
    parser.add_argument("--stream", action="store_true")
    args = parser.parse_args()
    if args.name == "holynb":
        result = holynb_run(args.base, args.n, args.c, stream=args.stream)
    else:
        result = asyncio.run(drive(args.name, args.base, args.n, args.c, stream=args.stream))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
