"""What is left of the engine's rate on the way through a pool's server and `holynb.infer`, on CPU: the same prompts, in turn, medians.

    python tests/benchmarks/engine_through.py [--rows 48] [--new 64] [--rounds 5] [--models FOLDER]

Starts a pool of the embedded model in a home of its own. Wall seconds are what counts and what neighbours disturb; CPU seconds of all
processes that take part stand beside them. Each round has prompts of its own, so that no cache knows them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil


def prompts(rows: int, turn: int) -> list[str]:
    return [
        f"{turn}.{i}: Describe the town number {i * 7 + turn} to a visitor, with its river, its market and its people." for i in range(rows)
    ]


def alone(runner: Any, asked: list[tuple[int, ...]], eos: tuple[int, ...], new: int) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and tokens of the engine by itself."""
    from holynb.pool.protocol import Job

    wall, cpu, tokens = time.perf_counter(), time.process_time(), 0
    for i, ids in enumerate(asked):
        runner.add(Job(i, ids, new, eos=eos))
    while not runner.idle:
        tokens += sum(len(e.tokens) for e in runner.step())
    return time.perf_counter() - wall, time.process_time() - cpu, tokens


def through(asked: list[str], route: str, new: int, processes: list[psutil.Process]) -> tuple[float, float, int]:
    """The same of `holynb.infer`."""
    import holynb

    def spent() -> float:
        return sum(sum(p.cpu_times()[:2]) for p in processes)

    wall, cpu = time.perf_counter(), spent()
    frame = holynb.infer(asked, route, temperature=0, max_tokens=new, cache=False).wait().frame()
    took = time.perf_counter() - wall, spent() - cpu
    assert frame["error"].isna().all(), frame["error"]
    return *took, int(frame["tokens_out"].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 48), ("new", 64), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--models", type=Path, help="a home's folder of models (default: holynb's own)")
    said = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    from holynb.config import settings

    models = said.models or settings.home() / "models"
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "models").symlink_to(models.resolve(), target_is_directory=True)
        os.environ["HOLYNB_HOME"] = place
        measure(said, models / "smollm2-135m")


def measure(said: argparse.Namespace, folder: Path) -> None:
    from holynb import pools
    from holynb.pool.engine.runner import Runner
    from holynb.pool.server.tokenizer import ChatTokenizer

    runner, text = Runner(folder), ChatTokenizer(folder)
    info = pools.start()
    me = psutil.Process()
    # The supervisor's children are the server and its ranks: whoever carries the pool's name.
    inside = [p for p in psutil.process_iter() if p.pid != me.pid and any(f"holynb-pool:{info.name}" in a for a in safe(p))]
    ways: dict[str, list[tuple[float, float, int]]] = {"alone": [], "through": []}
    try:
        for turn in range(said.rounds + 1):
            for way in (list(ways), list(reversed(ways)))[turn % 2]:
                words = prompts(said.rows, turn * 10)
                if way == "alone":
                    ids = [tuple(text.encode_chat([{"role": "user", "content": w}])) for w in words]
                    done = alone(runner, ids, text.eos, said.new)
                else:
                    done = through(words, f"pool/{info.name}", said.new, [*inside, me])
                if turn:  # the first one warms
                    ways[way].append(done)
    finally:
        pools.stop("all")
    print(
        f"{said.rows} rows, up to {said.new} tokens each, {said.rounds} rounds\n\n| way | tokens | tok/s wall | of the engine's | tok per CPU s | of the engine's |"
    )
    print("|---|---|---|---|---|---|")
    base: tuple[float, float] | None = None
    for way, rounds in ways.items():
        wall, cpu = (statistics.median(r[2] / r[i] for r in rounds) for i in (0, 1))
        base = base or (wall, cpu)
        print(f"| {way} | {rounds[0][2]} | {wall:.1f} | {wall / base[0]:.2f} | {cpu:.1f} | {cpu / base[1]:.2f} |", flush=True)


def safe(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
