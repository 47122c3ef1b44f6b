"""The columns of a result, in order, each with its dtype. What a run may say more of a row, such as a score, is added here."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from holynb.files import Filled
from holynb.results import vectors

if TYPE_CHECKING:
    from holynb.schema import Schema
    from holynb.types import Embedding, Outcome

__all__ = ["of", "of_schema"]

#: Rows whose outcomes are read at once.
WINDOW = 4_096
STATUS = ["ok", "error", "cancelled", "skipped"]
STRINGS = ("error_type", "error", "route", "model")
TOKENS = ("tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning", "tokens_cache_write")
#: Kind of a schema's column → dtype.
DTYPES = {"string": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean", "json": "object"}


def of(
    rows: Sequence[Outcome | None], schema: Schema | None = None, embedding: Embedding | None = None, *, judged: bool = False
) -> dict[str, Any]:
    """The columns of these rows as arrays by name, those of `schema` last, a judge's before them. Dtypes never depend on the outcome.

    `embedding`: the answers are vectors, and what a row says in words of its own is no text of a model. Of many rows the columns are made
    a window at a time, so that a frame takes little more memory than its own while it is made.
    """
    if len(rows) <= WINDOW or embedding is not None:
        return _of(rows, schema, embedding, judged=judged)
    whole: dict[str, Filled] = {}
    for first in range(0, len(rows), WINDOW):
        for name, array in _of(rows[first : first + WINDOW], schema, None, judged=judged).items():
            whole.setdefault(name, Filled(len(rows))).put(first, array)
    return {name: whole.pop(name).series().array for name in list(whole)}


def _of(rows: Sequence[Outcome | None], schema: Schema | None, embedding: Embedding | None, *, judged: bool) -> dict[str, Any]:
    import pandas as pd

    def column(name: str) -> list[Any]:
        return [None if o is None else getattr(o, name) for o in rows]

    def usage(name: str) -> list[Any]:
        return [None if o is None else getattr(o.usage, name) for o in rows]

    def floats(values: list[Any]) -> Any:
        return pd.array([None if v is None else float(v) for v in values], dtype="Float64")

    return {
        "text": pd.array(column("text") if embedding is None else [None] * len(rows), dtype="string"),
        "status": pd.Categorical(column("status"), categories=STATUS),
        **{name: pd.array(column(name), dtype="string") for name in STRINGS},
        "attempts": pd.array(column("attempts"), dtype="Int64"),
        **{name: pd.array(usage(name), dtype="Int64") for name in TOKENS},
        **{name: floats(column(name)) for name in ("cost", "latency_s", "ttft_s")},
        "finish_reason": pd.array(column("finish_reason"), dtype="string"),
        "cached": pd.array(column("cached"), dtype="boolean"),
        "reasoning": pd.array(column("reasoning"), dtype="string"),
        **({"embedding": vectors.column(rows, embedding)} if embedding is not None else {}),
        **(
            {"score": pd.array(column("score"), dtype="Int64"), "score_reason": pd.array(column("score_reason"), dtype="string")}
            if judged
            else {}
        ),
        **(of_schema(rows, schema) if schema is not None else {}),
    }


def of_schema(rows: Sequence[Outcome | None], schema: Schema) -> dict[str, Any]:
    """The answers' values by column; NA where there is none. Nested values are in a column of objects."""
    import pandas as pd

    cells = [schema.check(o.text or "").cells if o is not None and o.status == "ok" else {} for o in rows]
    values = {c.name: [cell.get(c.name) for cell in cells] for c in schema.columns}
    for name in (c.name for c in schema.columns if c.kind == "json"):
        values[name] = [
            deepcopy(v) if isinstance(v, list | dict) else v for v in values[name]
        ]  # the caller may change its frame; answers are cached
    return {c.name: pd.Series(values[c.name], dtype=DTYPES[c.kind]).array for c in schema.columns}
