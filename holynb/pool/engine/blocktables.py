"""A sequence's block tables, one for each group of layers of the KV cache: begun at a shared prefix, grown, and left behind by windows.

Tables of a sequence have the same length once its prompt is in the cache. A group whose layers see all gets room for a whole prompt at
once, one with a window a chunk at a time: it never holds much more than its window. Bookkeeping without torch and without policy.
"""

from __future__ import annotations

from holynb.pool.engine.cache import BlockAllocator, block_keys
from holynb.pool.engine.sequence import Seq

__all__ = ["extend", "grow", "need", "publish", "release", "room", "shared", "slide", "start", "trim"]


def shared(blocks: BlockAllocator, keys: list[bytes]) -> list[list[int]]:
    """The tables, one a group, of the longest prefix of `keys` that is in the cache for every group. They are not retained."""
    if not blocks.slides and blocks.groups == 1:
        return [blocks.find(keys)]
    count = min((len(blocks.find(keys, g)) for g, window in enumerate(blocks.windows) if not window), default=len(keys))
    while True:
        tables = [(blocks.find_end if window else blocks.find)(keys[:count], g) for g, window in enumerate(blocks.windows)]
        if (count := min(map(len, tables))) == max(map(len, tables)):
            return tables


def need(blocks: BlockAllocator, seq: Seq, prefix: list[list[int]], budget: int) -> int:
    """How many blocks a sequence takes from the free ones for its next `budget` tokens, those of the prefix included that nobody holds."""
    total, size, count = -(-seq.size // blocks.size), blocks.size, 0
    for window, table in zip(blocks.windows, prefix, strict=True):
        fresh = total - len(table)
        count += min(fresh, -(-budget // size) + 1) if window else fresh
        first = max(0, (len(table) * size - window) // size) if window else 0
        count += sum(not blocks.refs[block] for block in table[first:])
    return count


def start(blocks: BlockAllocator, seq: Seq, prefix: list[list[int]]) -> None:
    """Begin the tables of a sequence at a prefix that is in the cache, with room for all its tokens where layers see all of them."""
    size, count = blocks.size, len(prefix[0])
    total, most = -(-seq.size // size), -(-(len(seq.job.ids) + seq.job.max_new) // size)
    seq.tables, seq.blocks = prefix, prefix[0]
    seq.cached, seq.published = count * size, count
    seq.unseen = [max(0, (seq.cached - window) // size) if window else 0 for window in blocks.windows]
    for table, first in zip(prefix, seq.unseen, strict=True):
        for block in table[first:]:
            blocks.retain(block)
    for window, table in zip(blocks.windows, prefix, strict=True):
        if not window:
            near = blocks.next_start(most - count)
            for _ in range(total - count):
                table.append(blocks.allocate(near))
                near = table[-1] + 1


def room(blocks: BlockAllocator, seq: Seq, kept: int) -> int:
    """How many more tokens of a prompt have, or could get, room in the groups that slide, if `kept` blocks stay free."""
    sliding = [table for window, table in zip(blocks.windows, seq.tables, strict=True) if window]
    return (len(sliding[0]) + max(0, blocks.free - kept) // len(sliding)) * blocks.size - seq.cached


def extend(blocks: BlockAllocator, seq: Seq, end: int) -> None:
    """Room for the tokens up to `end` in the groups that slide."""
    for window, table in zip(blocks.windows, seq.tables, strict=True):
        if window:
            near = table[-1] + 1 if table else blocks.next_start(-(-min(end, window) // blocks.size) + 1)
            for _ in range(len(table), -(-end // blocks.size)):
                table.append(blocks.allocate(near))
                near = table[-1] + 1


def grow(blocks: BlockAllocator, seq: Seq) -> None:
    """One more block in every table."""
    for table in seq.tables:
        table.append(blocks.allocate(table[-1] + 1))


def trim(blocks: BlockAllocator, seq: Seq) -> None:
    """Release the blocks behind all cached tokens: guesses lie there that were wrong."""
    count = -(-seq.cached // blocks.size)
    for table in seq.tables:
        while len(table) > count:
            blocks.release(table.pop())


def slide(blocks: BlockAllocator, seq: Seq) -> None:
    """Release what windows have left, but for one token: a step that fails is planned again."""
    for group, window in enumerate(blocks.windows):
        if window:
            before, now = seq.unseen[group], (seq.cached - window) // blocks.size
            if now > before:
                seq.unseen[group] = now
                for block in seq.tables[group][before:now]:
                    blocks.release(block)


def publish(blocks: BlockAllocator, seq: Seq, cached: int) -> list[int]:
    """Make the full blocks of the first `cached` tokens findable, as far as they are held and known. Returns those that were not."""
    size, fresh = blocks.size, []
    full = min(cached, len(seq.tokens)) // size
    if full > len(seq.keys):
        first = len(seq.keys) * size
        seq.keys += block_keys(seq.tokens[first : full * size], size, seq.keys[-1] if seq.keys else b"")
    for group, table in enumerate(seq.tables):
        first = max(seq.published, seq.unseen[group])
        fresh += [block for block, key in zip(table[first:full], seq.keys[first:full], strict=True) if blocks.publish(block, key, group)]
    seq.published = max(full, seq.published)
    return fresh


def release(blocks: BlockAllocator, seq: Seq) -> None:
    """Give all blocks back: nothing of the sequence is in the cache."""
    for table, first in zip(seq.tables, seq.unseen, strict=True):
        for block in table[first:]:
            blocks.release(block)
    seq.blocks = []
    seq.tables, seq.unseen = [seq.blocks], [0]
    seq.cached = seq.published = 0
    seq.prefilled = False
