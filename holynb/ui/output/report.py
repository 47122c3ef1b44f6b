"""A run as facts to show, of this session or of the run log alone. Reads; sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holynb.errors import BadOption
from holynb.events import Noted
from holynb.spool import MANY
from holynb.ui.output import crossed, pictures, series
from holynb.ui.output.text import clip, one_line, shared_prefix, value_text
from holynb.ui.output.thinned import thinned

if TYPE_CHECKING:
    from holynb.attached import Attachment
    from holynb.events import Event
    from holynb.quality.assessment import Assessment
    from holynb.results import Summary
    from holynb.run import SessionRun
    from holynb.schema import Schema
    from holynb.types import Outcome

__all__ = [
    "MAX_ROWS",
    "Report",
    "answered_by",
    "error_text",
    "fallbacks",
    "load",
    "notes",
    "of",
    "title",
]

#: Rows of a table, characters of a prompt in a cell.
MAX_ROWS, MAX_PROMPT_CHARS = 50, 160
#: Of an error, on its one line.
MAX_ERROR_CHARS = 4_000
#: With more columns in its schema, answers are shown as text.
MAX_SCHEMA_COLUMNS = 6
#: Of a frame that answers go into; the value has the others.
MAX_INPUT_COLUMNS = 4


def _unassessed() -> Assessment:
    from holynb.quality.assessment import Assessment  # a live view, which opens with this module, has no use for its measures

    return Assessment()


@dataclass(frozen=True, slots=True)
class Report:
    """A run as facts: of this session, of the run log, of a recording. `labels` are index labels, None for 0…n-1.

    variants: the routes or samples that each prompt was sent to, where there are several. Its rows follow each other, in this order.
    format: how one answer is shown, as `--format` says. run: its name or id. value: the variable that holds its frame, if one does;
    into: the column that `--into` names there, beside those of `source`.
    """

    title: str
    prompts: Sequence[str]
    rows: Sequence[Outcome | None]
    summary: Summary
    events: Sequence[Event] = ()
    labels: Sequence[object] | None = None
    started: float = 0.0
    notes: Sequence[str] = field(default=())
    schema: Schema | None = None
    variants: tuple[str, ...] = ()
    format: str = "text"
    compared: tuple[str, ...] = ()
    """The routes of the rows of one prompt, as `crossed.compared_routes` has them."""
    run: str = ""
    value: str = ""
    into: str = ""
    source: Any = None
    quality: Assessment = field(default_factory=_unassessed)
    attached: Callable[[int], Sequence[Attachment]] = lambda row: ()
    """What goes along with a row."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of answers: the schema's, or text, under the name that `--into` gives it."""
        names = () if self.schema is None else tuple(c.name for c in self.schema.columns)
        return names if 0 < len(names) <= MAX_SCHEMA_COLUMNS else (self.into or "text",)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns of what was asked: the prompt, or where answers go into a frame the frame's own."""
        return ("prompt",) if self.source is None else tuple(str(name) for name in self.source.columns[:MAX_INPUT_COLUMNS])

    def input_cells(self, row: int, prompt: str) -> list[str]:
        """A row's values of `inputs`."""
        from holynb.results import frame

        return [prompt] if self.source is None else frame.texts_of_row(self.source, row)[:MAX_INPUT_COLUMNS]

    @property
    def route_column(self) -> tuple[str, ...]:
        """`("route",)` where rows have several, else `()`."""
        if len(self.rows) >= MANY:
            return ("route",) if len(self.summary.answered_by) > 1 else ()
        return ("route",) if len({o.route for o in self.rows if o is not None and o.route}) > 1 else ()

    @property
    def failed_alike(self) -> bool:
        """Whether every one of several rows failed for one reason, so that a table would say it again and again."""
        first = self.rows[0] if len(self.rows) > 1 else None
        if first is None or first.status != "error":
            return False
        return all(o is not None and (o.status, o.error_type, o.error) == ("error", first.error_type, first.error) for o in self.rows)

    def answer_cells(self, outcome: Outcome | None) -> list[str]:
        """A row's answer: a value for each of `columns`, or one text for all of them."""
        if outcome is None or outcome.status == "error":
            return ["" if outcome is None else error_text(outcome)]
        values = self.schema.check(outcome.text or "").cells if self.schema is not None and outcome.status == "ok" else {}
        return (
            [value_text(values.get(name)) for name in self.columns]
            if values and self.columns != (self.into or "text",)
            else [outcome.text or ""]
        )

    def prompt_previews(self, step: int = 1) -> list[str]:
        """Every `step`-th prompt, on one line, without the beginning that all share: it would fill the column and tell nothing."""
        start = shared_prefix(self.prompts)
        return [_preview(text, start) for text in self.prompts[::step][:MAX_ROWS]]

    @property
    def shared_beginning(self) -> str:
        """What `prompt_previews` leave out, in a sentence on one line; nothing where the prompts are not what is listed."""
        start = shared_prefix(self.prompts) if self.source is None else 0
        return f"All prompts begin: {_preview(self.prompts[0][:start].rstrip(), 0)}" if start else ""

    def prompt_preview(self, row: int) -> str:
        """One prompt, on one line, with its beginning."""
        return _preview(self.prompts[row], 0)

    def label(self, row: int) -> str:
        return f"{self.prompt_label(row)}, {self.variants[row % len(self.variants)]}" if self.variants else self.prompt_label(row)

    def prompt_label(self, row: int) -> str:
        """Without the variant."""
        value = row if self.labels is None else self.labels[row]
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def of(run: SessionRun) -> Report:
    """The report of a run of this session, as of now."""
    from holynb.results import index_labels
    from holynb.run import prompt_spool

    events = run.journal.events()
    index, run_variants = run.plan.rows.index, crossed.variants(run.plan.rows.index)
    if run.n >= MANY:
        events = thinned(events, run.n, max(1, len(run_variants)))
    names = crossed.prompt_labels(index) if run_variants else None if index is None else index_labels.labels(index)
    return Report(
        title(run),
        prompt_spool.texts(run.prompts),
        run.rows(),
        run.summary(),
        events,
        names,
        run.started,
        notes(events),
        run.plan.schema,
        run_variants,
        run.plan.options.format,
        crossed.compared_routes(index),
        run=run.name or run.id,
        into=run.plan.options.into or "",
        source=run.plan.rows.source if run.plan.options.into else None,
        quality=assessed(run),
        attached=lambda row: pictures.attached_of(run.prompts[row].messages),
    )


