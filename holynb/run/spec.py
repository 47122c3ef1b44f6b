"""A run as the run log keeps it: what `%infer resume` makes its plan from again. Reads a run; sends and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holynb.config import Options, settings
from holynb.results import frame
from holynb.run import out_input, out_path
from holynb.run.plan import Plan
from holynb.run.session import SessionRun
from holynb.runlog import RunRecord
from holynb.types import Route

__all__ = ["origin", "record", "routes"]


def record(run: SessionRun) -> RunRecord:
    """The run's line in the log."""
    plan = run.plan
    spec: dict[str, Any] = {"options": {k: v for k, v in _plain(plan.options).items() if v is not None}}
    if plan.targets.given is not None:
        spec["given"] = str(plan.targets.given)
    if len(_first_routes(plan)) > 1:
        spec["asked"] = list(map(str, _first_routes(plan)))
    if plan.schema is not None:
        spec["schema"] = plan.schema.document
    if plan.targets.escalate is not None:
        spec["escalate"] = str(plan.targets.escalate)
    if plan.options.out is not None:
        spec["options"]["out"] = str(out_path.located(plan.options.out))
        if plan.rows.source is not None:
            spec["input"] = plan.rows.origin or out_input.origin(plan.options, run.id)
    if plan.rows.index is not None:
        spec["index"] = frame.index_spec(plan.rows.index)
    if plan.variable is not None:
        spec["variable"] = plan.variable
    if models := _pool_models(plan):
        spec["models"] = models
    return RunRecord(run.id, run.name, str(plan.route), run.n, run.started, spec=spec)


def routes(plan: Plan) -> str:
    """Every route that rows go to first, as a person reads them."""
    return ", ".join(map(str, _first_routes(plan)))


def _first_routes(plan: Plan) -> Sequence[Route]:
    """Every route that rows go to first: several with `--compare` and `--router`, which may send a row on to one of its own."""
    others = {settings.route(r) for r in (*plan.options.spread, *plan.options.fallback)}
    routed = (e.route for e in plan.targets.endpoints if plan.targets.decisions and e.route not in others)
    return list(dict.fromkeys((plan.route, *routed, *map(settings.route, plan.options.compare))))


def _pool_models(plan: Plan) -> dict[str, str]:
    """Route of a pool → what answered there: the name does not say which model, from which files, in what precision."""
    wires = {e.route: e.wire for e in plan.targets.endpoints}
    return {str(route): what for route, what in plan.addresses.items() if wires[route] == "pool" and what}


def origin(run: SessionRun) -> dict[str, Any]:
    """Where a frame of the run's results comes from, in JSON's types."""
    cost = run.summary().cost
    facts = {"run": run.id, "name": run.name, "route": str(run.plan.route), "started": run.started}
    models = _pool_models(run.plan)
    return facts | {"cost": None if cost is None else float(cost)} | ({"models": models} if models else {})


def _plain(options: Options) -> dict[str, Any]:
    """The options that differ from the default, as JSON can hold them; the frame itself stays out of the log."""
    default = Options()
    changed = {
        n: getattr(options, n) for n in Options.__slots__ if n not in ("df", "schema") and getattr(options, n) != getattr(default, n)
    }
    return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
