"""What a plan will cost: the rows still to be sent, estimated from answers like them in the run log. Reads the log; sends nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from holynb import runlog
from holynb.config import settings, suggest
from holynb.errors import BadOption
from holynb.pricing import Estimate, MeasuredAnswer, spending
from holynb.pricing.estimate import estimate
from holynb.results import dollars
from holynb.run import assembly, attaching, pending_rows
from holynb.run.judge import Judge
from holynb.run.pending import Pending, read
from holynb.run.plan import Plan
from holynb.runlog import VERDICTS_SUFFIX
from holynb.scheduler import ResponseValidator
from holynb.spool import MANY, Spool
from holynb.types import Message, Prompt, Request, Route
from holynb.words import counted

__all__ = ["Quote", "check", "quote"]

#: Answers of a route from which an estimate is made.
MIN_ANSWERS = 8
#: Characters at the beginning of a prompt that make two of one kind: rows of one template share them, and a row asked before has its own.
LEAD_CHARS = 24


@dataclass(frozen=True, slots=True)
class Quote:
    """What will be sent (`estimate`, whose rows are requests) for how many `rows`.

    `answered`: rows that the log, an earlier run or an equal row answers. `free`: every route is a pool. `due`: the requests themselves.
    `verdicts`: how many answers a judge is asked about.
    """

    estimate: Estimate
    rows: int
    answered: int
    free: bool
    due: Sequence[Request] = field(default=(), repr=False)
    verdicts: int = 0

    @property
    def range(self) -> tuple[Decimal, Decimal] | None:
        """Dollars, low and high; None where a price is not known."""
        return (Decimal(0), Decimal(0)) if self.free else self.estimate.cost

    def says(self) -> str:
        """`$0.12 to $0.20`, `nothing`, or that the price is not known and of what."""
        if self.range is None:
            known = settings.providers()
            near = next((hint for route in self.estimate.unpriced if (hint := suggest.model(route, known))), "")
            return f"? (no price is known for {', '.join(map(str, self.estimate.unpriced))}{'.' + near if near else ''})"
        low, high = self.range
        return "nothing" if high == 0 else f"{dollars(low)} to {dollars(high)}"


def quote(plan: Plan) -> Quote:
    """The estimate of a plan, retries not counted. Where the log cannot be read, everything is taken as still to be sent."""
    try:
        log = runlog.log()
        due, left = _to_send(plan)
        parts = (p.messages for long in plan.rows.long.values() for p in long.parts)
        leads = {_lead(messages) for messages in (*(r.messages for r in plan.rows.requests if r is not None), *parts)}
        routes = {r.route for r in due}
        seen = [s for route in routes for s in spending.recent_answers(log, route) if _lead(s.messages) in leads]
    except sqlite3.Error:
        due, seen, left = [r for r in plan.rows.requests if r is not None], [], None
    rest = [r for r in due if r.route.provider != "pool"]
    known = sum(r is not None and attaching.broken(r) is None for r in plan.rows.requests) - len(due)
    measured = _well_measured(seen)
    if plan.judge is None:
        return Quote(_estimated(plan, rest or due, measured), len(rest or due), known, not rest, rest or due)
    judged = _judged_before(plan, plan.judge, left)
    first = _estimated(plan, rest if plan.judge.route.provider != "pool" else rest or due, measured)
    low, high = (_verdicts(plan, plan.judge, due, judged, out // max(1, len(due))) for out in estimate(due, measured).tokens_out)
    free = not rest and (plan.judge.route.provider == "pool" or not high.rows)
    return Quote(_sum(first, low, high), len(rest or due), known, free, rest or due, high.rows)


def check(plan: Plan, ask: Callable[[str], bool] | None = None) -> None:
    """Hold a plan against its `--confirm`. `ask` puts a question to a person; None where nobody could answer. Raises BadOption."""
    limit = plan.options.confirm
    if limit is None:
        return
    estimated = quote(plan)
    if estimated.range is not None and estimated.range[1] <= Decimal(str(limit)):
        return
    rows = f"{counted(estimated.rows, 'row')} on {plan.route}"
    if ask is None:
        plain = format(Decimal(f"{limit:g}"), "f")  # 0.00001, as it was written, and not 1e-05
        raise BadOption(
            f"{rows} may cost {estimated.says()}, which is above --confirm {plain}, and there is no way to ask here. "
            "Raise --confirm, or leave it out and set --budget."
        )
    if not ask(f"{rows} may cost {estimated.says()}. Send them? [y/N] "):
        raise BadOption("Nothing was sent.")


def _estimated(plan: Plan, rows: Sequence[Request], seen: Sequence[MeasuredAnswer]) -> Estimate:
    """The estimate of these rows; of one that is asked in parts, of its parts, and of putting answers of that length together."""
    if (validator := assembly.validator(plan)) is not None:
        rows = [validator.prepare(r, r.route) for r in rows]
    long = [r for r in rows if r.row in plan.rows.long]
    parts = [replace(r, messages=p.messages) for r in long for p in plan.rows.long[r.row].parts]
    first = estimate([*(r for r in rows if r.row not in plan.rows.long), *parts], seen, plan.billed)
    if not parts:
        return first
    answers = estimate(parts, seen).tokens_out
    low, high = (estimate(list(_joining(plan, long, out // len(parts))), seen, plan.billed) for out in answers)
    return _sum(first, low, high)


def _sum(first: Estimate, low: Estimate, high: Estimate) -> Estimate:
    """What comes first, and what comes of it, were its answers as short or as long as they may be."""
    return replace(
        first,
        rows=first.rows + high.rows,
        tokens_in=(first.tokens_in[0] + low.tokens_in[0], first.tokens_in[1] + high.tokens_in[1]),
        tokens_out=(first.tokens_out[0] + low.tokens_out[0], first.tokens_out[1] + high.tokens_out[1]),
        cost=(first.cost[0] + low.cost[0], first.cost[1] + high.cost[1]) if first.cost and low.cost and high.cost else None,
        unpriced=tuple(dict.fromkeys((*first.unpriced, *high.unpriced))),
    )


def _judged_before(plan: Plan, judge: Judge, left: Pending | None) -> list[Request]:
    """The verdicts still to be asked about answers that are there. Raises sqlite3.Error."""
    if left is None:
        return []
    answers = {row: o for row, o in {**left.answers, **plan.earlier.kept}.items() if o.status == "ok"}
    address = plan.addresses[judge.route]
    verdicts = {}
    for row, outcome in answers.items():
        if (request := plan.rows.requests[row]) is not None:
            verdict = judge.request(row, request.messages, outcome.text or "")
            verdicts[verdict.key(address)] = verdict
    log = runlog.log()
    known = {key for key, _ in log.answers(f"{plan.earlier.run}{VERDICTS_SUFFIX}").values()} if plan.earlier.run else set()
    known |= set(log.cached(list(verdicts))) if plan.options.cache and not plan.options.refresh else set()
    return [verdict for key, verdict in verdicts.items() if key not in known]


def _verdicts(plan: Plan, judge: Judge, due: Sequence[Request], judged: Sequence[Request], tokens: int) -> Estimate:
    """The estimate of the verdicts, were each answer to come of so many tokens."""
    filler = "word " * max(1, tokens)
    validator = ResponseValidator.of(judge.schema, [e for e in plan.targets.endpoints if e.route == judge.route], {})
    return estimate([validator.prepare(v, v.route) for v in (*judged, *(judge.request(r.row, r.messages, filler) for r in due))])


def _joining(plan: Plan, rows: Sequence[Request], answer: int) -> Iterator[Request]:
    """The requests that put the parts' answers together, were each of `answer` tokens."""
    filler = "word " * max(1, answer)
    prompts: dict[tuple[str, str, int, int], list[Prompt]] = {}  # rows of one template have the same
    for row in rows:
        long = plan.rows.long[row.row]
        key = long.before, long.after, long.max_tokens, len(long.parts)
        if key not in prompts:
            prompts[key], n = [], len(long.parts)
            while n > 1:
                next_ = long.reduce([filler] * n)
                prompts[key] += [p for p in next_ if isinstance(p, Prompt)]
                n = len(next_)
        yield from (replace(row, messages=p.messages) for p in prompts[key])


def _to_send(plan: Plan) -> tuple[list[Request], Pending]:
    """The requests that neither the plan's own earlier run, nor the cache, nor an equal row answers. Raises sqlite3.Error."""
    log = runlog.log()
    if len(plan.rows.requests) < MANY:
        left = read(plan, log, log.answers(plan.earlier.run) if plan.earlier.run else {})
    else:
        left, _ = pending_rows.read(plan, log, plan.earlier.run, Spool(settings.home()))
    requests = (plan.rows.requests[group[0]] for group in left.groups)
    return [r for r in requests if r is not None and attaching.broken(r) is None], left


def _lead(messages: Sequence[Message]) -> tuple[str, str]:
    """What makes two prompts of one kind: their system prompt, and how they begin."""
    system = "\n".join(m.content for m in messages if m.role == "system")
    return system, Prompt(tuple(messages)).text[:LEAD_CHARS]


def _well_measured(seen: list[MeasuredAnswer]) -> list[MeasuredAnswer]:
    """Routes of which too little was seen say nothing: an estimate from three answers would only look exact."""
    routes: dict[Route, int] = {}
    for one in seen:
        routes[one.route] = routes.get(one.route, 0) + 1
    return [s for s in seen if routes[s.route] >= MIN_ANSWERS]
