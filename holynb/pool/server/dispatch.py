"""Prefix-aware routing: a row goes to the replica with the fewest outstanding tokens among those whose KV cache has its prefix.

Replicas share no cache. Rows of one template share a long prefix, and a replica that has computed it once finds it again in its
cache; so they stay together, until waiting there costs more than computing the prefix anew. The same idea as SGLang's cache-aware
router (RadixAttention: Zheng et al. 2023, arXiv:2312.07104), with a hash of the first tokens in place of a radix tree.

What each replica has left to compute stands side by side in one list, which the replicas themselves keep: the fewest of a thousand
are found in one call.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

__all__ = ["Outstanding", "PrefixDispatcher"]

#: Two of the KV cache's blocks of 16.
_PREFIX_TOKENS = 32
_MAX_PREFIXES = 4096
#: What stands at a place that no replica has.
_NOBODY = sys.maxsize


@dataclass(slots=True, eq=False)
class Outstanding:
    """How many tokens a replica has yet to compute, at its place on a board; a board of its own until a dispatcher knows it."""

    board: list[int] = field(default_factory=lambda: [0])
    place: int = 0

    @property
    def tokens(self) -> int:
        return self.board[self.place]

    def add(self, tokens: int) -> None:
        """So many more, or fewer."""
        self.board[self.place] += tokens

    def move(self, board: list[int], place: int) -> None:
        """To another board."""
        board[place], self.board, self.place = self.tokens, board, place


class Target(Protocol):
    """A replica as far as this module sees it."""

    load: Outstanding


P = TypeVar("P", bound=Target)


class PrefixDispatcher(Generic[P]):
    """Knows the replicas, and which of them have had each prefix, the most recent ones. Owned by the server's loop."""

    def __init__(self) -> None:
        self._board: list[int] = []
        self._replicas: list[P | None] = []
        self._count = 0
        self._warm: OrderedDict[int, dict[int, None]] = OrderedDict()
        """The places that have had a prefix, in order, by its hash."""

    def add(self, replica: P) -> None:
        """From now on it is chosen, too."""
        if None in self._replicas:
            place = self._replicas.index(None)
        else:
            place = len(self._replicas)
            self._board.append(_NOBODY)
            self._replicas.append(None)
        self._replicas[place] = replica
        self._count += 1
        replica.load.move(self._board, place)

    def remove(self, replica: P) -> None:
        """It is not chosen any more, and what it had in its cache is forgotten. No effect where it is not there."""
        load = replica.load
        if load.board is not self._board:
            return
        place = load.place
        load.move([0], 0)
        self._board[place], self._replicas[place] = _NOBODY, None
        self._count -= 1
        for warm in self._warm.values():
            warm.pop(place, None)

    def choose(self, ids: Sequence[int], cost: int) -> P:
        """The replica for a prompt that takes `cost` tokens with its answer. There must be one."""
        board = self._board
        fewest = min(board)
        place = board.index(fewest)
        if self._count > 1:
            place = self._warm_place(hash(tuple(ids[:_PREFIX_TOKENS])), place, fewest + cost)
        replica = self._replicas[place]
        if replica is None:
            raise LookupError("no replica")
        return replica

    def _warm_place(self, prefix: int, idle: int, most: int) -> int:
        """Where the prefix is cached: the place with the fewest tokens, if at most `most`; else `idle`, which has it from now on."""
        warm = self._warm.setdefault(prefix, {})
        self._warm.move_to_end(prefix)
        if idle in warm:
            return idle
        if warm and self._board[place := min(warm, key=self._board.__getitem__)] <= most:
            return place
        warm[idle] = None
        while len(self._warm) > _MAX_PREFIXES:
            self._warm.popitem(last=False)
        return idle
