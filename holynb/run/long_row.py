"""A row that is too long for one request, in flight: its chunks, how far it is, its outcome. Decides nothing; owned by `map_reduce`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from holynb.full_context import full_context_note, is_full
from holynb.prompts import chunking
from holynb.scheduler import WorkItem
from holynb.types import Outcome, Prompt, Request, Usage

__all__ = ["ChunkDraft", "ChunkRequest", "LongRow"]


@dataclass(frozen=True, slots=True)
class ChunkDraft:
    """What a chunk request is to ask. `name`, `label` and `text` as in ChunkRequest."""

    prompt: Prompt
    name: str
    label: str
    text: str | None


@dataclass(slots=True, eq=False)
class ChunkRequest:
    """One request for a chunk of a row. `text`: the chunk; None where it puts answers together.

    `name` is for people, `label` is the chunk's place (`3`, or `3.2` after a second cut). `rows` wait for it; the first pays.
    `numbers`: its attempts as the row counts them; `has_text`: this attempt has produced text.
    """

    request: Request
    name: str
    label: str
    text: str | None
    key: str
    round: int
    depth: int
    item: WorkItem
    rows: list[LongRow] = field(default_factory=list)
    outcome: Outcome | None = None
    numbers: dict[int, int] = field(default_factory=dict)
    has_text: bool = False

    @property
    def last(self) -> bool:
        """Whether its answer is its row's."""
        return len(self.rows[0].slots) == 1 and self.rows[0].slots[0] is self


@dataclass(slots=True, eq=False)
class LongRow:
    """A row in flight. `slots` is this round in order: chunks, and answers that pass as they are; `open` the chunks that have not ended.

    `paid` are all the chunks that it began itself; `before` is what was spent on it whole; `ending` how it ends once nothing is open.
    """

    request: Request
    chain: Sequence[str]
    plan: chunking.ChunkPlan
    before: Outcome
    began: float = field(default_factory=time.perf_counter)
    round: int = 1
    depth: int = 0
    attempts: int = 0
    answers: list[str] = field(default_factory=list)
    slots: list[ChunkRequest | str] = field(default_factory=list)
    rounds: list[list[ChunkRequest | str]] = field(default_factory=list)
    paid: list[ChunkRequest] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    ending: Outcome | None = None

    @property
    def chunks(self) -> list[ChunkRequest]:
        """Those of this round."""
        return [slot for slot in self.slots if isinstance(slot, ChunkRequest)]

    def progress(self) -> str:
        """How far it is, for people."""
        if self.round > 1:
            return f"putting {len(self.answers):,} answers together"
        return f"{sum(c.outcome is not None for c in self.chunks):,} of {len(self.chunks):,} parts answered"

    def _with_cuts(self, ending: Outcome) -> Outcome:
        """An answer put together from one that was cut off is cut off itself, and says where."""
        slots = [s for several in self.rounds for s in several if isinstance(s, ChunkRequest)]
        ended = [(s.name, s.outcome) for s in slots if s.outcome is not None and s.outcome.status == "ok"]
        cut = {name: is_full("length", o.error) for name, o in ended if o.finish_reason == "length"}
        if ending.status != "ok" or not cut or len(slots) < 2:
            return ending
        at_limit, full = ([name for name, is_so in cut.items() if is_so is kind] for kind in (False, True))
        notes = [] if is_full("length", ending.error) or not ending.error else [ending.error]
        notes += [f"cut off at the token limit: {_few(at_limit)}; raise --max-tokens"] if at_limit else []
        notes += [f"{_few(full)}: {full_context_note(None)}"] if full else []
        return replace(ending, finish_reason="length", error="; ".join(notes))

    def whole(self) -> Outcome:
        """How the row ends, with what all its requests came to."""
        paid = [chunk.outcome for chunk in self.paid if chunk.outcome is not None]
        ending = self._with_cuts(self.ending or Outcome("error"))
        attempts = self.before.attempts + sum(o.attempts for o in paid)
        cached = ending.status == "ok" and not attempts
        usage, costs = self.before.usage, [o.cost for o in (self.before, *paid) if o.cost is not None]
        for outcome in paid:
            usage = usage + (Usage() if outcome.cached and not cached else outcome.usage)
        return replace(
            ending,
            attempts=attempts,
            usage=usage,
            cost=Decimal(0) if cached else sum(costs, Decimal(0)) if costs else None,
            latency_s=time.perf_counter() - self.began if attempts else ending.latency_s,
            ttft_s=None,
            cached=cached,
        )


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
