"""The parts of long rows in the run log: kept beside their run, under `RUN/parts`, so that they can be looked at, and are paid for once.

A part's row number there is its row's times a million, and counts on. What is not known raises nothing: a log that fails is the keeper's to say.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

from holynb.prompts import chunking
from holynb.results import frame
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.runlog import PART_ROWS, PARTS, StoredRow
from holynb.types import Ended, Outcome, Prompt, Request

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ChunkLog", "Told", "table"]

#: Of one part: its row, round and label, what was asked, and what came of it (None: nothing yet).
Told = tuple[tuple[int, int, str], str, Outcome | None]


class ChunkLog:
    """One run's parts, as the log knows them. Owned by the run's `Parts`."""

    def __init__(self, plan: Plan, keeper: Recorder) -> None:
        self._keeper = keeper
        self._options = plan.options
        self._addresses = {e.route: e.base_url for e in plan.endpoints}
        self._mine: dict[str, Outcome] = {}
        self._next: dict[int, int] = {}
        self._place: dict[int, tuple[int, str]] = {}

    async def begin(self) -> None:
        """Read what this run's parts were answered before."""
        if (log := self._keeper.log) is None:
            return
        try:
            before = await asyncio.to_thread(log.answers, f"{self._keeper.run}{PARTS}")
        except sqlite3.Error as exc:
            self._keeper.give_up(exc)
            return
        for place, (key, outcome) in before.items():
            row = place // PART_ROWS
            self._next[row] = max(self._next.get(row, 0), place % PART_ROWS + 1)
            if key is not None and outcome.status == "ok" and not self._options.refresh:
                self._mine[key] = outcome

    def cut(self, row: int) -> None:
        """This row is asked in parts: its answer is kept apart from that of the whole prompt."""
        self._keeper.part(row)

    def keys(self, requests: Sequence[Request]) -> list[str]:
        """What makes each the same as another."""
        return [r.key(self._addresses[r.route]) for r in requests]

    def known(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """Answers that need not be asked for again; they cost nothing now."""
        found = {key: self._mine[key] for key in keys if key in self._mine}
        log = self._keeper.log
        if log is not None and self._options.cache and not self._options.refresh:
            try:
                found = log.cached([key for key in keys if key not in found]) | found
            except sqlite3.Error as exc:
                self._keeper.give_up(exc)
        return {key: replace(o, attempts=0, cost=Decimal(0), cached=True) for key, o in found.items()}

    def replay(self, request: Request, plan: chunking.ChunkPlan) -> Iterator[Told]:
        """The parts of a row whose answer was there already, as far as the log still has theirs."""
        slots: Sequence[Prompt | str] = plan.parts
        for number in count(1):
            asked = [replace(request, messages=slot.messages) for slot in slots if isinstance(slot, Prompt)]
            keys = self.keys(asked)
            known = self.known(keys)
            for i, (part, key) in enumerate(zip(asked, keys, strict=True), 1):
                yield (request.row, number, str(i)), Prompt(part.messages).text, known.get(key)
            if len(slots) < 2 or not all(key in known for key in keys):
                return
            told = iter([known[key].text or "" for key in keys])
            slots = plan.reduce([next(told) if isinstance(slot, Prompt) else slot for slot in slots])

    def asked(self, row: int, parts: Sequence[tuple[Request, str, list[Any], Outcome | None]]) -> None:
        """Keep what is asked for a row, in order: request, key, label, and the answer where it is known."""
        stored = []
        for request, key, label, outcome in parts:
            if key in self._mine:
                continue
            place = row * PART_ROWS + self._next.get(row, 0)
            self._next[row] = self._next.get(row, 0) + 1
            self._place[request.row] = place, key
            stored.append(StoredRow(place, request.sample, key, [row, *label], request.messages, request.sampling))
            if outcome is not None:
                self._keeper.keep(PARTS, Ended(place, outcome, time.time()), key)
        if stored:
            self._keeper.more(PARTS, stored)

    def answered(self, number: int, event: Ended) -> Awaitable[None] | None:
        """Keep how a part ended. Returns something to wait for where it must be on disk first."""
        place, key = self._place[number]
        return self._keeper.keep(PARTS, replace(event, row=place), key)


def table(parts: Sequence[Told], index: Any = None) -> pd.DataFrame:
    """Parts as a frame: what was asked, and the columns of a result, on the levels of the run's `index`, then `round` and `part`."""
    labels = [] if index is None else index.tolist()
    rows = [labels[row] if labels else row for (row, *_), *_ in parts]
    where = [
        [*(row if isinstance(row, tuple) else [row]), number, label] for row, ((_, number, label), *_) in zip(rows, parts, strict=True)
    ]
    told = frame.build([outcome for *_, outcome in parts], frame.merge_index(where))
    told.insert(0, "prompt", [text for _, text, _ in parts])
    if parts:
        told.index.names = [*([None] if index is None else index.names), "round", "part"]
    return told.astype({"prompt": "string"})
