"""The input's columns for the file of a run that the log alone goes on with: read again from `--file`, where that is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holynb.config import Options
from holynb.errors import HolynbError
from holynb.run import inputs, out_claims

__all__ = ["again", "origin"]

#: The options that choose the rows of a file, and what the answers are called beside them.
CHOOSING = ("file", "where", "limit", "into")


def origin(options: Options) -> dict[str, Any]:
    """What the run log keeps of where the columns come from; nothing of a variable, which ends with its kernel."""
    if options.file is None:
        return {}
    path = Path(options.file).expanduser().resolve()
    seen = out_claims.mark(path) if path.exists() else None
    return (
        {}
        if seen is None
        else {"mark": list(seen), **{n: v for n in CHOOSING if (v := getattr(options, n)) is not None}, "file": str(path)}
    )


def again(spec: Mapping[str, Any], n: int) -> tuple[Any, str | None]:
    """The input of a run of `n` rows and its `--into`, where the file is as it was then; else None twice."""
    kept = dict(spec.get("input") or {})
    seen = kept.pop("mark", None)
    if seen is None or out_claims.mark(Path(kept["file"])) != tuple(seen):
        return None, None
    try:
        source, _ = inputs.source(Options.parse(kept), None)
    except HolynbError:  # such as a --where that names a variable
        return None, None
    return (source, kept.get("into")) if n % len(source) == 0 else (None, None)
