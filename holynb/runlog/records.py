"""Runs, requests and answers as facts, and as rows of the run log's tables. Pure; knows no connection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from holynb.attached import from_json
from holynb.events import Ended, Failed
from holynb.runlog.vectors import Vectors
from holynb.types import Message, Outcome, Sampling, Usage

__all__ = [
    "RunRecord",
    "StoredRow",
    "answer_row",
    "attempt_row",
    "messages",
    "outcome",
    "printable",
    "request_row",
    "run_record",
    "run_row",
    "stored_row",
]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as stored. `ok`, `failed` and `unknown` are counted from its answers, of which `unknown` ones have no cost. `cost` is what it
    has paid, all attempts of all its goes, and None where unknown ones are all that may have been paid; `simulated` of `cost` is the
    simulator's, None where nobody counted. `route`: where the first row goes first.
    """

    id: str
    name: str | None
    route: str
    n: int
    started: float
    ended: float | None = None
    status: str = "running"
    spec: Mapping[str, Any] = field(default_factory=dict)
    ok: int = 0
    failed: int = 0
    cost: Decimal | None = None
    unknown: int = 0
    simulated: Decimal | None = None

    @property
    def routes(self) -> str:
        """Every route that rows go to first, as a person reads them: several of a comparison."""
        first = self.spec.get("asked") or [self.route, *(self.spec.get("options", {}).get("compare") or ())]  # older logs have no `asked`
        return ", ".join(dict.fromkeys(map(str, first)))


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A request as it was sent, to send it again. `label`: of the index, as JSON; no `messages`: skipped; `route`: None in older logs.

    `expected`: what `--label` says that its answer should be.
    """

    row: int
    sample: int
    key: str | None
    label: Any
    messages: tuple[Message, ...]
    sampling: Sampling
    route: str | None = None
    expected: str | None = None


def printable(row: Sequence[Any]) -> tuple[Any, ...]:
    """`row` without lone surrogates, which SQLite refuses; a broken answer must not lose the whole group of statements."""
    return tuple([_printable(value) if value.__class__ is str and not value.isascii() else value for value in row])


def _printable(value: str) -> str:
    text = value.encode("utf-8", "replace").decode("utf-8")
    return value if text == value else text  # no second copy of an answer


#: JSON in ASCII. Made once: `json.dumps` makes an encoder for each row, which costs more than the row.
_json = json.JSONEncoder(default=str).encode


def run_row(record: RunRecord) -> tuple[Any, ...]:
    """Parameters of RUN_UPSERT."""
    return (record.id, record.name, record.route, record.n, record.started, json.dumps(record.spec, default=str))


def request_row(run: str, r: StoredRow) -> tuple[Any, ...]:
    """Parameters of REQUEST_UPSERT."""
    return (run, r.row, r.sample, r.key, str(r.label) if r.label.__class__ is int else _json(r.label), _body(r))


def attempt_row(run: str, event: Failed) -> tuple[Any, ...]:
    """Parameters of ATTEMPT_INSERT."""
    u = event.usage or Usage()
    what = (event.route, event.at, event.kind, event.message, event.wait)
    return printable((run, event.row, event.attempt, *what, u.tokens_in, u.tokens_out, event.raw))


def _body(r: StoredRow) -> str:
    s = r.sampling
    return _json(
        {
            "messages": [_turn(m) if m.attachments else (m.role, m.content) for m in r.messages],
            "route": r.route,
            "max_tokens": s.max_tokens,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "stop": list(s.stop),
            "seed": s.seed,
            "extra": dict(s.extra),
            **({} if s.think is None else {"think": s.think}),
            **({} if r.expected is None else {"expected": r.expected}),
        }
    )


def _turn(m: Message) -> list[Any]:
    """A turn with attachments as JSON; one without them is what it always was."""
    return [m.role, m.content, [a.to_json() for a in m.attachments]]


def messages(turns: Sequence[Sequence[Any]]) -> tuple[Message, ...]:
    """The turns of a request as its JSON has them."""
    return tuple(
        [Message(role, content, tuple(map(from_json, *more))) if more else Message(role, content) for role, content, *more in turns]
    )


def stored_row(row: int, sample: int, key: str | None, label: str | None, body: str) -> StoredRow:
    """A request from its columns."""
    fields = json.loads(body)
    turns, route = messages(fields.pop("messages")), fields.pop("route", None)
    expected, sampling = fields.pop("expected", None), Sampling(**{**fields, "stop": tuple(fields["stop"])})
    return StoredRow(row, sample, key, json.loads(label or "null"), turns, sampling, route, expected)


def answer_row(run: str, event: Ended, key: str | None, *, shared: bool, vector: bytes | int | None = None) -> tuple[Any, ...]:
    """Parameters of ANSWER_UPSERT. vector: what stands for the answer's (`vectors`); None: itself."""
    o, u = event.outcome, event.outcome.usage
    row = (
        run,
        event.row,
        key,
        int(shared),
        event.at,
        o.status,
        o.text,
        o.error_type,
        o.error,
        o.route,
        o.model,
        o.attempts,
        u.tokens_in,
        u.tokens_out,
        u.tokens_cached,
        u.tokens_cache_write,
        None if o.cost is None else str(o.cost),
        o.latency_s,
        o.ttft_s,
        o.finish_reason,
        int(o.cached),
        o.reasoning,
        u.tokens_reasoning,
        o.vector if vector is None else vector,
    )
    return printable(row)


def outcome(columns: Sequence[Any], vectors: Vectors | None = None) -> Outcome:
    """An outcome from ANSWER_COLUMNS. vectors: of the same log; without it a vector that does not stand in its row is not read."""
    status, text, error_type, error, route, model, attempts, t_in, t_out, t_cached, t_write, cost, *more = columns
    latency, ttft, finish, cached, reasoning, t_reasoning, vector = more
    return Outcome(
        status,
        text,
        error_type,
        error,
        route,
        model,
        attempts,
        Usage(t_in, t_out, t_cached, t_write, tokens_reasoning=t_reasoning),
        None if cost is None else Decimal(cost),
        latency,
        ttft,
        finish,
        bool(cached),
        reasoning,
        vector=vector if vectors is None or vector is None else vectors.of(vector),
    )


def _sum(costs: str) -> Decimal:
    """The sum of `COST*ROWS,…`."""
    pairs = (part.split("*") for part in costs.split(","))
    return sum((Decimal(cost) * int(rows) for cost, rows in pairs), Decimal())


def run_record(row: Sequence[Any]) -> RunRecord:
    """A run from its columns and the counts and costs of its answers."""
    id_, name, route, n, started, ended, status, spec, ok, failed, costs, unknown, unsettled, simulated = row
    cost, of_sim = (None if parts is None else _sum(parts) for parts in (costs, simulated))
    if not cost:
        # Rows that the log answered cost nothing: their 0 must not make an unknown cost look known. Refusals alone cost nothing, as known.
        cost = None if unknown or unsettled or (ok and cost is None) or not (ok or failed) else Decimal()
    return RunRecord(
        id_, name, route, n, started, ended, status, json.loads(spec), ok or 0, failed or 0, cost, unknown or 0, of_sim or Decimal()
    )
