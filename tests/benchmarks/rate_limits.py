"""How long rows take where a server refuses some of them: by chance, or because a quota has ended.

    python tests/benchmarks/rate_limits.py sim [--seeds 20]
    python tests/benchmarks/rate_limits.py sockets [--rounds 5] [--rows 300] [--only SHARE,…]

sim: on a virtual clock, holynb's limiter against an oracle that knows that the refusals are by chance, gets the same seed's and has the same 64 at once; and
quotas of 600 a minute against the time that the server itself needs. Medians over the seeds.
sockets: `holynb.infer` against the OpenAI SDK (64 at once, `max_retries=8`) and LiteLLM where it is installed, in turns, each in a process of its own, on a
local server that refuses by chance. Seconds for all rows; medians of the rounds; a row that was not answered is said.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from servers import virtual  # noqa: E402 - the path comes first
from servers.exact import Asked, Exact, Step, reply  # noqa: E402
from servers.limited import Result, against_oracle, limiter, through  # noqa: E402
from servers.virtual import Quota  # noqa: E402

SHARES, WAITS, LATENCIES = (0.1, 0.15, 0.2), (None, 0.1, 1.0, 5.0), (0.05, 0.3, 1.0)
ANSWER = {
    "model": "m",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}
REFUSAL = {"error": {"message": "Too many requests", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}


# -- the simulation ------------------------------------------------------------------------------------------------------


def by_chance(seeds: int) -> None:
    print("Refused by chance, 300 rows: seconds in multiples of the oracle's\n")
    print("| share | Retry-After | " + " | ".join(f"{1000 * s:g} ms" for s in LATENCIES) + " |\n|---|---|---|---|---|")
    worst = (0.0, "")
    for share, wait in itertools.product(SHARES, WAITS):
        cells = [statistics.median(against_oracle(share, wait, latency, seed) for seed in range(seeds)) for latency in LATENCIES]
        told = "none" if wait is None else f"{wait:g} s"
        worst = max(worst, *((c, f"{share:.0%}, {told}, {1000 * s:g} ms") for c, s in zip(cells, LATENCIES, strict=True)))
        print(f"| {share:.0%} | {told} | " + " | ".join(f"{c:.2f}" for c in cells) + " |", flush=True)
    print(f"\nworst: {worst[0]:.2f} ({worst[1]})\n")


def quotas(seeds: int) -> None:
    print("A quota of 600 a minute, 750 rows: seconds in multiples of its optimum (15 s and an answer), share refused\n")
    print("| told | processes | Retry-After | " + " | ".join(f"{1000 * s:g} ms" for s in LATENCIES) + " |\n|---|---|---|---|---|---|")
    for headers, processes, wait in itertools.product((True, False), (1, 2), ("slot", None)):
        cells = []
        for latency in LATENCIES:
            runs = [limited(headers, processes, wait, latency, seed) for seed in range(seeds)]
            cells.append(f"{statistics.median(s for s, _ in runs):.2f}, {statistics.median(r for _, r in runs):.1%}")
        told = "headers" if headers else "nothing"
        print(f"| {told} | {processes} | {wait or 'none'} | " + " | ".join(cells) + " |", flush=True)
    print()


def limited(headers: bool, processes: int, wait: str | None, latency: float, seed: int) -> tuple[float, float]:
    """Seconds in multiples of the optimum, and the share of requests that was refused."""
    quota = Quota(headers=headers, retry_after=wait, latency=latency, jitter=0.5, refusal=0.002, seed=seed)

    async def main() -> Result:
        return await through([limiter(start=16) for _ in range(processes)], quota, 750, alike=False)

    optimum = 15 + latency * (1 + quota.jitter / 2)
    return virtual.run(main).seconds / optimum, quota.refused / len(quota.sent)


# -- sockets -------------------------------------------------------------------------------------------------------------


class Chance:
    """Refuses a share of what it is asked, at once; the same for everybody who is asked with the same seed."""

    def __init__(self, share: float, wait: float | None, latency: float, seed: int) -> None:
        self.rng, self.share, self.latency = random.Random(seed), share, latency
        self.headers = {} if wait is None else {"retry_after": f"{wait:g}"}

    def __call__(self, request: Asked, number: int) -> Sequence[Step]:
        if self.rng.random() < self.share:
            return [reply(REFUSAL, 429, **self.headers)]
        return [self.latency, reply(ANSWER)]


def holynb_client(base: str, rows: int) -> tuple[float, int]:
    import holynb

    os.environ["HOLYNB_HOME"] = tempfile.mkdtemp()
    holynb.infer(["warm"], "openai/m", api_base=base, cache=False).wait()
    start = time.perf_counter()
    frame = holynb.infer([f"row {i}" for i in range(rows)], "openai/m", api_base=base, cache=False, concurrency=64).wait().frame()
    return time.perf_counter() - start, int((frame["status"] == "ok").sum())


def openai_client(base: str, rows: int) -> tuple[float, int]:
    from openai import AsyncOpenAI

    async def main() -> tuple[float, int]:
        async with AsyncOpenAI(base_url=base, max_retries=8) as client:
            return await together(
                rows, lambda text: client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
            )

    return asyncio.run(main())


def litellm_client(base: str, rows: int) -> tuple[float, int]:
    import litellm

    async def main() -> tuple[float, int]:
        def ask(text: str) -> Any:
            messages = [{"role": "user", "content": text}]
            return litellm.acompletion(model="openai/m", api_base=base, messages=messages, max_retries=8)

        return await together(rows, ask)

    return asyncio.run(main())


async def together(rows: int, ask: Any) -> tuple[float, int]:
    slots = asyncio.Semaphore(64)

    async def one(text: str) -> bool:
        async with slots:
            try:
                return bool((await ask(text)).choices[0].message.content)
            except Exception:  # noqa: BLE001 - a row that failed is counted, whatever the client calls it
                return False

    await one("warm")
    start = time.perf_counter()
    answered = sum(await asyncio.gather(*(one(f"row {i}") for i in range(rows))))
    return time.perf_counter() - start, answered


CLIENTS = {"openai": openai_client, "holynb": holynb_client, "litellm": litellm_client}


def race(share: float, wait: float | None, latency: float, rounds: int, rows: int) -> dict[str, list[tuple[float, int]]]:
    names = [n for n in CLIENTS if importlib.util.find_spec(n)]
    results: dict[str, list[tuple[float, int]]] = {n: [] for n in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            with Exact(Chance(share, wait, latency, turn)) as server:
                command = [sys.executable, __file__, "client", name, f"{server.base}/v1", str(rows)]
                env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {
                    "OPENAI_API_KEY": "sk-benchmark-0123456789"
                }
                done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=env)
            results[name].append(tuple(json.loads(done.stdout.splitlines()[-1])))
    return results


def sockets(rounds: int, rows: int, shares: Sequence[float]) -> None:
    print(f"{rows} rows over sockets, medians of {rounds}: seconds (rows not answered in all)\n")
    print("| share | Retry-After | latency | openai SDK | holynb | litellm | holynb / openai |\n|---|---|---|---|---|---|---|")
    for share, wait, latency in itertools.product(shares, (None, 1.0), (0.05, 0.3)):
        results = race(share, wait, latency, rounds, rows)
        middle = {name: statistics.median(s for s, _ in found) for name, found in results.items()}
        lost = {name: sum(rows - answered for _, answered in found) for name, found in results.items()}
        cells = [f"{middle[n]:.2f} ({lost[n]})" if n in middle else "–" for n in CLIENTS]
        told = "none" if wait is None else f"{wait:g} s"
        print(
            f"| {share:.0%} | {told} | {1000 * latency:g} ms | {' | '.join(cells)} | {middle['holynb'] / middle['openai']:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    sim = commands.add_parser("sim")
    sim.add_argument("--seeds", type=int, default=20)
    real = commands.add_parser("sockets")
    real.add_argument("--rounds", type=int, default=5)
    real.add_argument("--rows", type=int, default=300)
    real.add_argument("--only", default="0.02,0.05,0.1,0.15,0.2", help="shares")
    client = commands.add_parser("client")
    client.add_argument("name", choices=list(CLIENTS))
    client.add_argument("base")
    client.add_argument("rows", type=int)
    args = parser.parse_args()
    if args.what == "sim":
        by_chance(args.seeds)
        quotas(args.seeds)
    elif args.what == "sockets":
        sockets(args.rounds, args.rows, [float(s) for s in args.only.split(",")])
    else:
        print(json.dumps(CLIENTS[args.name](args.base, args.rows)))


if __name__ == "__main__":
    main()
