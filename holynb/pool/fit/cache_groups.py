"""Groups of layers that keep the same tokens in the KV cache: layers with a window give back what it has left, the others keep all.

Every group has a block table of its own, and all take their blocks from one pool, as in vLLM's hybrid KV cache manager: that needs blocks
of one size, so groups have the same number of layers, or nearly. A model of one kind of layer is one group. Numbers only; knows no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holynb import units
from holynb.errors import UserError
from holynb.pool.fit.limits import BatchLimits
from holynb.pool.fit.mesh import Mesh, stage_layers
from holynb.pool.fit.spec import Spec

__all__ = ["BLOCK_TOKENS", "CacheGroups", "cache_groups", "row_blocks"]

#: Tokens of a block: small enough that rows of one template share most of their prefix.
BLOCK_TOKENS = 16

#: Most groups: each costs a row a block table, which is filled and sent.
MAX_GROUPS = 8

#: Groups that keep less than this share of what one would are worth their tables.
WORTH_IT = 0.9

#: Of ways that differ by less than this the one with the fewest groups is taken.
AS_GOOD = 1.03


def row_blocks(windows: Sequence[int], length: int, size: int) -> int:
    """Blocks of `size` tokens that one row of so many tokens holds in groups with these windows (0: sees all)."""
    whole = -(-length // size)
    return sum(min(whole, -(-window // size) + 1) if window else whole for window in windows)


@dataclass(frozen=True, slots=True)
class CacheGroups:
    """The groups of a model, and where this rank's layers lie in them.

    `windows`: of each group, how many tokens its layers see at most (0: all). `places`: of each layer, its group and which of a block's
    `layers` it is. `whole`: how many layers there are.
    """

    windows: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    layers: int

    @property
    def whole(self) -> int:
        """This rank's layers."""
        return len(self.places)

    def most_blocks(self, limits: BatchLimits, size: int = BLOCK_TOKENS) -> int:
        """Blocks that a full batch of the longest rows holds, a chunk of prompts on its way into each group that slides."""
        chunk = -(-limits.chunk // size) * sum(map(bool, self.windows))
        return limits.batch * row_blocks(self.windows, limits.max_len, size) + chunk

    def block_count(self, space: int, block: int, limits: BatchLimits) -> int:
        """How many blocks of `block` bytes go into `space`; never more than the batch can fill. Raises UserError."""
        count, many = min(space // block, self.most_blocks(limits)), len(self.windows)
        if count < 2 * many:
            left, taken = units.memory(max(space, 0)), units.memory(block * many)
            raise UserError(
                f"After the weights {left} are left for the KV cache, and {BLOCK_TOKENS} tokens take {taken}. "
                "Take a smaller model or --max-len, a larger --memory, or divide the model with --tp or --pp."
            )
        return count

    def saves(self, length: int) -> float:
        """How many times fewer bytes a row of so many tokens takes than if every layer kept all of them."""
        kept = self.layers * row_blocks(self.windows, length, BLOCK_TOKENS)
        return self.whole * row_blocks((0,), length, BLOCK_TOKENS) / kept


def cache_groups(spec: Spec, mesh: Mesh, length: int) -> CacheGroups:
    """The groups for rows of up to `length` tokens: with which such a row takes the fewest bytes. On all ranks the same windows."""
    stages = [_kinds(spec, stage, length) for stage in stage_layers(spec, mesh.pipe)]
    windows = sorted({window for kinds in stages for window in kinds})
    mine = stages[mesh.stage]
    one = CacheGroups((0 if 0 in windows else max(windows),), tuple((0, i) for i in range(len(mine))), len(mine))
    if len(windows) == 1:
        return one
    ways = [_counts(stages, windows, layers, length) for layers in range(1, spec.layers + 1)]
    least = min(taken for _, taken in ways)
    if least > WORTH_IT * _bytes(max(map(len, stages)), one.windows, length):
        return one
    return _dealt(mine, windows, min((counts for counts, taken in ways if taken <= least * AS_GOOD), key=sum))


def _kinds(spec: Spec, stage: tuple[int, int], length: int) -> list[int]:
    """The window of each layer of a stage, as far as rows of this length feel it."""
    return [window if spec.windows and (window := spec.windows[i]) < length else 0 for i in range(*stage)]


def _bytes(layers: int, windows: Sequence[int], length: int) -> int:
    """What a row takes, in layers of a block."""
    return layers * row_blocks(windows, length, BLOCK_TOKENS)


def _counts(stages: list[list[int]], windows: list[int], layers: int, length: int) -> tuple[list[int], int]:
    """How many groups of each window there are if a block holds up to so many layers, and what a row takes on the fullest stage."""
    counts = [max(-(-kinds.count(window) // layers) for kinds in stages) for window in windows]
    if sum(counts) > MAX_GROUPS:
        return counts, 2**62
    in_groups = [window for window, count in zip(windows, counts, strict=True) for _ in range(count)]
    return counts, max(_bytes(_block_layers(kinds, windows, counts), in_groups, length) for kinds in stages)


def _block_layers(kinds: list[int], windows: list[int], counts: list[int]) -> int:
    return max(-(-kinds.count(window) // count) for window, count in zip(windows, counts, strict=True))


def _dealt(kinds: list[int], windows: list[int], counts: list[int]) -> CacheGroups:
    """A stage's layers, dealt in order to the groups of their window."""
    first, given = dict(zip(windows, (sum(counts[:i]) for i in range(len(counts))), strict=True)), dict.fromkeys(windows, 0)
    places = []
    for window in kinds:
        count = counts[windows.index(window)]
        places.append((first[window] + given[window] % count, given[window] // count))
        given[window] += 1
    in_groups = tuple(window for window, count in zip(windows, counts, strict=True) for _ in range(count))
    return CacheGroups(in_groups, tuple(places), _block_layers(kinds, windows, counts))
