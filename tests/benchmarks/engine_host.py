"""What the host does for a decode step: plan it, fill the device's integers, take its tokens. No device; microseconds a step, 256 rows.

python tests/benchmarks/engine_host.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.inputs import DecodeBatch
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.protocol import Job

ROWS, PROMPT, NEW = 256, 128, 128


class Anew(DecodeBatch):
    """A DecodeBatch that remembers nothing from one step to the next."""

    def fill(self, seqs: list[Seq], *, mixed: bool = False) -> bool:
        return super().fill(seqs, mixed=True)


def measure(lanes: int, kind: type[DecodeBatch]) -> dict[str, float]:
    """Microseconds a step of planning, lanes and commit, in the steps that decode alone."""
    scheduler = BatchScheduler(BlockAllocator(20_000, 16), BatchLimits(batch=ROWS, chunk=8192, max_len=2112), lanes)
    decode_batches = [kind(ROWS, 132, 16, token_offset=2 * ROWS * i) for i in range(lanes)]
    for i in range(ROWS):
        scheduler.add(Job(i, tuple(range(5, 5 + PROMPT)), NEW, 0.6, ignore_eos=True))
    in_flight: deque[Step] = deque()
    spent, steps = {"plan": 0.0, "lanes": 0.0, "commit": 0.0}, 0
    while not scheduler.idle:
        times = [time.perf_counter()]
        step = scheduler.plan()
        times.append(time.perf_counter())
        if step is not None:
            if step.decode:
                decode_batches[step.lane].fill(step.decode, mixed=step.mixed)
            decode_batches[step.lane].record_sampled(step.decode, [r.seq for r in step.prefill if r.samples], ROWS)
        times.append(time.perf_counter())
        if step is not None:
            in_flight.append(step)
        while len(in_flight) > (lanes if step is not None else max(0, len(in_flight) - 1)):
            done = in_flight.popleft()
            scheduler.commit(done, [7] * len(done.sampled))
        times.append(time.perf_counter())
        if step is not None and step.decode and not step.prefill:
            steps += 1
            for name, (a, b) in zip(spent, pairwise(times), strict=True):
                spent[name] += b - a
    return {name: 1e6 * seconds / steps for name, seconds in spent.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for lanes in (1, 2, 3, 4):
        for name, kind in {"filled anew": Anew, "kept": DecodeBatch}.items():
            found = measure(lanes, kind)
            print(
                f"{lanes} under way, {ROWS // lanes} rows a step, lanes {name}: " + ", ".join(f"{k} {v:.0f}" for k, v in found.items()),
                "µs",
                flush=True,
            )


if __name__ == "__main__":
    main()
