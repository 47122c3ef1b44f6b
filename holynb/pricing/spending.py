"""What was spent, asked of the run log: by day and route, this month so far, where the month leads. Reads only; sends nothing.

What was paid counts on the day it was paid, at the price of that moment, and for the route that was paid, whatever became of the row later.
Answers given again from the log cost nothing and are counted apart.
An answer whose price is not known is counted as unknown, never as 0; a pool without a price has none to know.
"""

from __future__ import annotations

import calendar
import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from holynb.pricing.estimate import MeasuredAnswer
from holynb.runlog import PARTS_SUFFIX, WITHOUT_PARTS, RunLog
from holynb.types import Message, Route, Usage

__all__ = ["Month", "Speed", "SpendingLine", "by_day", "month", "recent_answers", "reusable_answers", "speed", "total"]


@dataclass(frozen=True, slots=True)
class SpendingLine:
    """What one route was asked on one day (local time), None where several are added up. `rows` ended there, `failed` of them without an
    answer. `cost` sums what is known (None: nothing is) over every attempt; `unknown` says of how many it is not. `model` is as the server
    named it; `cached` rows were answered from the log.
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

    @property
    def provider(self) -> str | None:
        return self.route and self.route.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month so far. `pace` is dollars a day since the month began, or since the log did; `ahead` is where the month ends at it.

    What the simulator is said to cost is nobody's money: it is in `simulated`, and in nothing else here.
    """

    first: dt.date
    so_far: SpendingLine
    simulated: SpendingLine
    days: int
    gone: float
    per_day: Decimal | None = None
    projected: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, read and written together, that one run made from its first request to its last answer."""

    run: str
    rows: int
    tokens_per_s: float


def by_day(log: RunLog, since: float | None = None, until: float | None = None) -> list[SpendingLine]:
    """A line for each day, route and model between two times (seconds since 1970), the newest day first, the dearest route first."""
    sql = """
        SELECT date(at, 'unixepoch', 'localtime') AS day, route, model, sum(what IN ('answer', 'error', 'cached')), sum(what = 'error'), sum(what = 'cached'),
               sum(tokens_in), sum(tokens_out), dollars(cost),
               sum(cost IS NULL AND what IN ('answer', 'attempt') AND coalesce(route, '') NOT LIKE 'pool/%')
        FROM payments WHERE at >= ? AND at < ? GROUP BY day, route, model"""
    with log.reading() as db:
        db.create_aggregate("dollars", 1, _Dollars)  # type: ignore[arg-type]  # its finalize gives text or None, both of which SQLite takes
        rows = db.execute(sql, (since or 0.0, 1e12 if until is None else until)).fetchall()
    lines = _named([_line(*row) for row in rows])
    return sorted(lines, key=lambda s: (s.day or dt.date.min, s.cost or Decimal(-1), s.route or ""), reverse=True)


def total(lines: Sequence[SpendingLine], *, day: dt.date | None = None, route: str | None = None, model: str | None = None) -> SpendingLine:
    """Lines added up under one name."""
    costs = [s.cost for s in lines if s.cost is not None]
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
    )


def month(log: RunLog, now: dt.datetime) -> Month:
    """The month of `now` (local time) so far. A log that began within it sets the pace from its own first answer, of a day at least."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = calendar.monthrange(now.year, now.month)[1]
    lines = by_day(log, start.timestamp(), now.timestamp())
    so_far, simulated = (total([s for s in lines if (s.provider == "sim") is sim]) for sim in (False, True))
    gone = (now - start) / dt.timedelta(days=1)
    with log.reading() as db:
        (oldest,) = db.execute("SELECT min(at) FROM payments WHERE route NOT LIKE 'sim/%'").fetchone()
    if so_far.cost is None or oldest is None:
        return Month(start.date(), so_far, simulated, days, gone)
    seen = max(1.0, (now.timestamp() - max(start.timestamp(), oldest)) / 86400)
    pace = so_far.cost / Decimal(str(seen))
    return Month(start.date(), so_far, simulated, days, gone, pace, so_far.cost + pace * Decimal(str(days - gone)))


