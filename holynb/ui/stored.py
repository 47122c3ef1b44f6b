"""A run as a record to show, wherever it is: in this session, or in the run log alone. Reads; sends nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from holynb.errors import BadOption
from holynb.types import Prompt
from holynb.ui import static

if TYPE_CHECKING:
    from holynb.types import Outcome

__all__ = ["record"]


def record(name: str | None = None) -> static.Record:
    """The run of this name or id; without one the session's last, else the log's newest. Raises BadOption."""
    from holynb import runlog
    from holynb.run import session

    run = session.find(name) if name else session.last()
    if run is not None:
        return static.of(run)
    if name is None:
        newest = runlog.log().runs(1)
        if not newest:
            raise BadOption("There is no run yet. Start one with %%infer.")
        name = newest[0].id
    return _from_log(name)


def _from_log(name: str) -> static.Record:
    from holynb import runlog, schema
    from holynb.config import settings
    from holynb.results.summary import summarize
    from holynb.run import resume

    kept = resume.stored(name)
    rows: list[Outcome | None] = [None] * kept.n
    for row, (_, outcome) in runlog.log().answers(kept.id).items():
        if row < kept.n:
            rows[row] = outcome
    asked, labels = [""] * kept.n, list[object](range(kept.n))
    for request in runlog.log().requests(kept.id):
        asked[request.row] = Prompt(request.messages).text
        labels[request.row] = request.label
    elsewhere = kept.spec.get("options", {}).get("price_as")
    told = summarize(
        rows,
        (kept.ended or kept.started) - kept.started,
        stopped=kept.status == "stopped",
        price_as=settings.route(elsewhere) if elsewhere else None,
    )
    held = schema.load(kept.spec["schema"]) if "schema" in kept.spec else None
    notes = _unfinished(kept.status, rows, kept.name or kept.id)
    return static.Record(f"{kept.name or kept.id} on {kept.route}", asked, rows, told, (), labels, kept.started, notes, held)


def _unfinished(status: str, rows: list[Outcome | None], name: str) -> list[str]:
    missing = Counter(o is None for o in rows)[True]
    if not missing:
        return []
    has = "row has" if missing == 1 else "rows have"
    return [f"{missing:,} {has} no answer in the run log ({status}). %infer resume {name} sends {'it' if missing == 1 else 'them'}."]
