"""Where `--out` writes, and as what kind of file. Touches nothing."""

from __future__ import annotations

from pathlib import Path

from holynb import typed_path
from holynb.config import Options
from holynb.errors import BadOption
from holynb.results.rows_file import SUFFIXES, missing_for

__all__ = ["check", "located"]


def located(out: str) -> Path:
    """The file that `--out` names, wherever the notebook's folder moves to."""
    return typed_path.typed(out).resolve()


def check(options: Options) -> None:
    """Raise BadOption for a kind of file that cannot be written, or not with these options."""
    if options.out is None:
        return
    suffix = located(options.out).suffix.lower()
    if suffix not in SUFFIXES:
        raise BadOption(
            f"--out {options.out!r}: a file of results is {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}. End its name with one of them."
        )
    if missing := missing_for(suffix):
        raise BadOption(f"--out {options.out}: {missing}. Or write .jsonl.")
    if options.embed and suffix == ".csv":
        raise BadOption(f"--out {options.out}: a CSV has no vectors, which --embed gives. Write .parquet or .jsonl.")