def reusable_answers(log: RunLog) -> tuple[int, Decimal | None]:
    """How many answers the log would give again, and what they cost when they were asked (simulated dollars left out)."""
    sql = f"""SELECT count(*), dollars(CASE WHEN route NOT LIKE 'sim/%' THEN cost END) FROM answers a
        WHERE status = 'ok' AND shared = 1 AND key IS NOT NULL AND {WITHOUT_PARTS}"""  # noqa: S608
    with log.reading() as db:
        db.create_aggregate("dollars", 1, _Dollars)  # type: ignore[arg-type]
        count, cost = db.execute(sql).fetchone()
    return count, None if cost is None else Decimal(cost)


def recent_answers(log: RunLog, route: Route, most: int = 400) -> list[MeasuredAnswer]:
    """The newest answers of a route with what the server counted, from its last five runs: what an estimate can learn from."""
    sql = f"""
        WITH newest AS (SELECT id FROM runs WHERE route = ?1 ORDER BY started DESC LIMIT 5)
        SELECT r.body, a.tokens_in, a.tokens_out FROM answers a JOIN requests r ON r.run = a.run AND r.row = a.row
        WHERE a.run IN (SELECT id FROM newest UNION SELECT id || '{PARTS_SUFFIX}' FROM newest) AND {WITHOUT_PARTS}
          AND a.route = ?1 AND a.status = 'ok' AND NOT a.cached AND a.tokens_in IS NOT NULL AND a.tokens_out IS NOT NULL
        ORDER BY a.at DESC LIMIT ?2"""  # noqa: S608
    with log.reading() as db:
        rows = db.execute(sql, (str(route), most)).fetchall()
    return [MeasuredAnswer(route, tuple(Message(*m) for m in json.loads(body)["messages"]), Usage(a, b)) for body, a, b in rows]


def speed(log: RunLog, route: Route, rows: int = 8) -> Speed | None:
    """What the newest run of at least `rows` fresh answers made on this route; None where there is none, or nobody counted tokens."""
    sql = """
        SELECT a.run, r.name, count(*), sum(a.tokens_in + a.tokens_out), max(a.at) - min(a.at - a.latency_s)
        FROM answers a JOIN runs r ON r.id = a.run
        WHERE a.route = ? AND a.status = 'ok' AND NOT a.cached AND a.latency_s IS NOT NULL AND a.tokens_in + a.tokens_out IS NOT NULL
        GROUP BY a.run HAVING count(*) >= ? ORDER BY r.started DESC LIMIT 1"""
    with log.reading() as db:
        found = db.execute(sql, (str(route), rows)).fetchone()
    if found is None or not found[4] or found[4] <= 0:
        return None
    run, name, count, tokens, seconds = found
    return Speed(name or run, count, tokens / seconds)


class _Dollars:
    """Exact sums in SQLite, whose own would be of floats."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, value: str | None) -> None:
        if value is not None:
            self._sum = (self._sum or Decimal(0)) + Decimal(value)

    def finalize(self) -> str | None:
        return None if self._sum is None else str(self._sum)


def _named(lines: Sequence[SpendingLine]) -> list[SpendingLine]:
    """Rows that no model answered beside the one model that their route had on that day, where it had one."""
    found: dict[tuple[dt.date | None, str | None], list[SpendingLine]] = {}
    for each in lines:
        found.setdefault((each.day, each.route), []).append(each)
    named = []
    for (day, route), those in found.items():
        models = [s.model for s in those if s.model is not None]
        named += [total(those, day=day, route=route, model=models[0])] if len(models) == 1 else those
    return named


def _line(day: str, route: str | None, model: str | None, *counts: int | str | None) -> SpendingLine:
    rows, failed, cached, tokens_in, tokens_out, cost, unknown = counts
    known = None if cost is None else Decimal(cost)
    n = [int(c or 0) for c in (rows, failed, cached, tokens_in, tokens_out, unknown)]
    return SpendingLine(dt.date.fromisoformat(day), route, model, n[0], n[1], n[2], n[3], n[4], known, n[5])
