"""A run that ended early keeps its rest until that is sent: another cell of its name must not take its place. Reads the run log."""

from __future__ import annotations

from collections.abc import Sequence

from holynb import runlog
from holynb.config import settings
from holynb.errors import BadOption
from holynb.run import logged_rows
from holynb.run.plan import Plan
from holynb.runlog import RunRecord
from holynb.types import Message
from holynb.words import counted

__all__ = ["check", "ended_early"]


def ended_early(record: RunRecord) -> bool:
    """Whether a run was stopped or killed before its end, or waits for a batch, and nobody continues it now."""
    early = record.ended is None or record.status in ("stopped", "pending")
    return early and not runlog.Lease.is_held(settings.home(), record.id)


def check(plan: Plan, record: RunRecord) -> None:
    """Raise BadOption where rows that the run has not answered are none of the plan's: its log has room for one set of prompts, and
    they could not be sent any more. What is answered stays in the cache whatever happens. `--refresh` begins anew, knowingly.
    """
    if plan.options.refresh or not ended_early(record):
        return
    log, requests = runlog.log(), plan.rows.requests
    answered = logged_rows.chosen(logged_rows.outcomes(log, record.id, record.n), lambda outcome: outcome.status == "ok")
    lacking = []
    for stored in log.each_request(record.id):
        if stored.row in answered or not stored.messages:
            continue
        now = requests[stored.row] if stored.row < len(requests) else None
        if now is None or _words(now.messages) != _words(stored.messages):
            lacking.append(_words(stored.messages))
    if not lacking:
        return
    here = {_words(r.messages) for r in requests if r is not None}  # rows may have been sorted
    if (lost := sum(words not in here for words in lacking)) == 0:
        return
    name = record.name or record.id
    raise BadOption(
        f"{name} is unfinished, with {len(answered):,} of {counted(record.n, 'row')} answered, and {lost:,} of the others are not in this cell: "
        f"under its name they could not be sent any more. %infer resume {name} finishes it first; or use another --name, or --refresh to give it up."
    )


def _words(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((m.role, m.content) for m in messages)
