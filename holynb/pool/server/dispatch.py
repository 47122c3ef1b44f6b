"""Prefix-aware routing: a row goes to the replica with the fewest outstanding tokens among those whose KV cache has its prefix.

Replicas share no cache. Rows of one template share a long prefix, and a replica that has computed it once finds it again in its
cache; so they stay together, until waiting there costs more than computing the prefix anew. The same idea as SGLang's cache-aware
router (RadixAttention: Zheng et al. 2023, arXiv:2312.07104), with a hash of the first tokens in place of a radix tree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["PrefixDispatcher"]

#: Two of the KV cache's blocks of 16.
_PREFIX_TOKENS = 32
_MAX_PREFIXES = 4096


class Target(Protocol):
    """A replica as far as this module sees it."""

    @property
    def outstanding(self) -> int: ...


P = TypeVar("P", bound=Target)


class PrefixDispatcher(Generic[P]):
    """Remembers which replicas have had each prefix, the most recent ones. Owned by the server's loop."""

    def __init__(self) -> None:
        self._replicas: OrderedDict[int, list[P]] = OrderedDict()

    def choose(self, replicas: Sequence[P], ids: Sequence[int], cost: int) -> P:
        """The replica for a prompt that takes `cost` tokens with its answer. `replicas` must not be empty."""
        least = min(replicas, key=lambda p: p.outstanding)
        if len(replicas) == 1:
            return least
        prefix = hash(tuple(ids[:_PREFIX_TOKENS]))
        cached = self._replicas.setdefault(prefix, [])
        cached[:] = [p for p in cached if p in replicas]
        warm = min(cached, key=lambda p: p.outstanding, default=least)
        chosen = warm if warm.outstanding - least.outstanding <= cost else least
        if chosen not in cached:
            cached.append(chosen)
        self._replicas.move_to_end(prefix)
        while len(self._replicas) > _MAX_PREFIXES:
            self._replicas.popitem(last=False)
        return chosen
