"""The paged KV cache: which block holds which tokens, shared by hash, freed exactly once. Bookkeeping without torch; `pages` makes the memory.

A block is `size` token slots. A full block whose tokens are known can be published under a chained hash of all tokens up to
its end, so that rows of one template share their common head. A block nobody holds keeps its content until it is taken again.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Blocks", "Full", "chain", "pages"]


class Full(Exception):
    """No block is free: a state that the scheduler handles."""


def chain(tokens: Sequence[int], size: int, before: bytes = b"") -> list[bytes]:
    """One key per full block of `tokens`; each covers everything before it. 16 bytes of blake2b: two contents never share a key."""
    data, keys = array("I", tokens), []
    for i in range(0, len(tokens) - size + 1, size):
        before = hashlib.blake2b(before + data[i : i + size].tobytes(), digest_size=16).digest()
        keys.append(before)
    return keys


class Blocks:
    """Who holds each block. Owned by one scheduler.

    A block is free (in `_free`, oldest first), or held `refs` times. Published or not is independent of that.
    """

    def __init__(self, total: int, size: int, *, share: bool = True) -> None:
        self.total, self.size, self.share = total, size, share
        self.refs = [0] * total
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total))
        self._block: dict[bytes, int] = {}
        self._key: dict[int, bytes] = {}
        self._cursor = 0

    @property
    def free(self) -> int:
        """Blocks that can be taken now."""
        return len(self._free)

    def start(self, extent: int) -> int:
        """Where a sequence of up to `extent` blocks best begins, so that it can grow side by side with the others."""
        near, self._cursor = self._cursor, (self._cursor + extent) % self.total
        return near

    def take(self, near: int = -1) -> int:
        """A block, held once: `near` if it is free and forgotten by all, else the one free for longest. Raises Full."""
        if near not in self._free or near in self._key:
            if not self._free:
                raise Full
            near = next(iter(self._free))
        del self._free[near]
        self.forget(near)
        self.refs[near] = 1
        return near

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The published blocks that hold the longest head of `keys`, in order. Not yet held."""
        found = []
        for key in keys if self.share else ():
            block = self._block.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def hold(self, block: int) -> None:
        """One more holder of a published block."""
        if not self.refs[block]:
            del self._free[block]
        self.refs[block] += 1

    def release(self, block: int) -> None:
        """One holder less. The last one frees it; what is published stays findable until it is taken."""
        if self.refs[block] <= 0:
            raise RuntimeError(f"block {block} was freed twice")
        self.refs[block] -= 1
        if not self.refs[block]:
            self._free[block] = None
            if block not in self._key:
                self._free.move_to_end(block, last=False)

    def publish(self, block: int, key: bytes) -> bool:
        """Let others find this full block. False where another block holds the same tokens already."""
        if not self.share or key in self._block or block in self._key:
            return False
        self._block[key], self._key[block] = block, key
        return True

    def forget(self, block: int) -> None:
        """Nobody finds this block any more."""
        key = self._key.pop(block, None)
        if key is not None:
            del self._block[key]


def pages(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Memory for (layers, KV heads, slots, head size): layers × 2 × heads × slots × size. Head first, so that a run of slots is one view."""
    import torch

    layers, heads, slots, size = shape
    # Not filled: on CPU a page costs memory only once it is written, and no reader looks past what was.
    return torch.empty(layers, 2, heads, slots, size, dtype=dtype, device=device)
