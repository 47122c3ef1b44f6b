"""Clients take turns by tokens: nobody starves, nobody gets ahead, and one alone is served in order."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.engine.turns import Turns
from holynb.pool.fit import BatchLimits
from holynb.pool.protocol import Job

MOST = 30
#: (client, or None for a turn; tokens of the prompt; tokens of the answer)
STEPS = st.lists(st.tuples(st.sampled_from([None, None, "", "ann", "bob"]), st.integers(1, MOST), st.integers(0, MOST)), max_size=120)


def job(n: int, client: str = "", prompt: int = 4, new: int = 1) -> Job:
    return Job(n, (1,) * prompt, new, client=client)


@given(STEPS)
def test_of_two_who_wait_neither_is_ahead_by_more_than_a_row_of_each(steps: list[tuple[str | None, int, int]]) -> None:
    """In every stretch of time in which both wait: the bound of start-time fair queueing, of which it follows that nobody starves."""
    turns: Turns[Job] = Turns(lambda one: one)
    waits: dict[str, deque[Job]] = {"": deque(), "ann": deque(), "bob": deque()}
    lead: dict[tuple[str, str], list[int]] = {}  # since both wait: what the first was given more than the second, least and now
    for n, (client, prompt, answer) in enumerate(steps):
        if client is not None:
            waits[client].append(job(n, client, prompt, answer))
            turns.append(waits[client][-1])
        elif turns:
            first, taken = turns.first, turns.take()
            assert first is taken
            assert taken is waits[taken.client].popleft(), "in order"
            turns.count(taken.client, taken.max_new)
            for pair, (least, now) in list(lead.items()):
                now += (len(taken.ids) + taken.max_new) * ((pair[0] == taken.client) - (pair[1] == taken.client))
                lead[pair] = [min(least, now), now]
                assert now - min(least, now) <= 4 * MOST
        lead = {(a, b): lead.get((a, b), [0, 0]) for a in waits for b in waits if a != b and waits[a] and waits[b]}
        assert len(turns) == sum(map(len, waits.values()))


@given(st.lists(st.sampled_from(["add", "take", "back", "remove"]), max_size=80))
def test_one_alone_is_served_as_by_a_plain_queue(steps: list[str]) -> None:
    turns: Turns[Job] = Turns(lambda one: one)
    plain, had = deque[Job](), list[Job]()
    for n, step in enumerate(steps):
        if step == "add":
            plain.append(job(n))
            turns.append(plain[-1])
        elif step == "take" and plain:
            had.append(plain.popleft())
            assert turns.take() is had[-1]
        elif step == "back" and had:
            plain.appendleft(had.pop())
            turns.put_back(plain[0])
        elif step == "remove" and plain:
            row = plain[len(plain) // 2]
            plain.remove(row)
            turns.remove(row)
        assert len(turns) == len(plain)
        assert not plain or turns.first is plain[0]


def test_a_question_goes_before_the_rest_of_a_long_run_and_nobody_saves_up_turns() -> None:
    batch = BatchScheduler(BlockAllocator(64, 4), BatchLimits(batch=2, chunk=16, max_len=200))
    for n in range(50):
        batch.add(job(n, "ann"))
    order: list[int] = []

    def step() -> None:
        planned = batch.plan()
        assert planned is not None
        order.extend(seq.job.id for seq in planned.admitted)
        batch.commit(planned, [7] * len(planned.sampled))

    step()
    batch.add(job(100, "bob"))
    step()
    assert order == [0, 1, 100, 2], "48 rows came before it"
    for n in range(101, 105):
        batch.add(job(n, "bob"))
    while not batch.idle:
        step()
    assert order.index(104) < 14, "half of the turns"
    assert order[4:8] != [101, 102, 103, 104], "though bob had none before"
    assert sorted(order) == [*range(50), *range(100, 105)]
