"""The GPU's engine with several batches under way, as a pipeline's stage has them, says what the plain one says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ranks
import tiny

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton loads
pytest.importorskip("triton")

from holynb.pool.engine import graphs as module  # noqa: E402
from holynb.pool.engine.cache import BlockAllocator  # noqa: E402
from holynb.pool.engine.graphs import GraphExecutor  # noqa: E402
from holynb.pool.engine.pipeline import SingleStage  # noqa: E402
from holynb.pool.engine.runner import Runner  # noqa: E402
from holynb.pool.engine.scheduler import BatchScheduler  # noqa: E402
from holynb.pool.fit.limits import BatchLimits  # noqa: E402
from holynb.pool.protocol import Job  # noqa: E402

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
LIMITS = BatchLimits(batch=4, chunk=128, max_len=256)
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Turns(SingleStage):
    """A whole model that is treated as a pipeline's stage: more steps are launched before the tokens of one are known."""

    def __init__(self, lanes: int) -> None:
        self.lookahead = lanes - 1


@pytest.fixture(autouse=True)
def few_splits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter takes about a millisecond a program."""
    if DEVICE == "cpu":
        monkeypatch.setattr(module, "splits", lambda batch, heads: 2 if batch < 4 else 1)
    yield


def answers(folder: Path, lanes: int, blocks: int) -> dict[int, list[int]]:
    """What the jobs get, with so many steps under way (0: the plain engine)."""
    runner = Runner(folder, dtype="float32", device=DEVICE if lanes else "cpu", memory=0.1 if lanes and DEVICE != "cpu" else 0.9)
    runner.limits, runner.blocks = LIMITS, BlockAllocator(blocks, 16)
    runner.scheduler = BatchScheduler(runner.blocks, LIMITS, max(1, lanes))
    if lanes:
        was: Any = runner.executor
        runner.executor = GraphExecutor(was.model, was.kv, 16, LIMITS, stage=Turns(lanes))
        assert runner.executor.lookahead == lanes
    said: dict[int, list[int]] = {}
    left = [Job(i, tuple(p), 3 + 4 * i, 0.8 * (i % 2), seed=i, ignore_eos=True) for i, p in enumerate(tiny.prompts(6, longest=70))]
    while left or not runner.idle:
        for job in left[:2]:
            said[job.id] = []
            runner.add(job)
        left = left[2:]
        for emit in runner.step():
            said[emit.id] += emit.tokens
    if blocks < 20:
        assert runner.scheduler.preempted or lanes, "rows were put back"
    return said


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "blocks"), [(2, 64), (3, 64), (2, 9)])
def test_the_same_tokens_with_steps_under_way(lanes: int, blocks: int, tmp_path: Path) -> None:
    tiny.make("llama3", tmp_path)
    assert answers(tmp_path, lanes, blocks) == answers(tmp_path, 0, blocks)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"tensor": 2}, {"pipe": 2}, {"pipe": 2, "micro": 3}, {"tensor": 2, "pipe": 2}])
def test_ranks_of_kernels_say_what_one_process_says(how: dict[str, int], tmp_path: Path) -> None:
    """Sampled tokens go from the last stage's device to the others', with the hosts a step ahead; slices sum out of each other's memory."""
    if torch.cuda.is_available() and torch.cuda.device_count() < how.get("tensor", 1) * how.get("pipe", 1):
        pytest.skip("fewer GPUs than ranks")
    tiny.make("qwen3", tmp_path)
    asked: list[dict[str, Any]] = [
        {"id": i, "ids": p, "max_new": 3 + 2 * i, "temperature": 0.8 * (i % 2), "seed": i, "ignore_eos": True}
        for i, p in enumerate(tiny.prompts(5, longest=40))
    ]
    said = ranks.answers(tmp_path, [dict(job) for job in asked], engine="kernels", limit=280, **how)
    assert said == ranks.answers(tmp_path, asked)
