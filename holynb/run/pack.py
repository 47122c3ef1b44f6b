"""Rows of `--embed` that go in one request: how many may, and what each has of its tokens and dollars. Knows no scheduler's events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from holynb.config import embedding_models
from holynb.run.plan import Plan
from holynb.run.shares import Share, shares
from holynb.scheduler import WorkItem
from holynb.types import Message, Outcome, Request, Usage

__all__ = ["Own", "Pack", "Unit", "added", "limits", "packed", "requests"]

#: Most rows, bytes and (where a wire's limit is not lower) tokens of one request: what one failure may cost, and one reply hold.
MAX_ROWS, MAX_BYTES, MAX_TOKENS = 256, 4 * 2**20, 250_000
#: More tokens of a byte than most texts have; a request that is too large all the same is refused, and cut.
TOKENS_PER_BYTE = 0.4

#: Of a row: its vector, and what that is in words.
Own = tuple[bytes, str]


@dataclass(slots=True, eq=False)
class Unit:
    """A row, those that ask the same, and what its earlier requests came to."""

    row: int
    message: Message
    followers: list[int]
    size: int
    spent: Share | None = None


@dataclass(slots=True, eq=False)
class Pack:
    """A request for several rows. `attempts`: how often they were sent before, in larger ones; `refusal`: how the last of those ended.

    `alone`: it is one row, asked to see whether everything is refused.
    """

    units: list[Unit]
    chain: Sequence[str]
    attempts: int = 0
    alone: bool = False
    refusal: Outcome | None = None
    weights: list[int] = field(default_factory=list)
    shared: tuple[Usage, Decimal | None, list[Share]] | None = None

    def __post_init__(self) -> None:
        self.weights, self.shared = [u.size + 1 for u in self.units], None

    def shares(self, usage: Usage, cost: Decimal | None) -> list[Share]:
        """Each row's share. A payment and the end of its rows ask for the same."""
        if self.shared is None or self.shared[0] != usage or self.shared[1] != cost:
            self.shared = usage, cost, shares(usage, cost, self.weights)
        return self.shared[2]


def limits(plan: Plan) -> tuple[int, float]:
    """Most rows and tokens of one request, which any route of the run must take."""
    known = [embedding_models.find(embedding_models.wire_of(e) or "", e.route.model) for e in plan.targets.endpoints]
    items = min([MAX_ROWS, *(m.items for m in known if m.items is not None)])
    tokens = min([MAX_TOKENS, *(m.tokens for m in known if m.tokens is not None), *([plan.options.tpm] if plan.options.tpm else [])])
    return items, tokens


def packed(items: Sequence[WorkItem], most: tuple[int, float]) -> list[Pack]:
    """The rows in order, as many together as may be. `most`: rows and tokens, as `limits` gives them."""
    packs: list[Pack] = []
    room, tokens = 0, 0.0
    for item in items:
        message = item.request.messages[0]
        size = len(message.content.encode("utf-8", "surrogatepass"))
        cost = TOKENS_PER_BYTE * size + 2
        last = packs[-1] if packs else None
        full = last is None or len(last.units) >= most[0] or room + size > MAX_BYTES or tokens + cost > most[1]
        if last is None or full or last.chain != item.chain:
            last = Pack([], item.chain)
            packs.append(last)
            room, tokens = 0, 0.0
        last.units.append(Unit(item.request.row, message, item.followers, size))
        room, tokens = room + size, tokens + cost
    return [Pack(p.units, p.chain) for p in packs]


def requests(plan: Plan, rows: Sequence[Request]) -> int:
    """How many requests these rows make."""
    return len(packed([WorkItem(r, ()) for r in rows], limits(plan)))


def added(one: Share | None, other: Share) -> Share:
    if one is None:
        return other
    costs = [c for c in (one[1], other[1]) if c is not None]
    return one[0] + other[0], sum(costs[1:], costs[0]) if costs else None
