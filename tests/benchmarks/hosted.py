"""How fast the way to a hosted API is, against other clients on the same machine in the same run.

    python tests/benchmarks/hosted.py [--rounds 3] [--quick] [--out FILE] [--only NAME,…]

A local server that is not the bottleneck (server.js) answers; each client runs in a process of its own; the clients take turns, forwards and backwards;
a figure is the median over the rounds, CPU the least. Ratios are what to trust. Needs Node; clients that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ORDER = ("httpx", "openai", "litellm", "aiohttp", "holynb")


@dataclass(frozen=True)
class Scene:
    """One load. `n` per client: slow ones get fewer requests, so that a round takes seconds."""

    name: str
    c: int
    n: int
    delay: int = 0
    stream: bool = False
    clients: tuple[str, ...] = ORDER
    slow: int = 4

    def count(self, client: str) -> int:
        return self.n if client in ("aiohttp", "holynb") else max(self.c, self.n // self.slow)


SCENES = (
    Scene("64 at once", c=64, n=7680),
    Scene("64 at once, 50 ms answers", c=64, n=3840, delay=50, clients=("httpx", "openai", "aiohttp", "holynb")),
    Scene("512 at once, 50 ms answers", c=512, n=4096, delay=50, clients=("httpx", "aiohttp", "holynb")),
    Scene("16 streams at once", c=16, n=1280, stream=True, slow=2),
)


@contextmanager
def serving(delay: int) -> Iterator[str]:
    """The server's base URL."""
    node = shutil.which("node") or sys.exit("these benchmarks need Node for the server")
    server = subprocess.Popen([node, str(HERE / "server.js"), str(delay)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


def spawn(script: str, *words: str) -> dict[str, Any]:
    """The JSON that a script of this folder prints."""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, str(HERE / script), *words], capture_output=True, text=True, check=False, timeout=600, env=env)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def play(scene: Scene, rounds: int) -> dict[str, dict[str, float]]:
    """Client → medians over the rounds, taken in turns."""
    clients = [c for c in scene.clients if c == "holynb" or importlib.util.find_spec(c)]
    results: dict[str, list[dict[str, Any]]] = {c: [] for c in clients}
    with serving(scene.delay) as base:
        for turn in range(rounds):
            for client in clients if turn % 2 == 0 else reversed(clients):
                words = ["--base", base, "-n", str(scene.count(client)), "-c", str(scene.c)]
                result = spawn("clients.py", client, *words, *(["--stream"] if scene.stream else []))
                if "failed" in result:
                    print(f"   {client}: {result['failed']}", flush=True)
                else:
                    results[client].append(result)
    return {client: middle(results) for client, results in results.items() if results}


def middle(results: list[dict[str, Any]]) -> dict[str, float]:
    best = ("cpu_per_1000", "cpu_us_per_chunk")
    return {k: (min if k in best else statistics.median)([r[k] for r in results]) for k in results[0]} | {"rounds": len(results)}


def table(scene: Scene, results: dict[str, dict[str, float]]) -> str:
    rate = "chunks_per_s" if scene.stream else "rps"
    cpu = "cpu_us_per_chunk" if scene.stream else "cpu_per_1000"
    head = f"| {scene.name} | {'chunks' if scene.stream else 'requests'}/s | × httpx | CPU {'µs/chunk' if scene.stream else 's/1,000'} | p50 ms | p99 ms | max ms |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    first = results.get("httpx", {}).get(rate)
    for client, f in results.items():
        ratio = f"{f[rate] / first:.2f}" if first else "–"
        lines.append(f"| {client} | {f[rate]:,.0f} | {ratio} | {f[cpu]:.3g} | {f['p50_ms']:.0f} | {f['p99_ms']:.0f} | {f['max_ms']:.0f} |")
    return "\n".join(lines)


