"""The integers a GPU is fed, against the sequences they stand for: what changed is said, what did not is not sent again."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.inputs import DecodeBatch, pack_prefill, sampling_fields
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.sequence import PrefillChunk, Seq, Step
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.protocol import Job

PAGE = 4


def seq(number: int, prompt: int, blocks: list[int], **more: object) -> Seq:
    """A sequence whose prompt is in the cache, and whose first token was just sampled."""
    made = Seq(Job(number, tuple(range(prompt)), 50, **more))  # type: ignore[arg-type]
    made.tokens.append(1000 + number)
    made.blocks, made.cached, made.prefilled, made.pending = blocks, prompt + 1, True, 1
    return made


def grow(*seqs: Seq) -> None:
    """As the scheduler does for the next step, with the last token still on its way."""
    for one in seqs:
        if one.cached == len(one.blocks) * PAGE:
            one.blocks.append(100 + one.job.id)
        one.cached += 1
        one.pending = 2


def test_rows_are_said_whole_at_first_and_then_only_as_they_grow() -> None:
    decode_batch, a, b = DecodeBatch(4, 8, PAGE), seq(1, 5, [3, 7]), seq(2, 2, [9])
    assert decode_batch.fill([a, b])
    assert decode_batch.inputs[:, :2].tolist() == [[-1, -1], [1001, 1002], [5, 2], [-1, -1]]
    assert [decode_batch.table[i, :2].tolist() for i in (0, 1)] == [[3, 7], [9, 0]]
    decode_batch.record_sampled([a, b], [], 4)
    grow(a, b)
    assert not decode_batch.fill([a, b]), "the same rows: nothing but positions"
    assert decode_batch.inputs[0, :2].tolist() == [0, 1]
    assert decode_batch.inputs[2, :2].tolist() == [6, 3]
    grow(a, b)
    assert not decode_batch.fill([a, b])
    assert decode_batch.inputs[3, :2].tolist() == [-1, 102], "a row that came to a page's end has a new block"
    assert decode_batch.table[1, :2].tolist() == [9, 102]


def test_a_row_that_goes_takes_its_place_along_and_the_others_keep_their_tokens() -> None:
    decode_batch, a, b, c = DecodeBatch(4, 8, PAGE), seq(1, 5, [3, 7]), seq(2, 2, [9]), seq(3, 6, [4, 5], temperature=0.5, seed=-1)
    decode_batch.fill([a, b])
    decode_batch.record_sampled([a, b], [c], 4)
    grow(b)
    c.pending = 2
    assert decode_batch.fill([c, b])
    assert decode_batch.inputs[0, :2].tolist() == [4, 1], "where each row's token lies since the step before"
    assert decode_batch.inputs[2, :2].tolist() == [6, 3]
    assert decode_batch.table[0, :2].tolist() == [4, 5]
    assert decode_batch.sampling[0, :2].view(np.float32).tolist() == [0.5, 0.0]
    decode_batch.reset()
    a.pending = b.pending = 1
    assert decode_batch.fill([a, b]), "after a failure every row comes from the host"
    assert decode_batch.inputs[0, :2].tolist() == [-1, -1]


def test_the_longest_row_comes_first_and_every_row_once() -> None:
    dice, decode_batch = random.Random(1), DecodeBatch(16, 64, PAGE)
    rows: list[Seq] = []
    for step in range(60):
        rows = [r for r in rows if dice.random() > 0.05]
        while len(rows) < 16 and dice.random() < 0.4:
            n = dice.randint(1, 100)
            rows.append(seq(step * 100 + len(rows), n, list(range(-(-(n + 1) // PAGE)))))
        if not rows:
            continue
        decode_batch.fill(rows)
        decode_batch.record_sampled(rows, [], 16)
        order, lengths = decode_batch.order.tolist(), [r.cached for r in rows]
        assert sorted(order) == list(range(16))
        assert set(order[: len(rows)]) == set(range(len(rows)))
        assert [lengths[i] for i in order[: len(rows)]] == sorted(lengths, reverse=True)
        grow(*rows)


def test_a_rows_guesses_stand_behind_it_as_rows_with_its_blocks() -> None:
    decode_batch, a, b = DecodeBatch(8, 8, PAGE, groups=2), seq(1, 5, [3, 7, 4]), seq(2, 2, [9], temperature=0.5, seed=7)
    a.tables, b.tables = [a.blocks, [20, 21, 22]], [b.blocks, [30]]
    assert decode_batch.fill_guesses([a, b], [(51, 52, 53), ()])
    assert decode_batch.inputs[:, :5].tolist() == [[-1] * 5, [1001, 51, 52, 53, 1002], [5, 6, 7, 8, 2], [-1] * 5]
    assert decode_batch.table[:5, :3].tolist() == [[3, 7, 4]] * 4 + [[9, 0, 0]]
    assert decode_batch.more_tables[0, :5, :3].tolist() == [[20, 21, 22]] * 4 + [[30, 0, 0]]
    assert (decode_batch.more_blocks[:, :5] == -1).all()
    assert decode_batch.columns == 3
    assert decode_batch.sampling[:, :5].tolist() == sampling_fields([a, a, a, a, b])[:3].tolist() + decode_batch.sampling[3:, :5].tolist()
    assert decode_batch.order.tolist() == [3, 2, 1, 0, 4, 5, 6, 7], "the longest first"
    a.blocks.pop()
    a.tables[1].pop()
    a.tokens += [51, 52]
    a.cached, a.pending = a.cached + 2, 1
    assert decode_batch.fill([a, b]), "what is next is said whole again"
    assert decode_batch.inputs[:3, :2].tolist() == [[-1, -1], [52, 1002], [7, 2]]
    assert decode_batch.table[:2, :2].tolist() == [[3, 7], [9, 0]]


def test_how_a_row_is_sampled_survives_the_journey_as_bits() -> None:
    jobs = [Seq(Job(i, (1, 2, 3), 9, t, p, k, s)) for i, (t, p, k, s) in enumerate([(0.7, 0.9, 40, 2**62 + 5), (-1.0, 1.0, 0, None)])]
    how = sampling_fields(jobs)
    assert how[0].view(np.float32).tolist() == [np.float32(0.7), 0.0], "below zero is greedy"
    assert how[1].view(np.float32).tolist() == [np.float32(0.9), 1.0]
    assert how[2].tolist() == [40, 0]
    assert how[3].tolist() == [2, 2], "the place being sampled"
    assert int(how[5, 0]) << 32 | int(how[4, 0]) & 0xFFFFFFFF == 2**62 + 5


def test_chunks_lie_one_after_the_other_with_their_tiles_and_spans() -> None:
    a, b = Seq(Job(1, tuple(range(100, 110)), 9)), Seq(Job(2, (7, 8, 9), 9))
    a.tables, b.tables = [[5, 2, 8]], [[1]]
    chunk = pack_prefill([PrefillChunk(a, 4, 6), PrefillChunk(b, 0, 3, samples=False)], PAGE, 4)
    assert chunk.tokens[0].tolist() == [*range(104, 110), 7, 8, 9]
    assert chunk.tokens[1].tolist() == [*range(4, 10), 0, 1, 2]
    assert chunk.tokens[2].tolist() == [8, 9, 10, 11, 32, 33, 4, 5, 6]
    assert chunk.tiles.tolist() == [[0, 0], [0, 4], [1, 0]]
    assert chunk.spans.tolist() == [[0, 6, 10], [6, 3, 3]]
    assert chunk.last.tolist() == [5], "only the row that samples"
    assert chunk.table.tolist() == [[5, 2, 8], [1, 0, 0]]
    assert (chunk.more_slots.shape, chunk.more_tables.shape) == ((0, 9), (0, 2, 3))
    a.tables, b.tables = [[5, 2, 8], [6, 7, 9]], [[1], [4]]
    chunk = pack_prefill([PrefillChunk(a, 4, 6), PrefillChunk(b, 0, 3, samples=False)], PAGE, 4)
    assert chunk.tokens[2].tolist() == [8, 9, 10, 11, 32, 33, 4, 5, 6]
    assert chunk.more_slots.tolist() == [[28, 29, 30, 31, 36, 37, 16, 17, 18]]
    assert chunk.more_tables.tolist() == [[[6, 7, 9], [4, 0, 0]]]


class Device:
    """What a pipeline's first stage does with the integers, over a model that answers with arithmetic: it keeps each lane's last tokens, and reads them from there."""

    def __init__(self, lanes: int, rows: int, width: int, groups: int = 1) -> None:
        self.lanes = [DecodeBatch(rows, width, PAGE, 2 * rows * i, groups) for i in range(lanes)]
        self.kept = np.full((lanes, 2 * rows), -7)
        self.rows = rows
        self.from_device = 0

    def run(self, step: Step) -> list[int]:
        decode_batch, n = self.lanes[step.lane], len(step.decode)
        if step.decode:
            decode_batch.fill(step.decode, mixed=step.mixed)
        for i, one in enumerate(step.decode):
            source, known, position, _ = decode_batch.inputs[:, i].tolist()
            assert position == one.cached - 1
            assert decode_batch.table[i, : len(one.blocks)].tolist() == one.blocks
            for table, its, new, first in zip(
                decode_batch.more_tables, one.tables[1:], decode_batch.more_blocks, one.unseen[1:], strict=True
            ):
                assert table[i, first : len(its)].tolist() == its[first:]
                assert new[i] in (-1, its[-1])
                assert new[i] >= 0 or decode_batch.inputs[3, i] < 0, "they come to a block's end together"
            assert decode_batch.columns >= len(one.blocks)
            assert (self.kept.reshape(-1)[source] if source >= 0 else known) == self.token(one, position)
            assert decode_batch.sampling[0, i] == sampling_fields([one])[0, 0]
            self.from_device += source >= 0
        assert sorted(decode_batch.order.tolist()) == list(range(self.rows))
        prefilled = [r.seq for r in step.prefill if r.samples]
        said = [self.token(s, s.size - 1) for s in step.sampled]
        places = decode_batch.record_sampled(step.decode, prefilled, self.rows)
        assert len(places) == n + len(prefilled)
        self.kept[step.lane] = -7
        self.kept[step.lane, places] = said
        return said

    @staticmethod
    def token(one: Seq, place: int) -> int:
        return one.tokens[place] if place < len(one.job.ids) else (one.job.id * 7919 + place * 31) % 1000 + 10


@pytest.mark.parametrize(("lanes", "ahead"), [(1, 1), (2, 1), (2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("seed", range(6))
def test_every_row_of_every_lane_reads_its_own_token(lanes: int, ahead: int, seed: int) -> None:
    dice = random.Random(seed)
    windows = (0, 9, 5) if seed > 3 else (0,)
    # few: rows are put back and come again with other blocks
    blocks = BlockAllocator((16 if seed % 2 else 400) * len(windows), PAGE, windows=windows)
    batch = BatchScheduler(blocks, BatchLimits(batch=12, chunk=24, max_len=80), lanes, ahead - lanes + 1)
    device, under_way, decoded, steps = Device(lanes, 12, 20, len(windows)), deque[tuple[Step, list[int]]](), 0, 0
    left = [
        Job(i, tuple(dice.randrange(3, 90) for _ in range(dice.randrange(1, 20))), dice.randrange(1, 40), dice.random(), seed=i)
        for i in range(50)
    ]
    while left or not batch.idle or under_way:
        for job in left[: dice.randrange(4)]:
            batch.add(job)
            left.remove(job)
        if dice.random() < 0.03 and batch.running:
            batch.cancel(dice.choice(batch.running).job.id)
        step = batch.plan()
        if step is not None:
            decoded += len(step.decode)
            under_way.append((step, device.run(step)))
        leave = ahead if step is not None else max(0, len(under_way) - 1)
        while len(under_way) > leave:
            batch.commit(*under_way.popleft())
        steps += 1
        assert steps < 5000
    assert decoded > 400
    assert device.from_device > decoded / 2, "tokens come from the device as a rule, and from the host where they must"
    if seed % 2:
        assert batch.preempted, "the case that needs it was met"


def test_a_row_that_stays_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.pool.engine import inputs as module

    fresh: list[int] = []
    real = module.sampling_fields
    monkeypatch.setattr(module, "sampling_fields", lambda seqs: fresh.append(len(seqs)) or real(seqs))
    batch, device = BatchScheduler(BlockAllocator(400, PAGE), BatchLimits(batch=20, chunk=400, max_len=80), 2), Device(2, 20, 20)
    for i in range(20):
        batch.add(Job(i, (5, 6, 7), 60, ignore_eos=True))
    under_way: deque[tuple[Step, list[int]]] = deque()
    while not batch.idle:
        step = batch.plan()
        if step is not None:
            decode_batch, decode = device.lanes[step.lane], step.decode
            if decode:
                decode_batch.fill(decode, mixed=step.mixed)
            decode_batch.record_sampled(decode, [r.seq for r in step.prefill if r.samples], 20)
            under_way.append((step, [9] * len(step.sampled)))
        while len(under_way) > (2 if step is not None else 0):
            batch.commit(*under_way.popleft())
    assert sum(fresh) <= 60, "each row's sampling is written once or twice, not in each of sixty steps"


def test_a_schedulers_own_rows_are_what_the_lanes_say() -> None:
    """Rows join, grow and leave as the scheduler has them; what the lanes hold is read back and compared with the sequences themselves."""
    batch = BatchScheduler(BlockAllocator(60, PAGE), BatchLimits(batch=5, chunk=16, max_len=60))
    dice, decode_batch = random.Random(2), DecodeBatch(5, 20, PAGE)
    for i in range(14):
        batch.add(Job(i, tuple(dice.randrange(50) for _ in range(dice.randint(1, 12))), dice.randint(1, 20)))
    while (step := batch.plan()) is not None:
        rows = step.decode
        if rows:
            decode_batch.fill(rows)
            for i, one in enumerate(rows):
                assert decode_batch.inputs[2, i] == one.cached - 1
                assert decode_batch.table[i, : len(one.blocks)].tolist() == one.blocks
        decode_batch.record_sampled(rows, [r.seq for r in step.prefill if r.samples], 5)
        batch.commit(step, [dice.randrange(50) for _ in step.sampled])
