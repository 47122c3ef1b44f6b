"""How a run does when servers limit, fail and stall: seconds against the optimum, refusals, and whether every row and every request is accounted for.

    python tests/benchmarks/under_fire.py [SCENE …]

Each scene starts local HTTP servers of its own and runs `holynb.infer` over real sockets in real time; all of them take about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from killed import halfway  # noqa: E402 - the path comes first
from servers.exact import END, EOF, Asked, Exact, Step, chunk, reply, sse, stream_head  # noqa: E402
from servers.golden import openai_chunk  # noqa: E402

ANSWER = {
    "model": "m",
    "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}
LATENCY = 0.05


class Quota:
    """600 requests a minute, refilled all the time, told in headers or not. A 429 says when the next slot is free."""

    def __init__(self, *, headers: bool) -> None:
        self.headers, self.level, self.at, self.refused = headers, 600.0, time.monotonic(), 0

    def __call__(self, request: Asked, number: int) -> Sequence[Step]:
        now = time.monotonic()
        self.level, self.at = min(600.0, self.level + (now - self.at) * 10), now
        admitted = self.level >= 1
        self.level -= admitted
        said = (
            {
                "x_ratelimit_limit_requests": "600",
                "x_ratelimit_remaining_requests": str(int(self.level)),
                "x_ratelimit_reset_requests": f"{(600 - self.level) / 10:.3f}s",
            }
            if self.headers
            else {}
        )
        if admitted:
            return [LATENCY, reply(ANSWER, **said)]
        self.refused += 1
        error = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded", "type": "requests"}}
        return [reply(error, 429, retry_after=f"{(1 - self.level) / 10:.3f}", **said)]


def run(rows: int, route: str = "openai/m", **options: Any) -> tuple[Any, float]:
    import holynb

    start = time.perf_counter()
    run = holynb.infer([f"row {i} of {rows}" for i in range(rows)], route, cache=False, **options)
    frame = run.wait().frame()
    return frame, time.perf_counter() - start


def quota(*, headers: bool) -> str:
    server = Quota(headers=headers)
    with Exact(server) as exact:
        frame, seconds = run(750, api_base=exact.base)
        sent = len(exact.asked)
    lost = int((frame["status"] != "ok").sum())
    return f"{seconds:.1f} s = {seconds / 15:.2f} × the optimum, {server.refused} of {sent} requests refused, {lost} rows lost"


def faults() -> str:
    """20 % 500s, 5 % cut streams, 2 % stalls."""
    rng = random.Random(1)

    def script(request: Asked, number: int) -> Sequence[Step]:
        draw = rng.random()
        if draw < 0.20:
            return [reply({"error": {"message": "boom"}}, 500)]
        half = [stream_head(), chunk(sse(openai_chunk("half")))]
        if draw < 0.25:
            return [*half, EOF]
        if draw < 0.27:
            return [*half, 30.0]
        return [0.01, stream_head(), chunk(sse(openai_chunk("ok"), openai_chunk(finish="stop"), "[DONE]")), END]

    with Exact(script) as exact:
        frame, seconds = run(2000, api_base=exact.base, stream=True, timeout=2, retries=12)
        sent = len(exact.asked)
    ok = int((frame["status"] == "ok").sum())
    return f"{seconds:.1f} s, {ok} of 2000 rows ok, {int(frame['attempts'].sum())} attempts, {sent} requests seen"


def moods() -> str:
    """5 % of all requests refused for no reason of the sender's, with 0.2 s to wait."""
    rng = random.Random(1)

    def script(request: Asked, number: int) -> Sequence[Step]:
        if rng.random() < 0.05:
            return [LATENCY, reply({"error": {"message": "busy, try again", "type": "requests"}}, 429, retry_after="0.2")]
        return [LATENCY, reply(ANSWER)]

    with Exact(script) as exact:
        frame, seconds = run(2000, api_base=exact.base)
        sent = len(exact.asked)
    return f"{seconds:.1f} s, {sent - 2000} of {sent} requests refused, {int((frame['status'] != 'ok').sum())} rows lost"


def plain(request: Asked, number: int) -> Sequence[Step]:
    return [0.2, reply(ANSWER)]


def dead() -> str:
    with Exact([]) as gone:
        pass
    with Exact(plain) as alive:
        os.environ["DEEPSEEK_BASE_URL"] = alive.base
        _, alone = run(1000, "deepseek/m", concurrency=32)
        os.environ["OPENAI_BASE_URL"] = gone.base
        frame, both = run(1000, "openai/m", fallback=("deepseek/m",), concurrency=32)
    lost = int((frame["status"] != "ok").sum())
    return f"alone {alone:.1f} s, after a dead one {both:.1f} s = {both / alone:.2f} ×, {lost} rows lost"


def spread() -> str:
    with Exact(plain) as one, Exact(plain) as two:
        os.environ |= {"OPENAI_BASE_URL": one.base, "DEEPSEEK_BASE_URL": two.base}
        _, alone = run(600, "openai/m", concurrency=16)
        _, both = run(600, "openai/m", spread=("deepseek/m",), concurrency=32)
        shares = len(one.asked) - 600, len(two.asked)
    return f"one {alone:.1f} s, two {both:.1f} s: {alone / both:.2f} times as fast, rows shared {shares[0]} : {shares[1]}"


