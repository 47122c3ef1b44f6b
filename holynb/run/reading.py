"""The result of an earlier run, read from the run log: for a script, or another notebook. Sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holynb import runlog, schema
from holynb.config import Options
from holynb.results import frame
from holynb.run import embedding, logged_rows, quality, resume

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read"]


def read(name: str) -> pd.DataFrame:
    """The result of the run of this name or id in the run log (of a name, the newest), as `Run.result()` gives it: a line a row, in input
    order, on the input's index; NA where a row has not ended. The input's own columns are not in the log.

    `.attrs["holynb"]` says which run it is, where its rows went, when it started, what it cost in US dollars, and of pools which model
    answered: its folder or hub id, precision, and a mark of its files.

    Raises BadOption where there is no such run, BadSetting where the log cannot be read.
    """
    record, log = resume.stored(name), runlog.log()
    options = record.spec.get("options", {})
    rows, scale = quality.with_verdicts(log, record, logged_rows.outcomes(log, record.id, record.n))
    index = frame.restore_index(logged_rows.read(log, record).labels, record.spec.get("index"))
    held_to = schema.load(record.spec["schema"]) if "schema" in record.spec else None
    embedded = embedding.of(Options.parse({k: v for k, v in options.items() if k in ("embed", "dimensions")}))
    origin: dict[str, Any] = {"run": record.id, "name": record.name, "route": record.routes, "started": record.started}
    origin["cost"] = None if record.cost is None else float(record.cost)
    if "models" in record.spec:
        origin["models"] = record.spec["models"]
    return frame.build(rows, index, held_to, origin, embedded, judged=scale is not None)
