"""Blocks are held, shared and freed exactly once, whatever happens to them."""

from __future__ import annotations

import random

import pytest

from holynb.pool.engine.cache import BlockAllocator, OutOfBlocks, block_keys
from holynb.pool.fit.cache_groups import row_blocks


def test_chain_covers_everything_before() -> None:
    a, b = block_keys([1, 2, 3, 4, 5], 2), block_keys([9, 2, 3, 4], 2)
    assert len(a) == 2
    assert a == block_keys([1, 2, 3, 4], 2)
    assert a[1] != b[1], "the same block after another head is another block"
    assert block_keys([1, 2, 3, 4], 2)[1:] == block_keys([3, 4], 2, a[0])


def test_take_until_full_and_again() -> None:
    blocks = BlockAllocator(3, 4)
    held = [blocks.allocate() for _ in range(3)]
    assert sorted(held) == [0, 1, 2]
    with pytest.raises(OutOfBlocks):
        blocks.allocate()
    blocks.release(1)
    assert blocks.allocate() == 1


def test_a_block_freed_twice_is_found() -> None:
    blocks = BlockAllocator(2, 4)
    block = blocks.allocate()
    blocks.release(block)
    with pytest.raises(RuntimeError, match="freed twice"):
        blocks.release(block)


def test_growth_stays_side_by_side() -> None:
    """Two sequences that grow in turn keep their blocks in one run each."""
    blocks = BlockAllocator(16, 4)
    first, second = [blocks.allocate(blocks.next_start(4))], [blocks.allocate(blocks.next_start(4))]
    for _ in range(3):
        first.append(blocks.allocate(first[-1] + 1))
        second.append(blocks.allocate(second[-1] + 1))
    assert first == [0, 1, 2, 3]
    assert second == [4, 5, 6, 7]


def test_published_blocks_are_found_until_taken() -> None:
    blocks = BlockAllocator(2, 2)
    keys = block_keys([1, 2, 3, 4], 2)
    for key in keys:
        assert blocks.publish(blocks.allocate(), key)
    assert blocks.find(keys) == [0, 1]
    assert blocks.find(block_keys([1, 2, 9, 9], 2)) == [0]
    blocks.release(0)
    blocks.retain(0)
    blocks.release(0)
    blocks.release(1)
    assert blocks.find(keys) == [0, 1], "nobody holds them, and they still say the same"
    assert blocks.allocate() == 0
    assert blocks.find(keys) == []


def test_two_blocks_of_the_same_tokens_publish_once() -> None:
    blocks = BlockAllocator(2, 2)
    key = block_keys([1, 2], 2)[0]
    assert blocks.publish(blocks.allocate(), key)
    assert not blocks.publish(blocks.allocate(), key)


def test_sharing_can_be_off() -> None:
    blocks = BlockAllocator(2, 2, share=False)
    key = block_keys([1, 2], 2)[0]
    assert not blocks.publish(blocks.allocate(), key)
    assert blocks.find([key]) == []


def test_unpublished_blocks_go_first() -> None:
    """What others may still want is kept longest."""
    blocks = BlockAllocator(3, 2)
    kept, plain = blocks.allocate(), blocks.allocate()
    blocks.publish(kept, b"k")
    blocks.release(kept)
    blocks.release(plain)
    assert [blocks.allocate(), blocks.allocate(), blocks.allocate()] == [plain, 2, kept]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_operations_loses_nothing(seed: int) -> None:
    dice = random.Random(seed)
    blocks = BlockAllocator(12, 2)
    held: list[int] = []
    for _ in range(2000):
        what = dice.random()
        if what < 0.4 and blocks.free:
            held.append(blocks.allocate(dice.randrange(-1, 12)))
        elif what < 0.8 and held:
            blocks.release(held.pop(dice.randrange(len(held))))
        elif what < 0.9 and held:
            blocks.publish(dice.choice(held), bytes([dice.randrange(20)]))
        else:
            for block in blocks.find([bytes([dice.randrange(20)])]):
                blocks.retain(block)
                held.append(block)
        assert blocks.free == 12 - len(set(held))
        assert [blocks.refs[b] for b in range(12)] == [held.count(b) for b in range(12)]


@pytest.mark.parametrize("window", [1, 2, 5, 8, 100])
@pytest.mark.parametrize("seed", range(3))
def test_a_prefix_of_a_group_that_slides_needs_its_end_alone(window: int, seed: int) -> None:
    """The longest one of which every block is there that the next token sees."""
    dice = random.Random(seed)
    blocks, keys = BlockAllocator(24, 4, windows=(0, window)), block_keys(list(range(96)), 4)
    for key in keys:
        if dice.random() < 0.6:
            blocks.publish(blocks.allocate(), key, 1)
    assert blocks.find(keys) == [], "another group's blocks are others"
    there = [bool(blocks.find([key], 1)) for key in keys]
    for count in range(len(keys) + 1):
        fits = [n for n in range(count + 1) if all(there[max(0, (4 * n - window) // 4) : n])]
        table = blocks.find_end(keys[:count], 1)
        assert len(table) == max(fits)
        first = max(0, (4 * len(table) - window) // 4)
        assert table[first:] == [blocks.find([key], 1)[0] for key in keys[first : len(table)]]
    assert BlockAllocator(24, 4, share=False, windows=(window,)).find_end(keys, 0) == []


@pytest.mark.parametrize("windows", [(0,), (6,), (0, 6), (0, 9, 9)])
def test_what_one_sequence_can_have_fits_and_one_block_more_does_not(windows: tuple[int, ...]) -> None:
    for total in range(len(windows), 40):
        held = BlockAllocator(total, 4, windows=windows).capacity
        assert row_blocks(windows, held, 4) <= total
        assert row_blocks(windows, held + 1, 4) > total or held > 10**9