def refused() -> str:
    """A route whose budget is used up says so with a 429 that every client takes for a rate limit; beside it a healthy one."""
    error = {"error": {"message": "This team is above what it may spend now", "type": "internal_server_error", "code": "429"}}
    with Exact([LATENCY, reply(error, 429)]) as empty, Exact([LATENCY, reply(ANSWER)]) as alive:
        os.environ |= {"OPENAI_BASE_URL": empty.base, "DEEPSEEK_BASE_URL": alive.base}
        frame, seconds = run(2000, fallback=("deepseek/m",))
    lost = int((frame["status"] != "ok").sum())
    return f"{seconds:.1f} s, {len(empty.asked)} requests refused, {len(alive.asked)} answered by the next route, {lost} rows lost"


def restarted(times: int = 1) -> str:
    """A server that is killed 1.5 s after its first request and back 6 s later, under 2,000 rows; `times` in all."""
    lost = sent = twice = 0
    longest = 0.0
    for _ in range(times):
        server = Exact([LATENCY, reply(ANSWER)])
        restart = threading.Thread(target=_restart, args=(server, 1.5, 6.0))
        with server:
            restart.start()
            frame, seconds = run(2000, api_base=server.base, concurrency=32)
            restart.join()
        lost += int((frame["status"] != "ok").sum())
        sent += int(frame["attempts"].sum())
        twice += len(server.asked) - len({a.body for a in server.asked})
        longest = max(longest, seconds)
    return f"{longest:.1f} s, {lost} of {2000 * times} rows lost, {sent} attempts, {twice} requests seen that were sent before"


def _restart(server: Exact, after: float, away: float) -> None:
    while not server.asked:
        time.sleep(0.01)
    time.sleep(after)
    server.__exit__()
    time.sleep(away)
    server.__enter__()


def killed() -> str:
    """kill -9 at half of 2,000 rows, 32 at once; the rest from a new process."""
    result = halfway(Path(os.environ["HOLYNB_HOME"]), 2000, 32)
    return (
        f"{result.seconds:.1f} s with two starts, {result.kept} answers on disk at the kill, {result.sent} requests seen, {result.twice} rows sent twice, "
        f"{result.more} more often, {result.logged} of 2000 rows in the log, {result.frame['ok']} ok, {result.frame['wrong']} wrong"
    )


def pool_kills(times: int = 20) -> str:
    """`times` runs of 100 rows on a pool of two replicas of a tiny model; in each, one rank is killed at a random moment."""
    import psutil
    import tiny
    from pool_fake import byte_model

    import holynb
    from holynb import pools

    folder = byte_model(Path(os.environ["HOLYNB_HOME"]) / "tiny")
    (folder / "model.safetensors").unlink()
    tiny.make("llama", folder)
    always = {"ignore_eos": True}  # a random model says nothing to some prompts, and an empty answer is an error of its own
    info = pools.start(str(folder), name="fire", dp=2, devices="cpu", restart=times)
    seen, rng, lost, in_flight, longest = {info.pid}, random.Random(20), 0, 0, 0.0
    try:
        for _ in range(times):
            ranks = _both_ranks(info.pid)
            seen |= {r.pid for r in ranks}
            start = time.monotonic()
            work = holynb.infer([f"row {i}" for i in range(100)], "pool/fire", max_tokens=60, temperature=0, cache=False, p=always)
            time.sleep(rng.uniform(0, 0.5))
            in_flight += sum(o is None for o in work.rows())
            rng.choice(ranks).kill()
            lost += int((work.wait(120).frame()["status"] != "ok").sum())
            longest = max(longest, time.monotonic() - start)
    finally:
        seen |= {p.pid for p in psutil.Process(info.pid).children(recursive=True)}
        pools.stop("fire")
    left = [p for p in seen if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
    return f"{times} kills with {in_flight} rows unanswered, {lost} of {100 * times} rows lost, longest run {longest:.1f} s, {len(left)} processes left"


def _both_ranks(server: int) -> list[Any]:
    """The processes of the pool's two ranks, once both answer."""
    import psutil

    from holynb import pools

    until = time.monotonic() + 120
    while time.monotonic() < until:
        status = pools.status("fire")
        if status.state == "ready" and len(status.replicas) == 2:
            ranks = [p for p in psutil.Process(server).children(recursive=True) if p.pid in status.ranks]
            if len(ranks) == 2:
                return ranks
        time.sleep(0.1)
    raise TimeoutError("the pool has not come back")


SCENES: dict[str, Callable[[], str]] = {
    "quota-told": lambda: quota(headers=True),
    "quota-untold": lambda: quota(headers=False),
    "faults": faults,
    "dead": dead,
    "spread": spread,
    "killed": killed,
    "moods": moods,
    "refused": refused,
    "restarted": restarted,
    "ten-restarts": lambda: restarted(10),
    "pool-kills": pool_kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}; without one all of them")
    scenes = parser.parse_args().scenes
    if unknown := [name for name in scenes if name not in SCENES]:
        parser.error(f"there is no scene {unknown[0]}: {', '.join(SCENES)}")
    os.environ |= {"OPENAI_API_KEY": "sk-benchmark-0123456789abcdef", "DEEPSEEK_API_KEY": "sk-benchmark-fedcba9876543210"}
    for name in scenes or SCENES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            os.environ["HOLYNB_HOME"] = home
            for variable in ("OPENAI_BASE_URL", "DEEPSEEK_BASE_URL"):
                os.environ.pop(variable, None)
            print(f"{name}: {SCENES[name]()}", flush=True)


if __name__ == "__main__":
    main()
