"""What a scheduler is given of a plan: an item for each group of rows that ask the same. Of many rows, made when there is room for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from holynb.run import attaching, prefix_order
from holynb.run.pending import Pending, from_log
from holynb.run.pending_rows import Groups
from holynb.run.plan import Plan
from holynb.run.recorder import Recorder
from holynb.run.stored_requests import has_attachments, kind_of
from holynb.scheduler import Backlog, WorkItem
from holynb.spool import MANY
from holynb.types import Outcome, Request, Route
from holynb.words import counted

__all__ = ["backlogs", "continues", "end_rest", "items", "settled"]

Chains = Mapping[Route, Sequence[str]]


def settled(plan: Plan, pending: Pending) -> Iterator[tuple[int, Outcome]]:
    """The rows that need no request, each with how it ends: kept, answered by the log, or asking nothing."""
    requests, attached = plan.rows.requests, has_attachments(plan.rows.requests)
    for row in range(len(requests)):
        if row in plan.earlier.kept:
            yield row, plan.earlier.kept[row]
        elif row in pending.answers:
            yield row, from_log(pending.answers[row])
        elif kind_of(requests, row) is None:
            yield row, Outcome("skipped")
        elif attached and (broken := _broken(requests[row])) is not None:
            yield row, broken


def continues(plan: Plan, pending: Pending) -> Iterator[str]:
    """What to say where the run had fewer rows before, or other ones: how many are new, and what becomes of what it had."""
    before, now = plan.earlier.rows, len(plan.rows.requests)
    if before is None or (before >= now and not pending.displaced):
        return
    kept = sum(row not in pending.answers for row in plan.earlier.kept)
    answered = len(pending.answers) + kept
    verb = "was" if answered == 1 else "were"
    rest = "is new or was not" if now - answered == 1 else "are new or were not"
    counts = f"{counted(answered, 'row')} of {now:,} {verb} answered before; {now - answered:,} {rest}."
    if not pending.displaced:
        yield counts
        return
    of_them = "one" if pending.displaced == 1 else f"{pending.displaced:,}"
    again, place = (" and asking for them again costs nothing", "wherever they stand") if plan.options.cache else ("", "at their place")
    yield (
        f"{plan.options.name or plan.options.resume} had {counted(before, 'row')} before, {of_them} with another prompt, model or setting, and is "
        f"now about this cell's rows. Rows are matched by what they ask, {place}: {counts} Its answers of before stay in the run log{again}."
    )


def _broken(request: Request | None) -> Outcome | None:
    """How a row ends whose attachment cannot be sent."""
    return None if request is None else attaching.broken(request)


def items(requests: Sequence[Request | None], groups: Iterable[Sequence[int]], chains: Chains) -> Iterator[WorkItem]:
    """An item a group."""
    attached = has_attachments(requests)
    for first, *followers in groups:
        if (request := requests[first]) is not None and not (attached and attaching.broken(request)):
            yield WorkItem(request, chains[request.route], followers=followers)


def backlogs(requests: Sequence[Request | None], groups: Groups, chains: Chains) -> list[Backlog]:
    """A backlog for each route that some group asks first."""
    counts: dict[Route, int] = {}
    attached = has_attachments(requests)
    for first in groups.firsts:
        if (kind := kind_of(requests, first)) is not None and not (attached and _broken(requests[first])):
            counts[kind.route] = counts.get(kind.route, 0) + 1

    def of(route: Route) -> Iterator[list[int]]:
        return (groups.group(row) for row in groups.firsts if (kind := kind_of(requests, row)) is not None and kind.route == route)

    return [Backlog(chains[route], prefix_order.windows(items(requests, of(route), chains), route), n) for route, n in counts.items()]


def end_rest(recorder: Recorder, ending: Outcome) -> None:
    """End the rows of a run that have not ended."""
    if len(recorder.rows) >= MANY:
        recorder.end_rest(ending)
        return
    for row, outcome in enumerate(recorder.rows):
        if outcome is None:
            recorder.settle(row, ending)
