"""`holynb.infer`: what a cell does, without a cell."""

from __future__ import annotations

import warnings
from typing import Any, Never

from holynb.config import Options
from holynb.errors import BadOption
from holynb.prompts import saved
from holynb.run import miscall, quote, resume
from holynb.run.plan import make, route_notes
from holynb.run.run import Run

__all__ = ["infer"]


def infer(prompts: Any = None, route: str | None = None, *more: Never, df: Any = None, **options: Any) -> Run:
    """Send prompts; returns at once with the run.

    prompts: a string, a list of strings or of dicts (`prompt`, `system`, `messages`, `max_tokens`, `temperature`, `task_type`), or, with
             `df`, a template (`{{ column }}`) that is rendered once per row.
    route:   `provider/model` or an alias; without it the configured default, else the embedded model.
    options: the options of a cell with underscores (`max_tokens=100`, `cache=False`); `%infer help` lists them.

    Raises UserError before anything is sent. `run.wait()` or `await run`, then `run.frame()`.
    """
    if (written := miscall.corrected(prompts, route, more, options, has_rows=df is not None)) is not None:
        raise BadOption(f"infer takes the prompt first, then the route, and rows as df=. Write {written}")
    checked = Options.parse({**options, "df": df})
    if checked.dry_run or checked.show_code:
        raise BadOption(
            "infer() starts a run; dry_run and show_code belong to a cell: %%infer --dry-run. (holynb.run.plan.make sends nothing.)"
        )
    if checked.no_execute:
        raise BadOption(
            "infer() returns a run, so no_execute has no meaning here: holynb.prompts.saved.save(name, prompt, route, Options(…))."
        )
    prompts, route, chosen = saved.apply(prompts, route, checked)
    # A saved prompt is a cell's body, so it is rendered as one; a string given here is sent as it is.
    plan = make(prompts, route, chosen, variables=None if checked.use is None else {})
    for line in route_notes(plan.targets.endpoints, plan.rows.requests):
        warnings.warn(line, stacklevel=2)  # a script shows no notes
    plan = resume.continued(plan)
    quote.check(plan)
    if chosen.save is not None:
        saved.save_from_options(prompts, route, chosen)
    run = Run(plan)
    run.warns = True
    return run.start()
