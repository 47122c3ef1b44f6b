"""A run as the run log keeps it: what `%infer resume` makes its plan from again. Reads a run; sends and writes nothing."""

from __future__ import annotations

from typing import Any

from holynb.config import Options
from holynb.results import frame
from holynb.run.session import SessionRun
from holynb.runlog import RunRecord

__all__ = ["origin", "record"]


def record(run: SessionRun) -> RunRecord:
    """The run's line in the log."""
    plan = run.plan
    spec: dict[str, Any] = {"options": {k: v for k, v in _plain(plan.options).items() if v is not None}}
    if plan.targets.given is not None:
        spec["given"] = str(plan.targets.given)
    if plan.schema is not None:
        spec["schema"] = plan.schema.document
    if plan.targets.escalate is not None:
        spec["escalate"] = str(plan.targets.escalate)
    if plan.rows.index is not None:
        spec["index"] = frame.index_spec(plan.rows.index)
    return RunRecord(run.id, run.name, str(plan.route), run.n, run.started, spec=spec)


def origin(run: SessionRun) -> dict[str, Any]:
    """Where a frame of the run's results comes from, in JSON's types."""
    cost = run.summary().cost
    facts = {"run": run.id, "name": run.name, "route": str(run.plan.route), "started": run.started}
    return facts | {"cost": None if cost is None else float(cost)}


def _plain(options: Options) -> dict[str, Any]:
    """The options that differ from the default, as JSON can hold them; the frame itself stays out of the log."""
    default = Options()
    changed = {
        n: getattr(options, n) for n in Options.__slots__ if n not in ("df", "schema") and getattr(options, n) != getattr(default, n)
    }
    return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
