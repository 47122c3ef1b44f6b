"""What a judge's verdicts are held to, and what an answer is with the one on it, in a run or in the run log. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from holynb.faults import Fault
from holynb.results import is_pool
from holynb.run.judge import Judge
from holynb.run.plan import Plan
from holynb.runlog import PARTS_PER_ROW, VERDICTS_SUFFIX, RunLog
from holynb.scheduler import ResponseValidator, WorkItem, supports_schema
from holynb.types import Completion, Message, Outcome, Request, Route

__all__ = ["VerdictValidator", "judged", "of_log", "validator"]


def judged(answer: Outcome, verdict: Outcome, judge: Judge) -> Outcome:
    """A row's answer with its verdict: its attempts and dollars are of both, all else is the answer's own."""
    score, reason = judge.verdict(verdict)
    attempts = answer.attempts + verdict.attempts
    if not verdict.attempts:
        return replace(answer, score=score, score_reason=reason)
    # A pool without a price is free; any other unknown makes the sum unknown.
    parts = [o.cost for o in (answer, verdict) if o.cost is not None or not (is_pool(o.route) or not (o.attempts or o.cached))]
    known = [c for c in parts if c is not None]
    cost = sum(known, Decimal(0)) if known and len(known) == len(parts) else None
    return replace(answer, score=score, score_reason=reason, attempts=attempts, cost=cost)


def of_log(log: RunLog, run: str, rows: Sequence[Outcome | None], judge: Judge) -> list[Outcome | None]:
    """A run's answers as the log has them, each with the newest verdict on it."""
    verdicts = {place // PARTS_PER_ROW: outcome for place, (_, outcome) in sorted(log.answers(f"{run}{VERDICTS_SUFFIX}").items())}
    return [judged(o, verdicts[row], judge) if o is not None and o.status == "ok" and row in verdicts else o for row, o in enumerate(rows)]


def validator(plan: Plan, answers: ResponseValidator | None) -> ResponseValidator | None:
    """What verdicts and answers are held to: `answers` alone without a judge."""
    if plan.judge is None:
        return answers
    prompted = {e.route for e in plan.targets.endpoints if e.route == plan.judge.route and not supports_schema(e)}
    # How long a verdict may be is not the user's, so no option is named where it is cut off.
    return VerdictValidator(plan.judge.schema, prompted, {}, "the verdict", "", answers=answers, n=len(plan.rows.requests))


@dataclass(kw_only=True)
class VerdictValidator(ResponseValidator):
    """Holds verdicts, the rows from `n` on, to their schema, and answers to theirs where they have one (`answers`)."""

    answers: ResponseValidator | None
    n: int

    def prepare(self, request: Request, route: Route, repair: tuple[Message, ...] | None = None) -> Request:
        """As the validator of the row's kind does."""
        if request.row >= self.n:
            return super().prepare(request, route, repair)
        return request if self.answers is None else self.answers.prepare(request, route, repair)

    def check(self, item: WorkItem, completion: Completion) -> None:
        """As the validator of the row's kind does."""
        if item.request.row >= self.n:
            super().check(item, completion)
        elif self.answers is not None:
            self.answers.check(item, completion)

    def translate(self, item: WorkItem, route: Route, sent: Request, fault: Fault) -> Fault:
        """As the validator of the row's kind does."""
        if item.request.row >= self.n:
            return super().translate(item, route, sent, fault)
        return fault if self.answers is None else self.answers.translate(item, route, sent, fault)
