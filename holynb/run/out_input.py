"""The input's columns for the file of a run that the log alone goes on with: read again from `--file`, where that is as it was.

A table of the notebook ends with its kernel, and a batch does not: a copy is kept in HOLYNB_HOME until the batch's rows have ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from holynb import typed_path
from holynb.config import Options, settings
from holynb.errors import HolynbError
from holynb.run import inputs, out_claims

__all__ = ["again", "origin"]

#: The options that choose the rows of a file, and what the answers are called beside them.
CHOOSING = ("file", "where", "limit", "into")


def keep(source: Any, run: str) -> None:
    """Keep a table for a run whose batch may outlive the kernel. One that no file holds is not kept: its own cell completes the file."""
    place = _kept(run)
    if source is not None:
        with suppress(Exception):  # whatever pandas and pyarrow say of columns that are no column of a file
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.touch(mode=0o600)
            try:
                source.to_parquet(place, index=False)
            except BaseException:
                place.unlink(missing_ok=True)
                raise


def forget(run: str) -> None:
    """Remove what was kept for a run."""
    with suppress(OSError):
        _kept(run).unlink(missing_ok=True)


def _kept(run: str) -> Path:
    return settings.home() / "out" / f"{run}.parquet"


def origin(options: Options, run: str) -> dict[str, Any]:
    """What the run log keeps of where the columns come from; nothing of a variable that no copy is kept of."""
    if options.file is None:
        into = {} if options.into is None else {"into": options.into}
        seen = out_claims.mark(_kept(run))
        return {} if seen is None else {"mark": list(seen), **into, "file": str(_kept(run))}
    path = typed_path.typed(options.file).resolve()
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
