"""The chunks of long rows in the run log: kept beside their run, under `RUN/parts`, so that they can be looked at, and are paid for once.

A chunk's row number there is its row's times a million, and counts on. A log that fails raises nothing here: the recorder reports it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from holynb.events import Ended
from holynb.prompts import chunking
from holynb.results import frame
from holynb.run.pending import from_log
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.runlog import PARTS_PER_ROW, PARTS_SUFFIX, StoredRow
from holynb.types import Outcome, Prompt, Request

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ChunkLog", "ChunkResult", "table"]

#: Of one chunk: its row, round and label, its prompt, and its outcome (None: not yet).
ChunkResult = tuple[tuple[int, int, str], str, Outcome | None]


class ChunkLog:
    """One run's chunks, as the log knows them. Owned by the run's `MapReduce`."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self._recorder = recorder
        self._options = plan.options
        self._addresses = plan.addresses
        self._own: dict[str, Outcome] = {}
        self._next: dict[int, int] = {}
        self._place: dict[int, tuple[int, str]] = {}

    async def begin(self) -> None:
        """Read what this run's chunks were answered before."""
        if (log := self._recorder.log) is None:
            return
        try:
            before = await asyncio.to_thread(log.answers, f"{self._recorder.run}{PARTS_SUFFIX}")
        except sqlite3.Error as exc:
            self._recorder.give_up(exc)
            return
        for place, (key, outcome) in before.items():
            row = place // PARTS_PER_ROW
            self._next[row] = max(self._next.get(row, 0), place % PARTS_PER_ROW + 1)
            if key is not None and outcome.status == "ok" and not self._options.refresh:
                self._own[key] = outcome

    def cut(self, row: int) -> None:
        """This row is asked in chunks: its answer is kept apart from that of the whole prompt."""
        self._recorder.chunk(row)

    def keys(self, requests: Sequence[Request]) -> list[str]:
        """The key of each."""
        return [r.key(self._addresses[r.route]) for r in requests]

    def known(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """Answers that need not be asked for again; they cost nothing now."""
        answers = {key: self._own[key] for key in keys if key in self._own}
        log = self._recorder.log
        if log is not None and self._options.cache and not self._options.refresh:
            try:
                answers = log.cached([key for key in keys if key not in answers]) | answers
            except sqlite3.Error as exc:
                self._recorder.give_up(exc)
        return {key: from_log(o) for key, o in answers.items()}

    def replay(self, request: Request, plan: chunking.ChunkPlan) -> Iterator[ChunkResult]:
        """The chunks of a row whose answer was there already, as far as the log still has theirs."""
        slots: Sequence[Prompt | str] = plan.parts
        for number in count(1):
            requests = [replace(request, messages=slot.messages) for slot in slots if isinstance(slot, Prompt)]
            keys = self.keys(requests)
            known = self.known(keys)
            for i, (chunk, key) in enumerate(zip(requests, keys, strict=True), 1):
                yield (request.row, number, str(i)), Prompt(chunk.messages).text, known.get(key)
            if len(slots) < 2 or not all(key in known for key in keys):
                return
            answers = iter([known[key].text or "" for key in keys])
            slots = plan.reduce([next(answers) if isinstance(slot, Prompt) else slot for slot in slots])

    def keep_requests(self, row: int, chunks: Sequence[tuple[Request, str, list[Any], Outcome | None]]) -> None:
        """Keep what is asked for a row, in order: request, key, label, and the answer where it is known."""
        stored = []
        for request, key, label, outcome in chunks:
            if key in self._own:
                continue
            place = row * PARTS_PER_ROW + self._next.get(row, 0)
            self._next[row] = self._next.get(row, 0) + 1
            self._place[request.row] = place, key
            stored.append(StoredRow(place, request.sample, key, [row, *label], request.messages, request.sampling))
            if outcome is not None:
                self._recorder.keep_end(PARTS_SUFFIX, Ended(place, outcome, time.time()), key)
        if stored:
            self._recorder.keep_requests(PARTS_SUFFIX, stored)

    def keep_end(self, number: int, event: Ended) -> Awaitable[None] | None:
        """Keep how a chunk ended. Returns something to wait for where it must be on disk first."""
        place, key = self._place[number]
        return self._recorder.keep_end(PARTS_SUFFIX, replace(event, row=place), key)


def table(chunks: Sequence[ChunkResult], index: Any = None) -> pd.DataFrame:
    """Chunks as a frame: the prompt, and the columns of a result, on the levels of the run's `index`, then `round` and `part`."""
    labels = [] if index is None else index.tolist()
    rows = [labels[row] if labels else row for (row, *_), *_ in chunks]
    where = [
        [*(row if isinstance(row, tuple) else [row]), number, label] for row, ((_, number, label), *_) in zip(rows, chunks, strict=True)
    ]
    result = frame.build([outcome for *_, outcome in chunks], frame.restore_index(where))
    result.insert(0, "prompt", [text for _, text, _ in chunks])
    if chunks:
        result.index.names = [*([None] if index is None else index.names), "round", "part"]
    return result.astype({"prompt": "string"})
