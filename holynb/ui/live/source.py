"""What a live view watches: a run, or a recording of one that plays. Pure reading; knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from holynb.ui.live.measure import Measure
from holynb.ui.live.runinfo import RunInfo
from holynb.ui.output import crossed, pictures, report

if TYPE_CHECKING:
    from holynb.attached import Attachment
    from holynb.journal import Journal
    from holynb.run import Run
    from holynb.types import Message
    from holynb.ui.live.protocol import RunState
    from holynb.ui.live.timeseries import Price

__all__ = ["RunSource", "ViewSource"]

#: Prompts that are looked through for an attachment of the template's own.
LOOKED_AT = 200


class ViewSource(Protocol):
    """A run as a view sees it. label: what a recording is marked with. name: what `%infer show` knows a run by. `elapsed` is in seconds."""

    info: RunInfo
    label: str
    name: str

    @property
    def journal(self) -> Journal: ...

    @property
    def elapsed(self) -> float: ...

    @property
    def state(self) -> RunState: ...

    def messages(self, row: int) -> Sequence[Message]: ...

    def cancel(self) -> None: ...


class RunSource:
    """A run of this session. Raises BadRoute where the run's `price_as` is none."""

    label = ""

    def __init__(self, run: Run) -> None:
        from holynb.results import index_labels
        from holynb.run import prompt_spool
        from holynb.scheduler import Policy

        self.run = run
        self.name = run.name or run.id
        self.journal = run.journal
        index, variants = run.plan.rows.index, crossed.variants(run.plan.rows.index)
        labels: Sequence[object] | None = None if index is None else index_labels.labels(index)
        if variants:
            names = crossed.prompt_labels(index)
            labels = index_labels.changed(names, lambda row, label: (*_levels(label), variants[row % len(variants)]))
        compared = crossed.compared_routes(run.plan.rows.index)
        self.info = RunInfo(
            prompt_spool.texts(run.prompts),
            labels,
            run.started,
            run.name or run.id,
            *_price_as(run),
            run.options.format,
            first_routes=tuple(dict.fromkeys(compared)) or (str(run.route),),
            compared=compared,
            fallbacks=report.fallbacks(run),
            grace_s=Policy().grace,
            attached=_attached(run),
            measure=_measure(run),
        )

    @property
    def elapsed(self) -> float:
        return self.run.elapsed

    @property
    def state(self) -> RunState:
        if self.run.done:
            return "stopped" if self.run.stopped else "done"
        return "stopping" if self.run.stopped else "running"

    def messages(self, row: int) -> Sequence[Message]:
        return self.run.prompts[row].messages

    def cancel(self) -> None:
        self.run.cancel()


def _attached(run: Run) -> Callable[[int], Sequence[Attachment]] | None:
    """What goes along with each row; None where nothing does."""
    if not run.options.attach and not any(pictures.attached_of(p.messages) for p in run.prompts[:LOOKED_AT]):
        return None
    return lambda row: pictures.attached_of(run.prompts[row].messages)


def _measure(run: Run) -> Measure | None:
    """What the run's answers are measured by; None where nobody asked."""
    plan = run.plan
    if plan.labels is None and plan.judge is None:
        return None
    variants = crossed.pairs(plan.rows.index) or [("", 0)]
    return Measure(variants, plan.labels, plan.schema, plan.judge.scale if plan.judge else "")


def _levels(label: object) -> tuple[object, ...]:
    return tuple(label) if isinstance(label, tuple) else (label,)


def _price_as(run: Run) -> tuple[str | None, Price | None]:
    """`--price-as`: the route, and what an outcome would have cost there."""
    if run.options.price_as is None:
        return None, None
    from holynb.config import settings
    from holynb.pricing import prices

    route = settings.route(run.options.price_as)
    return str(route), lambda outcome: prices.price(route, None, outcome.usage)
