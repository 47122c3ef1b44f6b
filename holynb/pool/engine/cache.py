"""The paged KV cache: a block allocator with prefix caching. Bookkeeping without torch; `allocate_kv` alone makes the memory.

As in PagedAttention (Kwon et al., SOSP 2023), a sequence's keys and values lie in blocks of `size` token slots that need not be
contiguous. A full block whose tokens are known can be published under a chained hash of all tokens up to its end, so that rows of one
template share their common prefix. A block without holders keeps its content until it is allocated again.
Layers that see all and layers with a window are groups with a block table each (`fit.cache_groups`). They take their blocks from the same
pool, and a block is published for its group.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.pool.fit.cache_groups import row_blocks

if TYPE_CHECKING:
    import torch

__all__ = ["BlockAllocator", "OutOfBlocks", "allocate_kv", "block_keys"]


class OutOfBlocks(Exception):
    """No block is free. The scheduler avoids it by preemption."""


def block_keys(tokens: Sequence[int], size: int, before: bytes = b"") -> list[bytes]:
    """One prefix-cache key per full block of `tokens`; each covers everything before it. 16 bytes of blake2b: no collisions in practice."""
    data, keys = array("I", tokens), []
    for i in range(0, len(tokens) - size + 1, size):
        before = hashlib.blake2b(before + data[i : i + size].tobytes(), digest_size=16).digest()
        keys.append(before)
    return keys


class BlockAllocator:
    """Reference counts of all blocks. Owned by one scheduler.

    A block is free (in `_free`, the next to be reused first) or has `refs` holders. Whether it is published is independent of that.
    `windows`: of each group of layers, how many tokens they see at most (0: all before), and sequences release the blocks that lie before.
    Such blocks are shared on, as every other, until they are allocated again.
    """

    def __init__(self, total: int, size: int, *, share: bool = True, windows: Sequence[int] = (0,)) -> None:
        self.total, self.size, self.share, self.windows = total, size, share, tuple(windows)
        self.groups, self.slides = len(self.windows), any(self.windows)
        self.refs = [0] * total
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total))
        self._block_of: list[dict[bytes, int]] = [{} for _ in self.windows]
        self._key_of: dict[int, tuple[bytes, dict[bytes, int]]] = {}
        self._cursor = 0

    @property
    def capacity(self) -> int:
        """Tokens that one sequence can have, alone."""
        low, high = 0, 1 << 31
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if row_blocks(self.windows, middle * self.size, self.size) <= self.total else (low, middle - 1)
        return low * self.size

    @property
    def free(self) -> int:
        """Number of blocks that can be allocated now."""
        return len(self._free)

    def next_start(self, extent: int) -> int:
        """A block at which a sequence of up to `extent` blocks should start, so that sequences grow in runs side by side."""
        start, self._cursor = self._cursor, (self._cursor + extent) % self.total
        return start

    def allocate(self, near: int = -1) -> int:
        """A block with one holder: `near` if it is free and unpublished, else the first to be reused. Raises OutOfBlocks."""
        if near not in self._free or near in self._key_of:
            if not self._free:
                raise OutOfBlocks
            near = next(iter(self._free))
        del self._free[near]
        self.unpublish(near)
        self.refs[near] = 1
        return near

    def find(self, keys: Sequence[bytes], group: int = 0) -> list[int]:
        """The group's published blocks of the longest prefix of `keys`, in order. They are not retained."""
        blocks, published = [], self._block_of[group]
        for key in keys if self.share else ():
            block = published.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def find_end(self, keys: Sequence[bytes], group: int) -> list[int]:
        """As `find`, of a group with a window: a prefix counts where the blocks at its end are published that the next token sees.

        0 stands for those before them, which nobody will read.
        """
        published, end = self._block_of[group], len(keys) if self.share else 0
        at = end
        while (first := max(0, (end * self.size - self.windows[group]) // self.size)) < at:
            if keys[at - 1] not in published:
                end = at - 1
            at -= 1
        return [0] * first + [published[key] for key in keys[first:end]]

    def retain(self, block: int) -> None:
        """Add a holder to a published block."""
        if not self.refs[block]:
            del self._free[block]
        self.refs[block] += 1

    def release(self, block: int) -> None:
        """Remove a holder. The last one frees the block; if it is published it stays findable until it is allocated again."""
        if self.refs[block] <= 0:
            raise RuntimeError(f"block {block} was freed twice")
        self.refs[block] -= 1
        if not self.refs[block]:
            self._free[block] = None
            if block not in self._key_of:
                self._free.move_to_end(block, last=False)

    def publish(self, block: int, key: bytes, group: int = 0) -> bool:
        """Make a full block findable. Returns False if it already is, or another block with the same tokens is."""
        published = self._block_of[group]
        if not self.share or key in published or block in self._key_of:
            return False
        published[key], self._key_of[block] = block, (key, published)
        return True

    def unpublish(self, block: int) -> None:
        """Make a block unfindable. Idempotent."""
        where = self._key_of.pop(block, None)
        if where is not None:
            del where[1][where[0]]


def allocate_kv(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Memory for (layers of a block, KV heads, slots, head size): layers × 2 × heads × slots × size. A run of slots is one view."""
    import torch

    layers, heads, slots, size = shape
    # Not filled: on CPU a page costs memory only once it is written, and no reader looks past what was.
    return torch.empty(layers, 2, heads, slots, size, dtype=dtype, device=device)
