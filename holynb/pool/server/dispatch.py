"""Which replica writes a row: the one with the fewest tokens outstanding, among those that know its beginning where that costs little.

Replicas know nothing of each other. Rows of one template share a long head, and a replica that has computed it once finds it
again in its cache; so they stay together, until that would make them wait longer than computing it anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["Dispatcher"]

#: Prompt tokens that make a beginning: two of the cache's blocks of 16.
_HEAD = 32
#: Beginnings that are remembered.
_MOST = 4096


class Target(Protocol):
    """A replica as far as this module sees it."""

    @property
    def outstanding(self) -> int: ...


P = TypeVar("P", bound=Target)


class Dispatcher(Generic[P]):
    """Remembers where each beginning has been. Owned by the server's loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, list[P]] = OrderedDict()

    def choose(self, places: Sequence[P], ids: Sequence[int], cost: int) -> P:
        """A place for a prompt that takes `cost` tokens with its answer. `places` must not be empty."""
        least = min(places, key=lambda p: p.outstanding)
        if len(places) == 1:
            return least
        head = hash(tuple(ids[:_HEAD]))
        known = self._known.setdefault(head, [])
        known[:] = [p for p in known if p in places]
        warm = min(known, key=lambda p: p.outstanding, default=least)
        chosen = warm if warm.outstanding - least.outstanding <= cost else least
        if chosen not in known:
            known.append(chosen)
        self._known.move_to_end(head)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return chosen
