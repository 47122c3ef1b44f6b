"""The batches of a run and what the run log holds of them: begun, moved on, found again by a later kernel. Asks no provider.

Owned by the io thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from holynb import batches
from holynb.batches import MARK_CHARS, Standing, custom_id, row_of
from holynb.errors import BadSetting
from holynb.run.batch.answers import Origin
from holynb.run.plan import Plan
from holynb.runlog import RunLog, StoredPiece
from holynb.scheduler import WorkItem
from holynb.types import Outcome, Route
from holynb.words import counted

__all__ = ["OpenBatch", "PieceLog"]


@dataclass(slots=True, eq=False)
class OpenBatch:
    """One batch. `items`: by row, those that have not ended; `read`: its results are, and only what is asked again keeps it open;
    `gaps`: how often they were read and had no line for some; `trouble`: why it could not be asked for the last time.

    `written_with`: the traits that its requests were written with, None where an earlier kernel wrote them.
    """

    stored: StoredPiece
    items: dict[int, WorkItem] = field(default_factory=dict)
    standing: Standing | None = None
    read: bool = False
    gaps: int = 0
    trouble: str = ""
    written_with: frozenset[str] | None = None
    held: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin:
        return Origin(self.stored.at, self.written_with)

    @property
    def route(self) -> Route:
        return Route.parse(self.stored.route)

    def item(self, id_: str) -> WorkItem | None:
        """The item of a result; None where it is another batch's, or its row asks something else by now, or has ended."""
        place = row_of(self.stored.key, id_)
        return None if place is None or self.stored.rows.get(place[0]) != place[1] else self.items.pop(place[0], None)

    def line(self) -> str:
        """`batch_x at openai: 1,000 rows, 400 done, fetch before 2026-12-29`."""
        p, provider = self.stored, self.route.provider
        name = f"{p.id} at {provider}" if p.id else f"a batch at {provider}"
        parts = [counted(len(p.rows), "row")]
        if self.standing is not None and self.standing.done:
            parts.append(f"{self.standing.done:,} done")
        if p.id is None:
            parts.append(f"held until {', '.join(self.held)} can be read" if self.held else "looked up before anything is sent again")
        elif p.state == "cancelling":
            parts.append("it is being cancelled")
        if self.trouble:
            parts.append(f"not to be asked for now ({self.trouble.rstrip('.')})")
        if p.fetch_before is not None:
            limits = batches.table().get(provider)
            about = "about " if limits is None or "kept_days" in limits.unread else ""
            parts.append(f"fetch before {about}{time.strftime('%Y-%m-%d', time.localtime(p.fetch_before))}")
        return f"{name}: {', '.join(parts)}"


class PieceLog:
    """`last`: the number of the newest batch of this run, whatever became of it."""

    def __init__(self, plan: Plan, run: str, log: RunLog) -> None:
        self._plan, self._run, self._log = plan, run, log
        self.last = 0

    @property
    def next_key(self) -> str:
        """The key of the batch that comes next."""
        return f"{self._run}-{self.last + 1}"

    def id_of(self, item: WorkItem) -> str:
        """The id of a row in the next batch."""
        return custom_id(self.next_key, item.request.row, self._mark(item.request.row))

    async def begin(self, route: Route, items: Iterable[WorkItem], *, again: bool) -> OpenBatch:
        """Write down that a batch is about to be submitted. Raises BadSetting where that cannot be written."""
        of_row = {item.request.row: item for item in items}
        marks = {row: self._mark(row) for row in of_row}
        key, self.last = self.next_key, self.last + 1
        stored = StoredPiece(self._run, self.last, key, str(route), "again" if again else "rows", marks, at=time.time())
        try:
            await self._log.submit(stored)
        except Exception as exc:
            raise BadSetting(
                f"The run log {self._log.path} cannot be written ({exc}), so a batch would not be found again, and none was submitted. "
                "Free space, or set HOLYNB_HOME to another place."
            ) from exc
        return OpenBatch(stored, of_row)

    def move(self, piece: OpenBatch, state: str, standing: Standing | None = None, kept_s: float = 0.0) -> None:
        """Write how a batch has moved on; with what its provider says of it where it has just been accepted."""
        if standing is not None:
            now = time.time()
            created = min(now, standing.created or now)
            piece.stored = replace(piece.stored, id=standing.id, submitted=now, fetch_before=created + kept_s)
        piece.stored = replace(piece.stored, state=state)
        self._log.move(piece.stored).add_done_callback(lambda done: done.cancelled() or done.exception())

    async def adopt(self, items: list[WorkItem]) -> tuple[list[OpenBatch], list[WorkItem], dict[int, Outcome], Mapping[int, float]]:
        """The open batches with the items that are in them; the items that are in none; what the log has of rows that failed in a batch
        whose reading broke off; when each row was last paid for. A row in several batches belongs to the newest.
        """
        stored = await asyncio.to_thread(self._log.batches, self._run)
        self.last = await asyncio.to_thread(self._log.last_piece, self._run)
        if not stored:
            return [], items, {}, {}
        failed, paid = await asyncio.to_thread(self._log.since, self._run)
        earlier = await asyncio.to_thread(self._log.answers, self._run)
        pieces = [OpenBatch(p) for p in stored]
        of_row = {(row, mark): piece for piece in pieces for row, mark in piece.stored.rows.items()}
        new: list[WorkItem] = []
        stands: dict[int, Outcome] = {}
        for item in items:
            rows = ((row, self._mark(row)) for row in (item.request.row, *item.followers))
            hit = next((r for r in rows if r in of_row), None)
            if hit is None:
                new.append(item)
            elif failed.get(hit[0], 0.0) >= of_row[hit].stored.at:
                stands[item.request.row] = earlier[hit[0]][1]
                new.append(item)
            else:
                of_row[hit].items[hit[0]] = item
        return pieces, new, stands, paid

    async def asked_to_end(self, pieces: Iterable[OpenBatch]) -> bool:
        """Whether another process has asked for the end of one of these."""
        try:
            states = {p.piece: p.state for p in await asyncio.to_thread(self._log.batches, self._run)}
        except (sqlite3.Error, OSError):  # a log that cannot be read now is no reason to stop
            return False
        to_end = [p for p in pieces if states.get(p.stored.piece) == "cancelling" != p.stored.state]
        for piece in to_end:
            piece.stored = replace(piece.stored, state="cancelling")
        return bool(to_end)

    def others(self, piece: OpenBatch) -> frozenset[str]:
        """The ids of all other batches that the log knows."""
        return frozenset(p.id for p in self._log.batches(only_open=False) if p.id is not None and p.key != piece.stored.key)

    def _mark(self, row: int) -> str:
        return (self._plan.keys.of(row) or "")[:MARK_CHARS]