def targets(results: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """(what, measured, wanted, met) of the budgets that this project set itself."""
    out: list[tuple[str, float, float, bool]] = []

    def least(what: str, value: float | None, wanted: float) -> None:
        if value is not None:
            out.append((what, value, wanted, value >= wanted))

    def most(what: str, value: float | None, wanted: float) -> None:
        if value is not None:
            out.append((what, value, wanted, value <= wanted))

    busy = results.get("64 at once", {})
    for other, wanted in (("httpx", 8), ("openai", 4), ("aiohttp", 0.45)):
        least(f"64 at once: × {other}", ratio(busy, other, "rps"), wanted)
    most("64 at once: CPU s per 1,000", busy.get("holynb", {}).get("cpu_per_1000"), 0.45)
    most("512 at once, 50 ms: p99 ms", results.get("512 at once, 50 ms answers", {}).get("holynb", {}).get("p99_ms"), 500)
    least("streams: chunks/s × httpx", ratio(results.get("16 streams at once", {}), "httpx", "chunks_per_s"), 3)
    most("10,000 rows: MiB grown", results.get("memory", {}).get("grown_mib"), 50)
    most("10,000 rows: main loop held up, longest, ms", results.get("memory", {}).get("held_up_max_ms"), 250)
    most("%load_ext: ms", results.get("load", {}).get("ms"), 300)
    most("holynb demo: s", results.get("demo", {}).get("seconds"), 90)
    return out


def ratio(results: dict[str, dict[str, float]], other: str, what: str) -> float | None:
    return results["holynb"][what] / results[other][what] if {"holynb", other} <= results.keys() else None


def session(only: set[str]) -> dict[str, Any]:
    """What is not a race between clients."""
    results: dict[str, Any] = {}
    if not only or "load" in only:
        runs = [spawn("session.py", "load") for _ in range(7)]
        results["load"] = (
            {"ms": 1000 * statistics.median(r["seconds"] for r in runs), "modules": runs[0]["modules"]} if "seconds" in runs[0] else runs[0]
        )
    if not only or "memory" in only:
        with serving(0) as base:
            results["memory"] = spawn("session.py", "memory", "--base", base)
    if not only or "demo" in only:
        results["demo"] = demo()
    return results


def demo() -> dict[str, Any]:
    """`holynb demo` from the command to its end, in a home that has the weights and nothing else. The first call fetches them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        env = os.environ | {"HOLYNB_HOME": home}
        models = Path(os.environ.get("HOLYNB_TEST_MODELS") or HERE.parent.parent / ".pytest_cache/d/models")
        models.mkdir(parents=True, exist_ok=True)
        (Path(home) / "models").symlink_to(models, target_is_directory=True)
        subprocess.run(
            [sys.executable, "-m", "holynb.pool.models.embedded", "--home", home], env=env, check=True, capture_output=True, timeout=600
        )
        started = time.perf_counter()
        command = [str(Path(sys.executable).with_name("holynb"))]
        done = subprocess.run(
            [*command, "demo"], env=env, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL
        )
        took = time.perf_counter() - started
        subprocess.run([*command, "pool", "stop", "smollm2-135m"], env=env, capture_output=True, timeout=60, check=False)
    return {"seconds": took, "rc": done.returncode, "tail": done.stdout[-1500:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="an eighth of the requests, one round: shows that everything runs")
    parser.add_argument("--only", default="", help="names of scenes (by their start), load, memory, demo")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    only = {w.strip() for w in args.only.split(",") if w.strip()}
    results: dict[str, Any] = {"machine": {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()}}
    for scene in SCENES:
        if only and not any(scene.name.startswith(w) for w in only):
            continue
        smaller = Scene(**{**vars(scene), "n": max(scene.c, scene.n // 8)}) if args.quick else scene
        results[scene.name] = play(smaller, 1 if args.quick else args.rounds)
        print(table(smaller, results[scene.name]) + "\n", flush=True)
    results |= session(only)
    results["machine"]["load_after"] = os.getloadavg()
    print("| budget | measured | wanted | |\n|---|---|---|---|")
    for what, value, wanted, met in targets(results):
        print(f"| {what} | {value:.3g} | {wanted:g} | {'met' if met else 'MISSED'} |")
    for name in ("load", "memory", "demo"):
        print(f"{name}: {json.dumps(results.get(name))}") if name in results else None
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
