"""What rows of a batch say of the provider's prompt cache: whether their beginning is marked. Sends nothing.

A batch does its rows side by side and in any order, so nothing is sure to be read: a marked row either reads the beginning or pays to
write it. It is marked where the lowest share of hits that the vendor itself names makes that cheaper, for five minutes: for an hour, which
Anthropic advises, a write costs so much that more than half of the rows would have to hit. Its other advice, one row ahead in a batch of
its own, would leave all others with us for as long as a batch takes, and lost to a kernel that ends. Owned by the io thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holynb.config import prompt_caches
from holynb.run import prompt_cache
from holynb.run.plan import Plan
from holynb.scheduler import NOTHING, CacheTerms, ResponseValidator
from holynb.types import Endpoint, Request

if TYPE_CHECKING:
    from holynb.usage import Usage

__all__ = ["FEWEST", "BatchMarks", "line", "marks_for"]

#: Rows of a batch below which nothing is marked: few may be done all at once, and then each pays to write. Ours.
FEWEST = 32


def marks_for(plan: Plan, endpoint: Endpoint, validator: ResponseValidator | None) -> BatchMarks | None:
    """Those of an endpoint's batches; None where its cache is left to itself."""
    terms, rules = prompt_cache.terms(plan, endpoint, validator), prompt_caches.find(endpoint.route.provider, endpoint.route.model)
    return None if terms is None or rules is None else BatchMarks(terms, rules.batch_hits)


def line(plan: Plan, due: Sequence[Request], validator: ResponseValidator | None) -> str:
    """What a dry run of a batch says of it; empty where nothing is marked."""
    lines = []
    for endpoint in plan.targets.endpoints:
        marks, rows = marks_for(plan, endpoint, validator), sum(r.route == endpoint.route for r in due)
        if marks is None or rows < FEWEST or not marks.pays():
            continue
        lines.append(
            f"Prompt cache of {endpoint.route}: all rows begin with the same {marks.terms.tokens:,} tokens, which each is marked to read. "
            f"Of a batch's rows {marks.hits:.0%} at least find them there, by the provider's word (--no-prompt-cache)."
        )
    return "\n".join(lines)


@dataclass(slots=True)
class BatchMarks:
    """hits: the lowest share of rows that the vendor says read the beginning; 0: it names none. on: whether rows are marked now.

    saved: tokens of input saved by what has come back, less what writing cost.
    """

    terms: CacheTerms
    hits: float
    on: bool = True
    saved: float = 0.0

    def decide(self, rows: int) -> None:
        """Settle whether a batch of so many rows is marked: not where earlier ones have paid more for it than they saved."""
        self.on = rows >= FEWEST and self.pays() and self.saved >= 0

    def pays(self) -> bool:
        """Whether a marked row is expected to cost less than one that is not."""
        terms = self.terms
        return terms.head is not None and terms.marked and self.hits * (1 - terms.read) > (1 - self.hits) * (terms.write - 1)

    def marked(self, request: Request) -> Request:
        """The request with what it says of the cache."""
        mark = self.terms.head.mark(request) if self.terms.head is not None and self.on and self.pays() else None
        # A server that keeps all of a prompt, unless told otherwise, would bill each row for it.
        mark = NOTHING if mark is None and self.terms.spared else mark
        return request if mark is None else replace(request, cache=mark)

    def heard(self, usage: Usage) -> None:
        """What an answer says of it."""
        self.saved += (usage.tokens_cached or 0) * (1 - self.terms.read) - (usage.tokens_cache_write or 0) * (self.terms.write - 1)
