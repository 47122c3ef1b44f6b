"""What a run's rows say of how good its answers are, made of its outcomes. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holynb.config import Options
from holynb.config.model_traits import ModelTraits
from holynb.quality.assessment import AnswerFacts, Assessment, assess
from holynb.quality.matching import fold
from holynb.run import labels, verdicts
from holynb.run.judge import Judge, scale_of
from holynb.run.labels import Labels, compared
from holynb.runlog import RunLog, RunRecord
from holynb.schema import Schema
from holynb.types import Outcome, Route

__all__ = ["assessment", "labels_of_log", "with_verdicts"]


def assessment(
    rows: Sequence[Outcome | None], variants: Sequence[tuple[str, int]], labels: Labels | None, held_to: Schema | None, judge: str | None
) -> Assessment:
    """The figures of these rows. variants: route and sample of the rows of one prompt. judge: its scale, None without one."""
    exact = labels is not None and labels.exact
    answers = [None if o is None else compared(o, labels, held_to, exact=exact) for o in rows]
    return assess(
        AnswerFacts(
            variants,
            answers,
            [o is not None and o.status in ("error", "cancelled") for o in rows],
            None if labels is None else [None if (v := labels.of(i)) is None else fold(v, exact=exact) for i in range(len(rows))],
            {} if labels is None else labels.names(),
            None if judge is None else [None if o is None else o.score for o in rows],
            judge or "",
        )
    )


def with_verdicts(log: RunLog, record: RunRecord, rows: Sequence[Outcome | None]) -> tuple[Sequence[Outcome | None], str | None]:
    """A run's answers as the log has them, with a judge's scores; and its scale, None where nobody judged."""
    options = record.spec.get("options", {})
    if "judge" not in options:
        return rows, None
    scale = scale_of(options.get("rubric"))
    return verdicts.of_log(log, record.id, rows, Judge(Route("judge", "judge"), "", scale, ModelTraits())), scale


def labels_of_log(record: RunRecord, expected: Mapping[int, str], held_to: Schema | None) -> Labels | None:
    """What a run's answers were compared with; None where with nothing."""
    kept = {k: v for k, v in record.spec.get("options", {}).items() if k in ("label", "exact")}
    return labels.stored(Options.parse(kept), expected, record.n, held_to)
