"""Rows embedded a second: `--embed` against the same calls by hand with aiohttp, in turns, a process for each, medians.

    .venv/bin/python tests/benchmarks/embeddings.py [--rows 10000] [--rounds 5] [--delay 0.2] [--dimensions 1536]

The server is a process of its own that answers as OpenAI does (base64), each request after `--delay` seconds; it computes nothing. By hand
means: 256 texts a call, 16 calls at once, JSON read and the vectors put into one float32 matrix. `--embed` does the same calls, and keeps
every row in the run log on disk, counts tokens and dollars, and gives the same matrix.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS_A_CALL, AT_ONCE = 256, 16
KEY = "sk-test-0123456789abcdef"


def texts(rows: int) -> list[str]:
    return [
        f"review {i}: the harbour was quiet, the engine measured, and the weather considered light although the model held"
        for i in range(rows)
    ]


# -- the server ----------------------------------------------------------------------------------------------------------


async def serve(delay: float, dimensions: int) -> None:
    """Every text gets the same vector but for its first number, which is its place in the call."""
    items: list[bytes] = []
    for i in range(ROWS_A_CALL):
        vector = np.full(dimensions, 0.5, "<f4")
        vector[0] = i
        coded = base64.b64encode(vector.tobytes())
        items.append(b'{"object":"embedding","index":%d,"embedding":"%s"}' % (i, coded))
    bodies: dict[int, bytes] = {}

    def body(n: int) -> bytes:
        if n not in bodies:
            usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (20 * n, 20 * n)
            bodies[n] = b'{"object":"list","data":[%s],"model":"text-embedding-3-small",%s}' % (b",".join(items[:n]), usage)
        return bodies[n]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                asked = json.loads(await reader.readexactly(length))
                await asyncio.sleep(delay)
                answer = body(len(asked["input"]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# -- the clients ---------------------------------------------------------------------------------------------------------


async def by_hand(base: str, rows: list[str], dimensions: int) -> np.ndarray:
    import aiohttp

    try:
        import orjson

        loads = orjson.loads
    except ImportError:
        loads = json.loads
    out = np.empty((len(rows), dimensions), np.float32)
    gate = asyncio.Semaphore(AT_ONCE)

    async def call(session: aiohttp.ClientSession, start: int) -> None:
        asked = {"model": "text-embedding-3-small", "input": rows[start : start + ROWS_A_CALL], "encoding_format": "base64"}
        async with gate, session.post(f"{base}/embeddings", json=asked, headers={"authorization": f"Bearer {KEY}"}) as reply:
            assert reply.status == 200
            for item in loads(await reply.read())["data"]:
                out[start + item["index"]] = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(call(session, start) for start in range(0, len(rows), ROWS_A_CALL)))
    return out


def with_holynb(base: str, rows: list[str], dimensions: int) -> np.ndarray:
    import holynb

    run = holynb.infer(rows, "openai/text-embedding-3-small", embed=True, api_base=base).wait(600)
    assert run.summary().ok == len(rows)
    out: np.ndarray = run.vectors()
    assert out.shape == (len(rows), dimensions)
    return out


def client(name: str, base: str, n: int, dimensions: int) -> None:
    """One measured run after a small one that loads what is needed; prints the seconds, of the clock and of its CPU."""
    os.environ["OPENAI_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOLYNB_HOME"] = home

        def once(rows: list[str]) -> np.ndarray:
            return asyncio.run(by_hand(base, rows, dimensions)) if name == "hand" else with_holynb(base, rows, dimensions)

        once([f"warm {i}" for i in range(300)])
        rows, began, cpu = texts(n), time.perf_counter(), time.process_time()
        out = once(rows)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        assert (out[:, 0] == np.arange(n) % ROWS_A_CALL).all(), "each row has its own"
        print(json.dumps([took, cpu]), flush=True)
        if name != "hand":
            from holynb import loop, runlog

            loop.close()
            runlog.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--dimensions", type=int, default=1536)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.delay, args.dimensions))
    if args.client:
        client(args.client, args.base, args.rows, args.dimensions)
        return 0
    same = [sys.executable, __file__, "--delay", str(args.delay), "--dimensions", str(args.dimensions), "--rows", str(args.rows)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([*same, "--serve"], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        seconds: dict[str, list[tuple[float, float]]] = {"hand": [], "holynb": []}
        for round_ in range(args.rounds):
            for name in ("hand", "holynb") if round_ % 2 == 0 else ("holynb", "hand"):
                done = subprocess.run([*same, "--client", name, "--base", base], capture_output=True, text=True, check=False, env=env)
                assert done.returncode == 0, done.stderr
                seconds[name].append(tuple(json.loads(done.stdout.splitlines()[-1])))
                print(f"round {round_ + 1} {name:7} {args.rows / seconds[name][-1][0]:9,.0f} rows/s", flush=True)
    finally:
        server.terminate()
        server.wait(10)
    medians = {name: statistics.median(t for t, _ in taken) for name, taken in seconds.items()}
    cpu = {name: statistics.median(c for _, c in taken) for name, taken in seconds.items()}
    for name, median in medians.items():
        print(f"{name:7} {args.rows / median:9,.0f} rows/s  {median:.2f} s  CPU {cpu[name]:.2f} s")
    print(f"ratio   {medians['hand'] / medians['holynb']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
