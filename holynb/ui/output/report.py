"""A run as facts to show, wherever it is: of this session, or of the run log alone. Reads; sends nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holynb.errors import BadOption
from holynb.types import Noted, Prompt
from holynb.ui.output import series
from holynb.ui.output.text import clip, one_line, shared_prefix

if TYPE_CHECKING:
    from holynb.results import Summary
    from holynb.run import SessionRun
    from holynb.schema import Schema
    from holynb.types import Event, Outcome

__all__ = ["MOST_ROWS", "Report", "labels", "load", "notes", "of", "title", "trouble", "ways"]

#: Rows shown at most, characters of a prompt in a cell at most.
MOST_ROWS, MOST_PROMPT = 50, 160
#: Columns of a schema that have room beside the others; of more, the answers are shown as they came.
MOST_COLUMNS = 6
#: The index levels that `--compare` and `--samples` add.
LEVELS = ["asked_route", "sample"]


@dataclass(frozen=True, slots=True)
class Report:
    """A run as facts: of this session, of the run log, of a file. `labels` are index labels, None for 0…n-1; `schema` is what answers were held to.

    beside: what each prompt was asked, where it was asked several times: its rows follow each other, in this order.
    """

    title: str
    asked: Sequence[str]
    rows: Sequence[Outcome | None]
    told: Summary
    events: Sequence[Event] = ()
    labels: Sequence[object] | None = None
    started: float = 0.0
    notes: Sequence[str] = field(default=())
    schema: Schema | None = None
    beside: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands between prompt and status: the schema's columns, or the text."""
        found = () if self.schema is None else tuple(c.name for c in self.schema.columns)
        return found if 0 < len(found) <= MOST_COLUMNS else ("text",)

    @property
    def routed(self) -> tuple[str, ...]:
        """A column for the route, where rows went to several."""
        return ("route",) if len({o.route for o in self.rows if o is not None and o.route}) > 1 else ()

    def said(self, outcome: Outcome | None) -> list[str]:
        """A row's answer: a value for each column, or one text for all of them."""
        if outcome is None or outcome.status == "error":
            return ["" if outcome is None else trouble(outcome)]
        held = self.schema.check(outcome.text or "").cells if self.schema is not None and outcome.status == "ok" else {}
        return [_value(held.get(name)) for name in self.columns] if held and self.columns != ("text",) else [outcome.text or ""]

    def asked_shortly(self, each: int = 1) -> list[str]:
        """The prompts of the rows shown, on one line each, without the beginning that all prompts share: it would fill the column and tell nothing."""
        same = shared_prefix(self.asked)
        before = "…" if same else ""
        return [clip(before + one_line(text[same : same + 8 * MOST_PROMPT]), MOST_PROMPT) for text in self.asked[::each][:MOST_ROWS]]

    def label(self, row: int) -> str:
        return f"{self.prompt_label(row)}, {self.beside[row % len(self.beside)]}" if self.beside else self.prompt_label(row)

    def prompt_label(self, row: int) -> str:
        """Of the prompt alone, where it was asked several times."""
        value = row if self.labels is None else self.labels[row]
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def of(run: SessionRun) -> Report:
    """The report of a run of this session, as it stands now."""
    from holynb.results import frame

    events, _ = run.journal.events_since(0)
    index, beside = run.plan.rows.index, ways(run.plan.rows.index)
    names = labels(index) if beside else None if index is None else frame.labels(index)
    return Report(
        title(run),
        [p.text for p in run.prompts],
        run.rows(),
        run.summary(),
        events,
        names,
        run.started,
        notes(events),
        run.plan.schema,
        beside,
    )


def load(name: str | None = None) -> Report:
    """The run of this name or id; without one the session's last, else the log's newest. Raises BadOption."""
    from holynb import runlog
    from holynb.run import session

    run = session.find(name) if name else session.last()
    if run is not None:
        return of(run)
    if name is None:
        newest = runlog.log().runs(1)
        if not newest:
            raise BadOption("There is no run yet. Start one with %%infer.")
        name = newest[0].id
    return _from_log(name)


def _from_log(name: str) -> Report:
    from holynb import runlog, schema
    from holynb.config import settings
    from holynb.results import summarize
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
    return Report(f"{kept.name or kept.id} on {kept.route}", asked, rows, told, (), labels, kept.started, notes, held)


def _unfinished(status: str, rows: list[Outcome | None], name: str) -> list[str]:
    missing = Counter(o is None for o in rows)[True]
    if not missing:
        return []
    has = "row has" if missing == 1 else "rows have"
    return [f"{missing:,} {has} no answer in the run log ({status}). %infer resume {name} sends {'it' if missing == 1 else 'them'}."]


def ways(index: Any) -> tuple[str, ...]:
    """What each prompt was asked, from the levels that a crossed index ends in: routes, samples, or both; `()` of any other index."""
    if index is None or list(index.names[-2:]) != LEVELS or not len(index):
        return ()
    asked = list(dict.fromkeys(label[-2:] for label in index.tolist()))
    if len(asked) == 1:
        return ()
    routes, samples = {r for r, _ in asked}, {k for _, k in asked}
    if len(samples) == 1:
        return tuple(str(r) for r, _ in asked)
    return tuple(f"sample {k}" if len(routes) == 1 else f"{r}, sample {k}" for r, k in asked)


def labels(index: Any) -> list[object]:
    """The index labels of the input, one a row, of an index that `ways` knows."""
    from holynb.results import frame

    return [label[0] if len(label) == len(LEVELS) + 1 else tuple(label[: -len(LEVELS)]) for label in frame.labels(index)]


def title(run: SessionRun) -> str:
    """Which run, and where it was sent."""
    named = (
        dict.fromkeys(str(r) for r, _ in (label[-2:] for label in run.plan.rows.index.tolist()))
        if ways(run.plan.rows.index)
        else [str(run.route)]
    )
    return f"{run.name or run.id} on {', '.join(named)}"


def notes(events: Sequence[Event]) -> list[str]:
    """What a person should read when all is over, each once: warnings, and that what they warned of has passed."""
    return list(dict.fromkeys(e.text for e in events if isinstance(e, Noted) and (e.level != "info" or series.mark(e) is not None)))


def trouble(outcome: Outcome) -> str:
    if outcome.status == "skipped":
        return "skipped: the prompt is empty"
    return f"{outcome.error_type or outcome.status}: {one_line(outcome.error)}"


def _value(value: Any) -> str:
    """A typed value as its column shows it."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
