"""What a plan still has to send: rows that the run log answers, and rows that ask the same, told apart from the rest. Decided here alone.

`own_answers` and `pending` are pure: estimate and run give both what they read of the log. `read` reads it for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from holynb.run.plan import Plan
from holynb.runlog import RunLog
from holynb.types import Outcome

__all__ = ["Earlier", "Pending", "answered", "displaced", "from_log", "is_spent", "own_answers", "pending", "read", "shared_answers"]

#: Row → (key, outcome) of what a run answered or failed at, as the run log keeps it.
Earlier = Mapping[int, tuple[str | None, Outcome]]


@dataclass(frozen=True, slots=True)
class Pending:
    """answers: row → the outcome that the log has for it. own: rows that this run itself answered before.

    keys: the key under which each row's answer stands, or will.
    groups: the rows to send; those of a group ask the same, and the first is sent.
    saved: US dollars that the answers cost when they were asked; None where no price is known.
    displaced: how many rows the run had that ask something else now.
    """

    answers: Mapping[int, Outcome]
    own: Collection[int]
    keys: Sequence[str | None]
    groups: Iterable[Sequence[int]]
    saved: Decimal | None = None
    displaced: int = 0


def from_log(answer: Outcome) -> Outcome:
    """An outcome that the log has, for the run that does not send its request: nothing was sent, and nothing paid."""
    hint = " (from the run log; --refresh asks again)" if answer.status == "error" else ""
    words = answer.error if not hint or (answer.error or "").endswith(hint) else f"{answer.error}{hint}"
    return replace(answer, attempts=0, cost=Decimal(0), cached=True, error=words)


def own_answers(plan: Plan, earlier: Earlier) -> dict[int, tuple[str, Outcome]]:
    """Row → (key, outcome) of what the continued run answered and still holds: the same request, an answer that fits the schema."""
    if plan.options.refresh:
        return {}
    known = {
        row: (key, outcome)
        for row, (key, outcome) in earlier.items()
        if row < len(plan.rows.requests)
        and key is not None
        and (outcome.status == "ok" or is_spent(outcome))
        and (key in (plan.keys.of(row), plan.keys.chunked(row)) or (outcome.status == "ok" and key in plan.keys.older(row)))
    }
    return {row: (key, outcome) for row, (key, outcome) in known.items() if _holds(plan, outcome)}


def pending(plan: Plan, own: Mapping[int, tuple[str, Outcome]], shared: Mapping[str, Outcome]) -> Pending:
    """What is left of a plan. own: as `own_answers` gives it; shared: key → an answer that any run may use, empty where none may."""
    keys = [plan.keys.of(row) for row in range(len(plan.rows.requests))]
    answers: dict[int, Outcome] = {}
    for row, (answered_as, outcome) in answered(plan, own, shared, range(len(keys))).items():
        keys[row], answers[row] = answered_as, outcome
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key is not None and row not in answers and row not in plan.earlier.kept:
            groups.setdefault(key if plan.options.cache else f"row {row}", []).append(row)
    costs = [o.cost for row, o in answers.items() if o.cost is not None and row not in plan.earlier.kept]
    return Pending(answers, frozenset(own), keys, list(groups.values()), sum(costs, Decimal(0)) if costs else None)


def displaced(plan: Plan, earlier: Earlier, own: Collection[int], keys: Sequence[str | None]) -> list[int]:
    """Rows of the run as it was that ask something else now. A name that is used again for other prompts must not cost the answers
    that were paid under it.
    """
    return [
        row
        for row, (key, outcome) in earlier.items()
        if row not in own and (row >= len(keys) or (outcome.status == "ok" and key not in (keys[row], plan.keys.chunked(row))))
    ]


def answered(
    plan: Plan, own: Mapping[int, tuple[str, Outcome]], shared: Mapping[str, Outcome], rows: range
) -> dict[int, tuple[str, Outcome]]:
    """Row → (key, outcome) of what its own run or another has answered, of these rows."""
    answers = dict(own)
    for row in rows:
        if row in answers:
            continue
        # A row that a server found too long stands in the log as one that was asked in chunks.
        for key in dict.fromkeys((plan.keys.of(row), plan.keys.chunked(row))):
            if key is not None and key in shared and _holds(plan, shared[key]):
                answers[row] = key, shared[key]
                break
        if shared and row not in answers:  # what was cut short there may be whole now; what was answered counts
            for key in plan.keys.older(row):
                if key in shared and shared[key].status == "ok" and _holds(plan, shared[key]):
                    answers[row] = key, shared[key]
                    break
    return answers


def read(plan: Plan, log: RunLog, earlier: Earlier) -> Pending:
    """`pending`, with the shared answers of this log. Raises sqlite3.Error."""
    own = own_answers(plan, earlier)
    return pending(plan, own, shared_answers(plan, log, own, range(len(plan.rows.requests))))


def shared_answers(plan: Plan, log: RunLog, own: Mapping[int, tuple[str, Outcome]], among: range) -> dict[str, Outcome]:
    """Key → what the log has of any run for these rows, those apart that this run answered itself. Raises sqlite3.Error."""
    if not plan.options.cache or plan.options.refresh:
        return {}
    rows = [row for row in among if row not in own]
    keys = {row: [key for key in (plan.keys.of(row), plan.keys.chunked(row)) if key is not None] for row in rows}
    shared = log.cached(list(dict.fromkeys(key for several in keys.values() for key in several)))
    older = dict.fromkeys(key for row in rows if shared.keys().isdisjoint(keys[row]) for key in plan.keys.older(row))
    return shared | (log.cached(list(older)) if older else {})


def is_spent(outcome: Outcome) -> bool:
    """Whether a row ended by length before a word of its answer came, so that the same request would only be paid for again."""
    return outcome.status == "error" and (outcome.error_type, outcome.finish_reason) == ("truncated", "length")


def _holds(plan: Plan, outcome: Outcome) -> bool:
    """Whether this is an answer that holds to the schema, or a spent one. An older log calls an empty one ok, and a refusal; and the checks
    of a pydantic model may have changed where what a server is told has not.
    """
    if is_spent(outcome):
        return True
    if plan.options.embed:
        return outcome.vector is not None
    text = outcome.text or ""
    return bool(text.strip()) and outcome.finish_reason != "refusal" and (plan.schema is None or plan.schema.check(text).error is None)
