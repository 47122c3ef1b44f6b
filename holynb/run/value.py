"""What a cell gives: a run's frame, or the same as the kind of table that its rows came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holynb import files
from holynb.results import frame
from holynb.run.plan import Plan

__all__ = ["of"]


def of(plan: Plan, value: Callable[[], Any], all_columns: Callable[[], Any]) -> Any:
    """`value()`, or the same as the kind of table that was given, such as polars. all_columns: the result's, whatever `--into` says."""
    given, source, into = plan.rows.given, plan.rows.source, plan.options.into
    if given is None:
        return value()
    if into is not None:
        return given.with_columns(frame.added(source, into, all_columns(), plan.extra))
    result = all_columns()  # on an index of places, which says something only where a row is asked several times
    return given.like(files.to_arrow(result if result.index.nlevels > 1 else result.reset_index(drop=True)))