def assessed(run: SessionRun) -> Assessment:
    """How good the run's answers are; empty where nobody logged."""
    from holynb.run import quality

    plan = run.plan
    if plan.labels is None and plan.judge is None and not crossed.variants(plan.rows.index):
        return _unassessed()
    variants = crossed.pairs(plan.rows.index) or [(str(run.route), 0)]
    return quality.assessment(run.rows(), variants, plan.labels, plan.schema, plan.judge.scale if plan.judge else None)


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
    from holynb.pricing import spending
    from holynb.results import summarize
    from holynb.run import logged_rows, prompt_spool, quality, resume

    stored, log = resume.stored(name), runlog.log()
    rows, scale = quality.with_verdicts(log, stored, logged_rows.outcomes(log, stored.id, stored.n))
    logged = logged_rows.read(log, stored)
    elsewhere = stored.spec.get("options", {}).get("price_as")
    summary = summarize(
        rows,
        (stored.ended or stored.started) - stored.started,
        stopped=stored.status == "stopped",
        price_as=settings.route(elsewhere) if elsewhere else None,
        batch=bool(stored.spec.get("options", {}).get("batch")),
    )
    summary = replace(summary, tokens_in_all=spending.tokens(log, stored.id))
    answer_schema = schema.load(stored.spec["schema"]) if "schema" in stored.spec else None
    expected = quality.labels_of_log(stored, logged.expected, answer_schema)
    pairs = logged.pairs if stored.spec.get("options", {}).keys() & {"compare", "samples"} else []
    notes = _unfinished(stored.status, summary.running, stored.name or stored.id)
    return Report(
        f"{stored.name or stored.id} on {stored.routes}",
        prompt_spool.texts(logged.prompts),
        rows,
        summary,
        labels=logged.labels,
        started=stored.started,
        notes=notes,
        schema=answer_schema,
        format=stored.spec.get("options", {}).get("format", "text"),
        run=stored.name or stored.id,
        quality=quality.assessment(rows, pairs or [(stored.route, 0)], expected, answer_schema, scale)
        if expected is not None or scale is not None or len(pairs) > 1
        else _unassessed(),
    )


def _unfinished(status: str, missing: int, name: str) -> list[str]:
    if not missing:
        return []
    has = "row has" if missing == 1 else "rows have"
    return [f"{missing:,} {has} no answer in the run log ({status}). %infer resume {name} sends {'it' if missing == 1 else 'them'}."]


def title(run: SessionRun) -> str:
    """`NAME on ROUTE, …`; where others answered, `NAME, 48 by fallback ROUTE`."""
    index = run.plan.rows.index
    first = list(dict.fromkeys(str(label[-2]) for label in index.tolist())) if crossed.variants(index) else [str(run.route)]
    answered = run.summary().answered_by
    by = answered_by(first, fallbacks(run), answered.most_common())
    return f"{run.name or run.id}{', ' if by[:1].isdecimal() else ' on '}{by}"


def fallbacks(run: SessionRun) -> frozenset[str]:
    """The routes of `--fallback`."""
    from holynb.config import settings

    return frozenset(str(settings.route(r)) for r in run.plan.options.fallback)


def answered_by(first: Sequence[str], fallbacks: Collection[str], answered: Sequence[tuple[str, int]]) -> str:
    """Who answers: `sim/stream`; after a fallback `4 by sim/stream, 44 by fallback sim/echo`, without a route that gave none."""
    if all(route in first for route, _ in answered):
        return ", ".join(first)
    return ", ".join(f"{n:,} by {'fallback ' if route in fallbacks else ''}{route}" for route, n in answered)


def notes(events: Sequence[Event]) -> list[str]:
    """Notes for the end, each once: warnings, and that a shortage of memory has passed."""
    return list(dict.fromkeys(e.text for e in events if isinstance(e, Noted) and (e.level != "info" or series.mark_name(e) is not None)))


def error_text(outcome: Outcome) -> str:
    """`kind: message` of a row without an answer."""
    if outcome.status == "skipped":
        return "skipped: the prompt is empty"
    return f"{outcome.error_type or outcome.status}: {one_line((outcome.error or '')[:MAX_ERROR_CHARS])}"


def _preview(prompt: str, start: int) -> str:
    """A prompt on one line, from `start` on."""
    return clip(("…" if start else "") + one_line(prompt[start : start + 8 * MAX_PROMPT_CHARS]), MAX_PROMPT_CHARS)
