"""Spending from the run log: by day and route, this month so far, projected to its end. Reads only; sends nothing.

A payment counts on its own day, at the price of that moment and for the route that was paid, whatever became of the row later.
Cached answers cost nothing and are counted apart.
An answer of unknown price counts as unknown, never as 0; a pool without a price has none.
"""

from __future__ import annotations

import calendar
import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from holynb.pricing.estimate import MeasuredAnswer
from holynb.runlog import PARTS_SUFFIX, SIMULATED_ROUTE, UNSETTLED, WITHOUT_PARTS, RunLog, messages
from holynb.types import SIMULATED, Route, Usage

__all__ = [
    "NOTHING",
    "HeldDollars",
    "Month",
    "Paid",
    "Speed",
    "SpendingLine",
    "by_day",
    "held",
    "month",
    "paid",
    "recent_answers",
    "reusable_answers",
    "speed",
    "tokens",
    "total",
]


@dataclass(frozen=True, slots=True)
class SpendingLine:
    """One route and model on one day (local time); None where several are summed. `model` is as the server named it.

    `rows` ended there, `failed` of them without an answer, `cached` of them answered from the log. `cost` sums the known costs of all
    attempts (None: none is known); `unknown` counts those without.
    """

    day: dt.date | None
    route: str | None
    model: str | None
    rows: int = 0
    failed: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: Decimal | None = None
    unknown: int = 0
    tokens_reasoning: int | None = None
    """Those of `tokens_out` that are known to have been thought; None where no server said."""

    @property
    def provider(self) -> str | None:
        return self.route and self.route.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month so far. `per_day`: dollars since the month or the log began; `projected`: the whole month at that rate.

    The simulator's dollars are not real: they are in `simulated` alone.
    """

    first: dt.date
    so_far: SpendingLine
    simulated: SpendingLine
    days: int
    elapsed_days: float
    per_day: Decimal | None = None
    projected: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, input and output together, of one run from its first request to its last answer."""

    run: str
    rows: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Paid:
    """What one run has paid: dollars that are `known`, and by row, how many answers and attempts had a cost that is not."""

    known: Decimal = Decimal(0)
    unknown: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldDollars:
    """Dollars that a run wrote down before it sent more.

    now:    the most that is gone by now; None where it came to its end.
    unseen: the most that was under way when its process was killed, all times together.
    """

    now: Decimal | None = None
    unseen: Decimal = Decimal(0)


NOTHING = Paid()


def paid(log: RunLog, run: str) -> Paid:
    """What a run has paid, all attempts of all its rows. A pool's time is no such money, and what the simulator says it costs is."""
    sql = """SELECT row, cost, count(*) FROM payments WHERE run = ? AND coalesce(route, '') NOT LIKE 'pool/%'
        AND (cost IS NOT NULL OR what IN ('answer', 'attempt')) GROUP BY row, cost"""
    known, unknown = Decimal(0), Counter[int]()
    with log.reading() as db:
        for row, cost, times in db.execute(sql, (run,)):
            if cost is None:
                unknown[row] += times
            else:
                known += Decimal(cost) * times
        # Nobody said what these cost, if anything: they were stopped or failed at work.
        for row, attempts in db.execute(f"SELECT row, attempts FROM answers WHERE run = ? AND {UNSETTLED}", (run,)):  # noqa: S608 - of ours
            unknown[row] = max(unknown[row], attempts)
    return Paid(known, unknown)


def held(log: RunLog, run: str) -> HeldDollars | None:
    """What a run wrote down of its budget; None where the log has no such run."""
    with log.reading() as db:
        columns = db.execute("SELECT held, unseen FROM runs WHERE id = ?", (run,)).fetchone()
    return columns and HeldDollars(None if columns[0] is None else Decimal(columns[0]), Decimal(columns[1] or 0))


def tokens(log: RunLog, run: str) -> tuple[int, int]:
    """Tokens in and out of all that a run was billed for: every attempt, every part, every time it went on, and a judge's."""
    sql = "SELECT coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0) FROM payments WHERE run = ? AND what != 'cached'"
    with log.reading() as db:
        tokens_in, tokens_out = db.execute(sql, (run,)).fetchone()
    return tokens_in, tokens_out


def by_day(log: RunLog, since: float | None = None, until: float | None = None) -> list[SpendingLine]:
    """A line per day, route and model between two times (seconds since 1970); newest day first, then highest cost."""
    sql = """
        SELECT date(at, 'unixepoch', 'localtime') AS day, route, model,
               sum(what IN ('answer', 'error', 'cached')), sum(what = 'error'), sum(what = 'cached'),
               sum(tokens_in), sum(tokens_out), dollars(cost),
               sum(cost IS NULL AND what IN ('answer', 'attempt') AND coalesce(route, '') NOT LIKE 'pool/%'), sum(tokens_reasoning)
        FROM payments WHERE at >= ? AND at < ? GROUP BY day, route, model"""
    with log.reading() as db:
        db.create_aggregate("dollars", 1, _DecimalSum)  # type: ignore[arg-type]  # finalize returns str | None, both of which SQLite takes
        rows = db.execute(sql, (since or 0.0, 1e12 if until is None else until)).fetchall()
    lines = _merge_unanswered([_to_line(*row) for row in rows])
    return sorted(lines, key=lambda s: (s.day or dt.date.min, s.cost or Decimal(-1), s.route or ""), reverse=True)


