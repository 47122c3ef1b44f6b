"""Blocks are held, shared and freed exactly once, whatever happens to them."""

from __future__ import annotations

import random

import pytest

from holynb.pool.engine.cache import Blocks, Full, chain


def test_chain_covers_everything_before() -> None:
    a, b = chain([1, 2, 3, 4, 5], 2), chain([9, 2, 3, 4], 2)
    assert len(a) == 2
    assert a == chain([1, 2, 3, 4], 2)
    assert a[1] != b[1], "the same block after another head is another block"
    assert chain([1, 2, 3, 4], 2)[1:] == chain([3, 4], 2, a[0])


def test_take_until_full_and_again() -> None:
    blocks = Blocks(3, 4)
    held = [blocks.take() for _ in range(3)]
    assert sorted(held) == [0, 1, 2]
    with pytest.raises(Full):
        blocks.take()
    blocks.release(1)
    assert blocks.take() == 1


def test_a_block_freed_twice_is_found() -> None:
    blocks = Blocks(2, 4)
    block = blocks.take()
    blocks.release(block)
    with pytest.raises(RuntimeError, match="freed twice"):
        blocks.release(block)


def test_growth_stays_side_by_side() -> None:
    """Two sequences that grow in turn keep their blocks in one run each."""
    blocks = Blocks(16, 4)
    first, second = [blocks.take(blocks.start(4))], [blocks.take(blocks.start(4))]
    for _ in range(3):
        first.append(blocks.take(first[-1] + 1))
        second.append(blocks.take(second[-1] + 1))
    assert first == [0, 1, 2, 3]
    assert second == [4, 5, 6, 7]


def test_published_blocks_are_found_until_taken() -> None:
    blocks = Blocks(2, 2)
    keys = chain([1, 2, 3, 4], 2)
    for key in keys:
        assert blocks.publish(blocks.take(), key)
    assert blocks.find(keys) == [0, 1]
    assert blocks.find(chain([1, 2, 9, 9], 2)) == [0]
    blocks.release(0)
    blocks.hold(0)
    blocks.release(0)
    blocks.release(1)
    assert blocks.find(keys) == [0, 1], "nobody holds them, and they still say the same"
    assert blocks.take() == 0
    assert blocks.find(keys) == []


def test_two_blocks_of_the_same_tokens_publish_once() -> None:
    blocks = Blocks(2, 2)
    key = chain([1, 2], 2)[0]
    assert blocks.publish(blocks.take(), key)
    assert not blocks.publish(blocks.take(), key)


def test_sharing_can_be_off() -> None:
    blocks = Blocks(2, 2, share=False)
    key = chain([1, 2], 2)[0]
    assert not blocks.publish(blocks.take(), key)
    assert blocks.find([key]) == []


def test_unpublished_blocks_go_first() -> None:
    """What others may still want is kept longest."""
    blocks = Blocks(3, 2)
    kept, plain = blocks.take(), blocks.take()
    blocks.publish(kept, b"k")
    blocks.release(kept)
    blocks.release(plain)
    assert [blocks.take(), blocks.take(), blocks.take()] == [plain, 2, kept]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_operations_loses_nothing(seed: int) -> None:
    dice = random.Random(seed)
    blocks = Blocks(12, 2)
    held: list[int] = []
    for _ in range(2000):
        what = dice.random()
        if what < 0.4 and blocks.free:
            held.append(blocks.take(dice.randrange(-1, 12)))
        elif what < 0.8 and held:
            blocks.release(held.pop(dice.randrange(len(held))))
        elif what < 0.9 and held:
            blocks.publish(dice.choice(held), bytes([dice.randrange(20)]))
        else:
            for block in blocks.find([bytes([dice.randrange(20)])]):
                blocks.hold(block)
                held.append(block)
        assert blocks.free == 12 - len(set(held))
        assert [blocks.refs[b] for b in range(12)] == [held.count(b) for b in range(12)]
