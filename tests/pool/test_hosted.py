"""A pipeline's lanes say the same as lanes that are filled anew in every step, whatever comes, goes, grows and is put back."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest

from holynb.pool.batch import Scheduler
from holynb.pool.cache import Blocks
from holynb.pool.hosted import Hosted
from holynb.pool.job import Job, Limits, Step
from holynb.pool.lanes import Lanes

LIMITS = Limits(batch=24, chunk=64, max_len=256)
WIDTH = LIMITS.max_len // 16


def same(hosted: Hosted, step: Step) -> None:
    """`hosted` beside lanes that know nothing."""
    plain = Lanes(LIMITS.batch, WIDTH, 16)
    n = len(step.decode)
    assert hosted.decode(step.decode)
    plain.decode(step.decode)
    assert hosted.used == plain.used
    assert (hosted.said[:, :n] == plain.said[:, :n]).all()
    for i, seq in enumerate(step.decode):
        assert hosted.table[i, : len(seq.blocks)].tolist() == seq.blocks
    # The position is made on the device; everything else of the sampling is the job's.
    assert (np.delete(hosted.how[:, :n], 3, 0) == np.delete(plain.how[:, :n], 3, 0)).all()
    assert sorted(hosted.order.tolist()) == list(range(LIMITS.batch))
    prefilled = [r.seq for r in step.prefill if r.samples]
    assert hosted.sampled(step.decode, prefilled, LIMITS.batch) == plain.sampled(step.decode, prefilled, LIMITS.batch)


@pytest.mark.parametrize("flights", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_as_filled_anew(flights: int, seed: int) -> None:
    dice = random.Random(seed)
    blocks = Blocks(13 if seed % 2 else 400, 16)  # few: rows are put back and come again with other blocks
    batch, hosted = Scheduler(blocks, LIMITS, flights), Hosted(flights, LIMITS.batch, WIDTH, 16)
    under_way: deque[Step] = deque()
    left = [
        Job(i, tuple(dice.randrange(3, 90) for _ in range(dice.randrange(1, 60))), dice.randrange(1, 80), dice.random(), seed=i, ignore_eos=True)
        for i in range(60)
    ]
    steps = decoded = 0
    while left or not batch.idle or under_way:
        for job in left[: dice.randrange(5)]:
            batch.add(job)
            left.remove(job)
        if dice.random() < 0.03 and batch.running:
            batch.cancel(dice.choice(batch.running).job.id)
        step = batch.plan()
        if step is not None:
            if step.decode:
                same(hosted, step)
                decoded += len(step.decode)
            under_way.append(step)
        while len(under_way) > (flights - 1 if step is not None else max(0, len(under_way) - 1)):
            done = under_way.popleft()
            batch.commit(done, [dice.randrange(3, 90) for _ in done.sampled])
        steps += 1
        assert steps < 5000
    assert decoded > 500
    if seed % 2:
        assert batch.preempted, "the case that needs it was met"


def test_a_row_that_stays_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.pool import hosted as module

    fresh: list[int] = []
    real = module.sampling
    monkeypatch.setattr(module, "sampling", lambda seqs: fresh.append(len(seqs)) or real(seqs))
    batch, lanes = Scheduler(Blocks(400, 16), LIMITS, 2), Hosted(2, LIMITS.batch, WIDTH, 16)
    for i in range(20):
        batch.add(Job(i, (5, 6, 7), 60, ignore_eos=True))
    under_way: deque[Step] = deque()
    while not batch.idle:
        step = batch.plan()
        if step is not None:
            if step.decode:
                lanes.decode(step.decode)
            under_way.append(step)
        while len(under_way) > (1 if step is not None else 0):
            done = under_way.popleft()
            batch.commit(done, [9] * len(done.sampled))
    assert sum(fresh) <= 40, "each row's sampling is written once or twice, not in each of sixty steps"


def test_a_step_that_failed_leaves_nothing() -> None:
    batch, lanes = Scheduler(Blocks(400, 16), LIMITS, 2), Hosted(2, LIMITS.batch, WIDTH, 16)
    for i in range(4):
        batch.add(Job(i, (5, 6, 7), 9, ignore_eos=True))
    first = batch.plan()
    assert first is not None
    batch.commit(first, [9] * len(first.sampled))
    step = batch.plan()
    assert step is not None
    same(lanes, step)
    lanes.table[:] = -7
    lanes.forget()
    same(lanes, step)