def total(lines: Sequence[SpendingLine], *, day: dt.date | None = None, route: str | None = None, model: str | None = None) -> SpendingLine:
    """The sum of lines, under the given names."""
    costs = [s.cost for s in lines if s.cost is not None]
    thoughts = [s.tokens_reasoning for s in lines if s.tokens_reasoning is not None]
    return SpendingLine(
        day,
        route,
        model,
        sum(s.rows for s in lines),
        sum(s.failed for s in lines),
        sum(s.cached for s in lines),
        sum(s.tokens_in for s in lines),
        sum(s.tokens_out for s in lines),
        sum(costs, Decimal(0)) if costs else None,
        sum(s.unknown for s in lines),
        sum(thoughts) if thoughts else None,
    )


def month(log: RunLog, now: dt.datetime) -> Month:
    """The month of `now` (local time) so far. Where the log began within it, its rate is since the first payment, over a day at least."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = calendar.monthrange(now.year, now.month)[1]
    lines = by_day(log, start.timestamp(), now.timestamp())
    so_far, simulated = (total([s for s in lines if (s.provider in SIMULATED) is sim]) for sim in (False, True))
    elapsed_days = (now - start) / dt.timedelta(days=1)
    with log.reading() as db:
        (oldest,) = db.execute(f"SELECT min(at) FROM payments WHERE NOT {SIMULATED_ROUTE}").fetchone()  # noqa: S608 - a constant of ours
    if so_far.cost is None or oldest is None:
        return Month(start.date(), so_far, simulated, days, elapsed_days)
    days_of_log = max(1.0, (now.timestamp() - max(start.timestamp(), oldest)) / 86400)
    pace = so_far.cost / Decimal(str(days_of_log))
    return Month(start.date(), so_far, simulated, days, elapsed_days, pace, so_far.cost + pace * Decimal(str(days - elapsed_days)))


def reusable_answers(log: RunLog) -> tuple[int, Decimal | None]:
    """(count, original cost) of the answers that the cache can give; simulated dollars excluded."""
    sql = f"""SELECT count(*), dollars(CASE WHEN NOT {SIMULATED_ROUTE} THEN cost END) FROM answers a
        WHERE status = 'ok' AND shared = 1 AND key IS NOT NULL AND {WITHOUT_PARTS}"""  # noqa: S608
    with log.reading() as db:
        db.create_aggregate("dollars", 1, _DecimalSum)  # type: ignore[arg-type]
        count, cost = db.execute(sql).fetchone()
    return count, None if cost is None else Decimal(cost)


def recent_answers(log: RunLog, route: Route, limit: int = 400) -> list[MeasuredAnswer]:
    """The newest answers of a route with the server's usage, from its last five runs, for estimates."""
    sql = f"""
        WITH newest AS (SELECT id FROM runs WHERE route = ?1 ORDER BY started DESC LIMIT 5)
        SELECT r.body, a.tokens_in, a.tokens_out FROM answers a JOIN requests r ON r.run = a.run AND r.row = a.row
        WHERE a.run IN (SELECT id FROM newest UNION SELECT id || '{PARTS_SUFFIX}' FROM newest) AND {WITHOUT_PARTS}
          AND a.route = ?1 AND a.status = 'ok' AND NOT a.cached AND a.tokens_in IS NOT NULL AND a.tokens_out IS NOT NULL
        ORDER BY a.at DESC LIMIT ?2"""  # noqa: S608
    with log.reading() as db:
        rows = db.execute(sql, (str(route), limit)).fetchall()
    return [MeasuredAnswer(route, messages(json.loads(body)["messages"]), Usage(a, b)) for body, a, b in rows]


def speed(log: RunLog, route: Route, rows: int = 8) -> Speed | None:
    """Speed of the newest run of at least `rows` fresh answers on this route; None where there is none, or tokens were not counted."""
    sql = """
        SELECT a.run, r.name, count(*), sum(a.tokens_in + a.tokens_out), max(a.at) - min(a.at - a.latency_s)
        FROM answers a JOIN runs r ON r.id = a.run
        WHERE a.route = ? AND a.status = 'ok' AND NOT a.cached AND a.latency_s IS NOT NULL AND a.tokens_in + a.tokens_out IS NOT NULL
        GROUP BY a.run HAVING count(*) >= ? ORDER BY r.started DESC LIMIT 1"""
    with log.reading() as db:
        record = db.execute(sql, (str(route), rows)).fetchone()
    if record is None or not record[4] or record[4] <= 0:
        return None
    run, name, count, tokens, seconds = record
    return Speed(name or run, count, tokens / seconds)


class _DecimalSum:
    """Exact decimal sums in SQLite, whose own are of floats."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, value: str | None) -> None:
        if value is not None:
            self._sum = (self._sum or Decimal(0)) + Decimal(value)

    def finalize(self) -> str | None:
        return None if self._sum is None else str(self._sum)


def _merge_unanswered(lines: Sequence[SpendingLine]) -> list[SpendingLine]:
    """Lines without a model merged into the one model of their route and day, where there is just one."""
    groups: dict[tuple[dt.date | None, str | None], list[SpendingLine]] = {}
    for line in lines:
        groups.setdefault((line.day, line.route), []).append(line)
    merged = []
    for (day, route), group in groups.items():
        models = [s.model for s in group if s.model is not None]
        merged += [total(group, day=day, route=route, model=models[0])] if len(models) == 1 else group
    return merged


def _to_line(day: str, route: str | None, model: str | None, *counts: int | str | None) -> SpendingLine:
    rows, failed, cached, tokens_in, tokens_out, cost, unknown, thought = counts
    dollars = None if cost is None else Decimal(cost)
    totals = [int(c or 0) for c in (rows, failed, cached, tokens_in, tokens_out, unknown)]
    return SpendingLine(
        dt.date.fromisoformat(day),
        route,
        model,
        totals[0],
        totals[1],
        totals[2],
        totals[3],
        totals[4],
        dollars,
        totals[5],
        None if thought is None else int(thought),
    )
