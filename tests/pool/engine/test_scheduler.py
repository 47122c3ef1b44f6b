"""The scheduler alone, over a model that answers with arithmetic: no token lost or said twice, blocks freed exactly once."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.fit import plan
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.protocol import Emit, Job


def job(n: int, prompt: int = 5, new: int = 4, **more: object) -> Job:
    return Job(n, tuple(range(100 * n, 100 * n + prompt)), new, **more)  # type: ignore[arg-type]


def scheduler(
    blocks: int = 64,
    size: int = 4,
    *,
    share: bool = True,
    windows: tuple[int, ...] = (0,),
    lanes: int = 1,
    max_pending: int = 1,
    **limits: int,
) -> BatchScheduler:
    return BatchScheduler(
        BlockAllocator(blocks, size, share=share, windows=windows),
        replace(BatchLimits(batch=8, chunk=16, max_len=200), **limits),
        lanes,
        max_pending,
    )


def truth(seq: Seq, index: int) -> int:
    """The token that this model says at a place of a sequence."""
    return (seq.job.id * 7919 + index * 31) % 1000 + 10


class Model:
    """Runs steps and holds the cache to what the scheduler says: reading a place that nobody wrote fails."""

    def __init__(self, batch: BatchScheduler) -> None:
        self.batch = batch
        self.slots: dict[int, tuple[int, int, int]] = {}

    def tokens(self, step: Step) -> list[int]:
        blocks = self.batch.blocks
        size = blocks.size
        rows = [(s, s.cached - 1, 1) for s in step.decode] + [(r.seq, r.start, r.count) for r in step.prefill]
        for seq, start, count in rows:
            for at in range(start, start + count):
                value = seq.tokens[at] if at < len(seq.tokens) else truth(seq, at)
                for group, table in enumerate(seq.tables):
                    self.slots[table[at // size] * size + at % size] = (group, at, value)
        for seq, start, count in rows:
            for group, window in enumerate(blocks.windows):
                table = seq.tables[group]
                for at in range(max(0, start + 1 - window) if window else 0, start + count):
                    value = seq.tokens[at] if at < len(seq.tokens) else truth(seq, at)
                    assert self.slots[table[at // size] * size + at % size] == (group, at, value)
                    assert blocks.refs[table[at // size]], "what is read is held"
        return [truth(s, s.size - 1) for s in step.sampled]


def run(batch: BatchScheduler, ahead: int = 0, steps: int = 10_000, model: Model | None = None) -> dict[int, list[Emit]]:
    """To the end, with `ahead` steps in flight."""
    model, said, in_flight = model or Model(batch), {}, []
    for _ in range(steps):
        step = batch.plan()
        if step is not None:
            in_flight.append((step, model.tokens(step)))
        elif not in_flight:
            assert batch.idle
            assert batch.blocks.free == batch.blocks.total
            return said
        while len(in_flight) > (ahead if step is not None else 0):
            for emit in batch.commit(*in_flight.pop(0)):
                said.setdefault(emit.id, []).append(emit)
    raise AssertionError("no end in sight")


def expected(j: Job) -> list[int]:
    seq = Seq(j)
    return [truth(seq, len(j.ids) + i) for i in range(j.max_new)]


def check(jobs: list[Job], said: dict[int, list[Emit]]) -> None:
    for j in jobs:
        assert [t for e in said[j.id] for t in e.tokens] == expected(j)
        assert [e.finish for e in said[j.id] if e.finish] == ["length"]


@pytest.mark.parametrize("ahead", [0, 1])
def test_every_row_gets_its_tokens(ahead: int) -> None:
    batch, jobs = scheduler(), [job(i, prompt=3 + 5 * i, new=1 + i) for i in range(12)]
    for j in jobs:
        batch.add(j)
    check(jobs, run(batch, ahead))
    assert (batch.tokens_in, batch.tokens_out) == (sum(len(j.ids) for j in jobs), sum(j.max_new for j in jobs))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_full_cache_preempts_without_loss(ahead: int) -> None:
    batch, jobs = scheduler(blocks=12), [job(i, prompt=6, new=30) for i in range(6)]
    for j in jobs:
        batch.add(j)
    check(jobs, run(batch, ahead))
    assert batch.preempted > 0


def test_a_long_prompt_is_cut_and_decoding_goes_on_beside_it() -> None:
    batch = scheduler(chunk=8)
    batch.add(job(0, prompt=4, new=20))
    batch.commit(step, Model(batch).tokens(step)) if (step := batch.plan()) else None
    batch.add(job(1, prompt=30, new=2))
    mixed = []
    for _ in range(4):
        step = batch.plan()
        assert step is not None
        mixed.append((len(step.decode), sum(r.count for r in step.prefill)))
        batch.commit(step, [1] * len(step.sampled))
    assert mixed == [(1, 8), (1, 8), (1, 8), (1, 6)]


def test_rows_of_one_template_share_their_head() -> None:
    head = tuple(range(40))
    batch, jobs = scheduler(chunk=200), [Job(i, (*head, 500 + i), 3) for i in range(5)]
    for j in jobs:
        batch.add(j)
    step = batch.plan()
    assert step is not None
    assert [r.count for r in step.prefill] == [41, 1, 1, 1, 1]
    assert batch.tokens_shared == 160
    model = Model(batch)
    first = batch.commit(step, model.tokens(step))
    said = run(batch, model=model)
    for emit in reversed(first):
        said[emit.id].insert(0, emit)
    check(jobs, said)


@pytest.mark.parametrize("ahead", [0, 1])
def test_what_a_window_has_left_is_free_for_others(ahead: int) -> None:
    batch, jobs = scheduler(blocks=24, windows=(8,), max_pending=1 + ahead), [job(i, prompt=6, new=60) for i in range(6)]
    for j in jobs:
        batch.add(j)
    check(jobs, run(batch, ahead))
    assert batch.preempted == 0, "without windows six rows of 66 tokens take 102 blocks"
    alone = scheduler(windows=(8,))
    alone.add(job(0, prompt=50, new=30))
    model, held = Model(alone), []
    while (step := alone.plan()) is not None:
        alone.commit(step, model.tokens(step))
        held.append(alone.blocks.total - alone.blocks.free)
    assert max(held[4:-1]) <= 8 // 4 + 2, "a window, the block that is filled, and the one that it begins in"
    assert held[-1] == 0


def test_a_beginning_that_a_window_has_left_is_shared_until_it_is_used_again() -> None:
    batch, head = scheduler(windows=(8,), blocks=40), tuple(range(900, 932))
    model = Model(batch)
    for n, shared in ((0, 0), (1, 32), (2, 64)):
        batch.add(Job(n, (*head, n), 12))
        run(batch, model=model)
        assert batch.tokens_shared == shared
    batch.add(Job(3, tuple(range(100, 250)), 4))  # takes every block, the beginning's first too
    run(batch, model=model)
    batch.add(Job(4, (*head, 4), 12))
    run(batch, model=model)
    assert batch.tokens_shared == 64


def test_groups_that_slide_give_back_what_their_windows_left_and_those_that_see_all_keep_it() -> None:
    """A long prompt beside others never holds more than its windows and a chunk where they slide."""
    batch = scheduler(windows=(0, 8, 8), blocks=200, chunk=16)
    model, held = Model(batch), []
    batch.add(job(0, prompt=120, new=30))
    while (step := batch.plan()) is not None:
        batch.commit(step, model.tokens(step))
        held.append(batch.blocks.total - batch.blocks.free)
    assert max(held[:8]) <= 30 + 2 * (16 // 4 + 8 // 4 + 1), "all of the prompt once, twice a chunk and a window"
    assert max(held[8:-1]) <= -(-150 // 4) + 2 * (8 // 4 + 2)
    assert held[-1] == 0


def test_a_beginning_longer_than_the_windows_is_shared_by_all_groups() -> None:
    batch, head = scheduler(windows=(0, 8, 8), blocks=90), tuple(range(900, 940))
    model = Model(batch)
    for n, shared in ((0, 0), (1, 40), (2, 80)):
        batch.add(Job(n, (*head, n), 12))
        check([Job(n, (*head, n), 12)], run(batch, model=model))
        assert batch.tokens_shared == shared
    longer = (*head, *(batch_token(2, i) for i in range(41, 53)))
    batch.add(Job(2, (*longer[:40], 2, *longer[40:], 7), 4))
    run(batch, model=model)
    assert batch.tokens_shared > 120, "an answer is a beginning, too"


def batch_token(job_id: int, index: int) -> int:
    return truth(Seq(Job(job_id, (0,), 1)), index)


def test_a_row_that_fits_its_windows_is_taken_although_its_tokens_are_more_than_the_blocks() -> None:
    batch, long = scheduler(windows=(8,), blocks=6), job(0, prompt=100, new=50)
    batch.add(long)
    check([long], run(batch))


def test_the_end_token_stops_and_is_not_said() -> None:
    j = job(3, new=10)
    stop = expected(j)[2]
    for ahead in (0, 1):
        batch = scheduler()
        batch.add(replace(j, eos=(stop,)))
        said = run(batch, ahead)[3]
        assert [t for e in said for t in e.tokens] == expected(j)[:2]
        assert said[-1].finish == "stop"
    batch = scheduler()
    batch.add(replace(j, eos=(stop,), ignore_eos=True))
    check([j], run(batch))


def test_what_can_never_fit_is_refused_with_the_sizes() -> None:
    batch = scheduler(blocks=4)
    for wrong, says in (
        (job(0, prompt=15, new=2), "15 prompt tokens and 2 to write.* 16 that the KV cache"),
        (job(0, prompt=190, new=20), "200 that one sequence"),
        (job(0, prompt=0), "0 prompt tokens"),
        (job(0, new=0), "0 to write"),
    ):
        with pytest.raises(ValueError, match=says):
            batch.add(wrong)
    batch.add(job(0, prompt=14, new=2))
    with pytest.raises(ValueError, match="here already"):
        batch.add(job(0))
    check([job(0, prompt=14, new=2)], run(batch))


def test_cancel_in_every_state() -> None:
    batch = scheduler(batch=2)
    for i in range(3):
        batch.add(job(i, new=9))
    step = batch.plan()
    assert step is not None
    tokens = Model(batch).tokens(step)
    batch.cancel(0)  # in flight
    batch.cancel(2)  # waiting
    batch.cancel(7)  # never seen
    emits = batch.commit(step, tokens)
    assert [s.job.id for s in batch.running] == [1]
    assert {e.id for e in emits} == {1}
    assert batch.plan() is not None


def test_memory_trouble_keeps_rows_marks_them_and_grows_back() -> None:
    batch, jobs = scheduler(share=True), [job(i, prompt=6, new=80) for i in range(8)]
    for j in jobs:
        batch.add(j)
    model, said, failed = Model(batch), {}, 0
    while (step := batch.plan()) is not None:
        if failed < 2 and len(step.decode) > 3:
            failed += 1
            emits = batch.fail(step)
            assert {e.note for e in emits} == {"oom"}
        else:
            emits = batch.commit(step, model.tokens(step))
        for emit in emits:
            said.setdefault(emit.id, []).append(emit)
        assert len(batch.running) <= 8
    check(jobs, said)
    assert batch.ooms == 2
    assert batch.batch_cap > 4, "it grew back"


def test_one_row_that_never_fits_ends_as_an_error() -> None:
    batch = scheduler()
    batch.add(job(0, prompt=40, new=4))
    seen: list[Emit] = []
    for _ in range(50):
        if (step := batch.plan()) is None:
            break
        seen += batch.fail(step)
    assert batch.idle
    assert seen[-1].finish == "error"
    assert [e.finish for e in seen[:-1]] == [None] * (len(seen) - 1)
    assert batch.blocks.free == batch.blocks.total


@pytest.mark.parametrize("windows", [(0,), (3,), (9,), (17,), (0, 9), (0, 3, 17), (5, 5)], ids=str)
@pytest.mark.parametrize(("lanes", "ahead"), [(1, 0), (1, 1), (2, 1), (2, 2), (4, 3), (4, 4)])
@pytest.mark.parametrize("seed", range(2))
def test_any_traffic_comes_out_whole(seed: int, lanes: int, ahead: int, windows: tuple[int, ...]) -> None:
    """Arrivals, cancels, shared heads, full caches and failures in any order; on a pipeline the tokens are read as they come, or a step later."""
    dice = random.Random(seed)
    batch = scheduler(
        windows=windows,
        blocks=len(windows) * dice.choice([12, 20, 60]),
        chunk=dice.choice([3, 16, 64]),
        batch=dice.choice([1, 4, 8]),
        lanes=lanes,
        max_pending=ahead - lanes + 1,
    )
    heads = [tuple(dice.randrange(50) for _ in range(dice.randrange(20))) for _ in range(3)]
    jobs = [Job(i, (*dice.choice(heads), 60 + i), dice.randrange(1, 20)) for i in range(40)]
    model, said, gone, in_flight, left = Model(batch), {}, set(), [], list(jobs)
    while left or not batch.idle or in_flight:
        while left and dice.random() < 0.5:
            batch.add(left.pop())
        if dice.random() < 0.03:
            gone.add(dice.randrange(40))
            batch.cancel(max(gone))
        step = batch.plan()
        if step is not None and dice.random() < 0.05:
            while in_flight:
                gather(said, batch.commit(*in_flight.pop(0)))
            gather(said, batch.fail(step))
            continue
        if step is not None:
            in_flight.append((step, model.tokens(step)))
        while len(in_flight) > (ahead if step is not None else 0):
            gather(said, batch.commit(*in_flight.pop(0)))
    assert batch.blocks.free == batch.blocks.total
    for j in jobs:
        ends = [e.finish for e in said.get(j.id, []) if e.finish]
        assert len(ends) <= 1
        if ends == ["length"]:
            assert [t for e in said[j.id] for t in e.tokens] == expected(j)
        else:
            assert j.id in gone or ends == ["error"]


def test_a_pipelines_batches_take_turns_and_stay_even() -> None:
    batch = scheduler(blocks=400, batch=64, chunk=400, lanes=2)
    jobs = [job(i, new=40 if i % 2 else 5 + i // 8) for i in range(60)]  # the rows of one lane end early
    for j in jobs:
        batch.add(j)
    model, answers, lanes, in_flight = Model(batch), {}, [], []
    while (step := batch.plan()) is not None or in_flight:
        if step is not None:
            lanes.append((step.lane, len(step.decode)))
            in_flight.append((step, model.tokens(step)))
        leave = 2 if step is not None else len(in_flight) - 1
        while len(in_flight) > leave:
            gather(answers, batch.commit(*in_flight.pop(0)))
    check(jobs, answers)
    decoded = [pair for pair in lanes if pair[1]][4:-6]
    assert all(a[0] != b[0] for a, b in pairwise(decoded)), "one step each, in turn"
    assert all(abs(a[1] - b[1]) <= max(2, (a[1] + b[1]) / 3) for a, b in pairwise(decoded)), decoded


def test_one_row_on_a_pipeline_goes_on_as_soon_as_it_can() -> None:
    for max_pending in (0, 1):
        batch = scheduler(lanes=3, max_pending=max_pending)
        batch.add(job(0, new=6))
        check([job(0, new=6)], run(batch, 2 + max_pending))


def test_a_pipeline_fills_with_half_of_a_lanes_share() -> None:
    batch = scheduler(lanes=2)
    batch.add(job(0, prompt=32))
    steps = [batch.plan() for _ in range(2)]
    assert [[(c.start, c.count) for c in step.prefill] for step in steps if step] == [[(0, 4)], [(4, 4)]]


def test_a_grammar_on_a_pipeline_waits_for_every_token() -> None:
    batch = scheduler(lanes=2)
    batch.add(replace(job(0, 4, new=6), grammar="start: /x/"))
    step = batch.plan()
    assert step is not None
    assert batch.plan() is None, "what it may say next depends on what it says now"
    batch.commit(step, [7])
    assert batch.plan() is not None


def gather(said: dict[int, list[Emit]], emits: list[Emit]) -> None:
    for emit in emits:
        said.setdefault(emit.id, []).append(emit)


def test_on_a_cpu_rows_decode_in_every_step_beside_a_long_prompt_and_no_step_takes_much_of_it() -> None:
    """A step of 1,024 prompt tokens took a CPU 4 to 13 s, and five rows of 33 tokens 40 s beside one of 3,031."""
    batch = BatchScheduler(BlockAllocator(400, 16), plan.limits_of(plan.spec_of_size("135M"), cpu=True))
    model, jobs = Model(batch), [Job(i, tuple(range(100 * i, 100 * i + 33)), 33, ignore_eos=True) for i in range(5)]
    for one in jobs:
        batch.add(one)
    step = batch.plan()
    assert step is not None
    batch.commit(step, model.tokens(step))
    batch.add(Job(9, tuple(range(3031)), 1, ignore_eos=True))
    ended = steps = 0
    while ended < len(jobs):
        step = batch.plan()
        assert step is not None
        assert {s.job.id for s in step.decode} >= set(range(5)), "each has its next token"
        assert sum(chunk.count for chunk in step.prefill) <= 256
        ended += sum(e.finish is not None and e.id < 5 for e in batch.commit(step, model.tokens(step)))
        steps += 1
    assert steps == 32
