"""The order in which rows go to a pool: a beginning that several share is prefilled once, and the result stands in the order of the input."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.scheduler import BatchScheduler
from holynb.pool.fit import BatchLimits
from holynb.pool.protocol import Job
from holynb.run.prefix_order import BLOCK_CHARS, WINDOW, arranged, order, windows
from holynb.scheduler import WorkItem
from holynb.types import Message, Request, Route

POOL, HOSTED = Route("pool", "smollm2-135m"), Route("openai", "gpt-5.4")


def items(texts: list[str], route: Route = POOL) -> list[WorkItem]:
    return [WorkItem(Request(i, (Message("user", text),), route), ("t",)) for i, text in enumerate(texts)]


def documents(n: int, questions: int, chars: int = 1600) -> list[str]:
    """Rows of a table whose documents take turns."""
    rng = random.Random(3)
    pages = ["".join(rng.choices("abcdefgh ", k=chars)) for _ in range(n)]
    return [f"{page} question {q}" for q in range(questions) for page in pages]


def prefilled(texts: list[str], blocks: int) -> int:
    """Tokens that a pool with a KV cache of so many blocks puts through its model for these prompts; a token a character."""
    scheduler = BatchScheduler(BlockAllocator(blocks, 16), BatchLimits(batch=4, chunk=512, max_len=4096))
    for i, text in enumerate(texts):
        scheduler.add(Job(i, tuple(text.encode()), 2))
    while not scheduler.idle:
        step = scheduler.plan()
        assert step is not None
        scheduler.commit(step, [65] * len(step.sampled))
    return scheduler.tokens_in - scheduler.tokens_shared


def test_documents_that_take_turns_are_prefilled_once_each():
    texts = documents(8, 6)
    ordered = [texts[i] for i in order(texts)]
    room = 4 * 1600 // 16 + 40  # for half of the documents
    before, after = prefilled(texts, room), prefilled(ordered, room)
    assert before > 40 * 1600, "each evicts what another comes back for"
    assert after < 8 * 1700 + 48 * 40
    assert prefilled(ordered, 10_000) == prefilled(texts, 10_000), "where all has room, the order makes no difference"


def test_siblings_keep_the_input_s_order_and_so_do_rows_that_share_nothing():
    texts = documents(3, 4)
    assert order(texts) == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert order(["b", "a", "c"]) == [0, 1, 2]
    head = "rules " * 50
    assert order([f"{head}{word}" for word in ("z", "a", "m", "b")]) == [0, 1, 2, 3]


def test_only_what_goes_to_a_pool_is_moved_and_not_far():
    texts = documents(3, 4)
    assert [i.request.row for i in arranged(items(texts, HOSTED))] == list(range(12))
    assert [i.request.row for i in arranged(items(texts))][:4] == [0, 3, 6, 9]
    long = arranged(items(documents(2, WINDOW, 70)))
    assert all(item.request.row // WINDOW == place // WINDOW for place, item in enumerate(long))


@given(st.lists(st.lists(st.sampled_from(["a" * BLOCK_CHARS, "b" * BLOCK_CHARS, "c"]), max_size=5).map("".join), max_size=24))
def test_every_row_goes_once_and_shared_beginnings_are_never_torn_apart(texts: list[str]):
    rows = order(texts)
    assert sorted(rows) == list(range(len(texts)))
    for blocks in range(1, 5):
        heads = [texts[i][: blocks * BLOCK_CHARS] for i in rows if len(texts[i]) > blocks * BLOCK_CHARS]
        runs = [head for i, head in enumerate(heads) if i == 0 or heads[i - 1] != head]
        assert len(runs) <= len(set(runs)), "one stretch for each"


def test_rows_that_are_made_as_they_are_sent_are_arranged_a_window_at_a_time():
    texts = documents(WINDOW // 4, 6, chars=2 * BLOCK_CHARS)
    made: list[int] = []

    def supply(route: Route):
        for item in items(texts, route):
            made.append(item.request.row)
            yield item

    first = windows(supply(POOL), POOL)
    taken = [next(first)]
    assert len(made) == WINDOW, "one window and no more is made"
    taken += first
    assert taken == arranged(items(texts))
    assert [t.request.row for t in taken] != sorted(t.request.row for t in taken)
    made.clear()
    hosted = windows(supply(HOSTED), HOSTED)
    assert next(hosted).request.row == 0
    assert made == [0], "rows of a provider are made one by one"
