"""What a session feels: `load` (seconds of %load_ext over IPython), `memory --base URL` (10,000 rows: resident memory, and how long the main thread's
loop was held up meanwhile). Each runs in a process of its own and prints JSON."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import threading
import time
from typing import Any

import psutil


def load() -> dict[str, Any]:
    """`%load_ext holynb` in a shell that is already up."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    before = set(sys.modules)
    started = time.perf_counter()
    shell.run_line_magic("load_ext", "holynb")
    return {"seconds": time.perf_counter() - started, "modules": len(set(sys.modules) - before)}


async def rows(base: str, n: int) -> dict[str, Any]:
    """N rows awaited on the main thread's loop, as the cell does."""
    import holynb

    options = {"api_base": base, "concurrency": 64, "max_tokens": 64}
    (await holynb.infer([f"warm {i}" for i in range(500)], "openai/gpt-4.1-mini", **options)).frame()  # pandas is in, as in any notebook
    gc.collect()
    process, gaps, peak, ended = psutil.Process(), [], [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    async def heartbeat() -> None:
        while not ended.is_set():
            at = time.perf_counter()
            await asyncio.sleep(0.01)
            gaps.append(time.perf_counter() - at - 0.01)

    threading.Thread(target=watch, daemon=True).start()
    beating = asyncio.ensure_future(heartbeat())
    started = time.perf_counter()
    run = await holynb.infer([f"Say what number {i} is good for." for i in range(n)], "openai/gpt-4.1-mini", **options)
    wall = time.perf_counter() - started
    ended.set()
    await beating
    frame = run.frame()
    assert (frame["status"] == "ok").all()
    gc.collect()
    after = process.memory_info().rss
    gaps.sort()
    return {
        "n": n,
        "wall": wall,
        "rss_before_mib": before / 2**20,
        "grown_mib": (after - before) / 2**20,
        "grown_at_peak_mib": (peak[0] - before) / 2**20,
        "held_up_p99_ms": 1000 * gaps[len(gaps) * 99 // 100],
        "held_up_max_ms": 1000 * gaps[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["load", "memory"])
    parser.add_argument("--base")
    parser.add_argument("-n", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ |= {"HOLYNB_HOME": home, "OPENAI_API_KEY": "sk-benchmark-0123456789abcdef"}
        print(json.dumps(load() if args.what == "load" else asyncio.run(rows(args.base, args.n))))


if __name__ == "__main__":
    main()
