"""The column of `--label`: what each row should be answered, and what of its answer is compared. Reads the input; sends nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holynb import files
from holynb.config import Options
from holynb.errors import BadOption, closest
from holynb.quality.matching import classes, fold
from holynb.results import frame
from holynb.schema import Schema
from holynb.types import Outcome
from holynb.words import counted

__all__ = ["Labels", "as_text", "compared", "field_of", "load", "notes", "stored"]

#: Kinds of a schema's columns that hold a label.
LABEL_KINDS = ("string", "integer", "boolean", "number")
#: Labels that a message names.
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Labels:
    """`values`: the label of each prompt, None where it has none. `each`: rows of one prompt, which follow each other.

    `field`: the schema's column that is compared; None: the text. `exact`: without folding.
    """

    column: str
    values: Sequence[str | None]
    each: int = 1
    field: str | None = None
    exact: bool = False

    def of(self, row: int) -> str | None:
        """The label of a row, as it stands in the column."""
        return self.values[row // self.each]

    def names(self) -> dict[str, str]:
        """Folded label → how it is written."""
        return classes([v for v in dict.fromkeys(self.values) if v is not None], exact=self.exact)


def load(options: Options, source: Any, held_to: Schema | None, *, prompts: int, each: int) -> Labels | None:
    """The labels of `--label`; None without it. Raises BadOption for what cannot be a label, or can never be an answer."""
    _check_companions(options)
    if options.label is None:
        return None
    if source is None:
        raise BadOption("--label compares answers with a column: add --df NAME or --file PATH.")
    names = [str(c) for c in source.columns]
    column, field = _split(options.label, names, held_to)
    if names.count(column) > 1:
        raise BadOption(f"--label {column}: {names.count(column)} columns have this name. Rename the one that holds the labels.")
    cells = (row[column] for part in files.pieces(source, names.index(column)) for row in frame.records(part.to_frame(column)))
    values = _texts(column, list(cells), field is not None)
    values = [None if v is None else _as_field(v, field, held_to) for v in values[:prompts]]
    labels = Labels(column, values, each, field, options.exact)
    _check_reachable(labels, held_to)
    return labels


def field_of(label: str, held_to: Schema | None) -> tuple[str, str | None]:
    """Column and field of `COL` or `COL=FIELD`, where the columns are no longer known: of a run of the run log."""
    column, equals, field = label.rpartition("=")
    known = [] if held_to is None else [c.name for c in held_to.columns]
    if equals and field in known:
        return column, field
    return label, None if held_to is None else _only_field(label, held_to)


def stored(options: Options, expected: Mapping[int, str], n: int, held_to: Schema | None) -> Labels | None:
    """The labels of a run of the run log; None where it has none."""
    if options.label is None:
        return None
    values = [expected.get(row) for row in range(n)]
    column, field = field_of(options.label, held_to)
    return Labels(column, values, 1, field, options.exact)


def notes(labels: Labels | None, body: object, held_to: Schema | None) -> list[str]:
    """What a person should know of the labels before the run."""
    if labels is None:
        return []
    lines = []
    n, missing = len(labels.values), sum(v is None for v in labels.values)
    if missing:
        lines.append(
            f"{missing:,} of {counted(n, 'row')} {'has' if missing == 1 else 'have'} no {labels.column}, and no part in the figures."
        )
    if isinstance(body, str) and re.search(rf"\{{\{{[^{{}}]*(?<![\w.]){re.escape(labels.column)}(?!\w)[^{{}}]*\}}\}}", body):
        lines.append(f"The prompt shows the model {labels.column}, which its answers are compared with: what it is told, it can repeat.")
    if (never := _unreachable(labels, held_to)) and len(never) < len(labels.names()):
        lines.append(f"{labels.column} has {_listed(never)}, which {labels.field or 'no answer'} can never be.")
    return lines


# -- what is compared --------------------------------------------------------------------------------------------------
def _check_companions(options: Options) -> None:
    if options.exact and options.label is None and not (options.compare or options.samples):
        raise BadOption("--exact says how answers are compared with labels: add --label COL.")


def _split(label: str, columns: Sequence[str], held_to: Schema | None) -> tuple[str, str | None]:
    """Column and field. A column whose name has an = in it is found, too."""
    column, equals, field = label.rpartition("=")
    if label not in columns and equals and column in columns:
        if held_to is None:
            raise BadOption(
                f"--label {label}: FIELD is a column of --schema, and there is no --schema. Use --label {column} alone, or add it."
            )
        known = [c.name for c in held_to.columns]
        if field not in known:
            raise BadOption(f"--label {label}: the schema has no column {field!r}.{closest(field, known)} It has {', '.join(known[:8])}.")
        return column, _comparable(label, field, held_to)
    if label not in columns:
        raise BadOption(f"--label {label}: there is no such column.{closest(label, columns)} Known: {', '.join(columns[:8])}.")
    return label, None if held_to is None else _only_field(label, held_to)


def _only_field(label: str, held_to: Schema) -> str:
    """The schema's column that a label without FIELD means: that of its name, else the only one."""
    known = [c.name for c in held_to.columns]
    if label in known or len(known) == 1:
        return _comparable(label, label if label in known else known[0], held_to)
    raise BadOption(
        f"--label {label}: which column of --schema is compared with it? --label {label}={known[0]}. It has {', '.join(known[:8])}."
    )


def _comparable(label: str, field: str, held_to: Schema) -> str:
    kind = next(c.kind for c in held_to.columns if c.name == field)
    if kind not in LABEL_KINDS:
        raise BadOption(f"--label {label}: {field} holds nested values, which are no label. Name a column of single values.")
    return field


# -- labels ------------------------------------------------------------------------------------------------------------
def _texts(column: str, values: Sequence[Any], typed: bool) -> list[str | None]:
    """The labels as texts. `typed`: they are compared with a value of JSON, where true is written so. Raises BadOption."""
    filled = [v for v in values if v is not None]
    if not filled:
        raise BadOption(f"--label {column}: every row of it is missing, so there is nothing to compare with.")
    if any(isinstance(v, float) for v in filled) and len(filled) < len(values) and all(_is_whole(v) for v in filled):
        values = [None if v is None else int(v) for v in values]  # whole numbers, which pandas makes floats where one is missing
        filled = [v for v in values if v is not None]
    odd = next((v for v in filled if not isinstance(v, str | int)), None)
    if isinstance(odd, float):
        whole = f" Are they whole? df[{column!r}] = df[{column!r}].astype('Int64')." if all(_is_whole(v) for v in filled) else ""
        raise BadOption(
            f"--label {column} holds floats, such as {odd!r}, and an answer seldom is one to the last digit. "
            f"Make classes of them (pd.cut), or grade the answers with --judge ROUTE.{whole}"
        )
    if odd is not None:
        raise BadOption(
            f"--label {column} holds {_kind(odd)}, which no answer can be compared with. It takes texts, whole numbers or true and false."
        )
    labels = [None if v is None else _text(v, typed) for v in values]
    one: dict[str, str] = {}  # a few texts that stand in many rows
    return [None if v is None or not v.strip() else one.setdefault(v, v) for v in labels]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _kind(value: Any) -> str:
    return {"list": "lists", "dict": "dicts", "bytes": "bytes", "ndarray": "arrays"}.get(
        type(value).__name__, f"values of {type(value).__name__}"
    )


def _text(value: str | int, typed: bool) -> str:
    return ("true" if value else "false") if typed and isinstance(value, bool) else str(value)


def _check_reachable(labels: Labels, held_to: Schema | None) -> None:
    """Raise BadOption where no label can ever be an answer: every row would count as wrong."""
    names = labels.names()
    if not names:
        raise BadOption(f"--label {labels.column}: every label is blank, and an empty answer is none.")
    if len(never := _unreachable(labels, held_to)) == len(names):
        can = _possible(labels, held_to) or ()
        instead = f"{labels.field} is one of {_listed(list(can))}" if can else f"{labels.field} is another kind of value"
        raise BadOption(f"--label {labels.column} has {_listed(never)}, and no answer can match: {instead}.")


def _unreachable(labels: Labels, held_to: Schema | None) -> list[str]:
    """The labels that no answer of this schema can be, as written."""
    if held_to is None or labels.field is None:
        return []
    kind = next(c.kind for c in held_to.columns if c.name == labels.field)
    possible = _possible(labels, held_to)
    if possible is not None:
        can = {fold(text, exact=labels.exact) for text in possible}
        return [name for key, name in labels.names().items() if key not in can]
    if kind == "string":
        return []
    fits = {"boolean": _is_boolean, "integer": _is_integer}.get(kind, _is_number)
    return [name for name in labels.names().values() if not fits(name)]


def _is_boolean(text: str) -> bool:
    return text.casefold() in ("true", "false")


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,18}", text.strip(), re.ASCII) is not None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?(e[+-]?\d{1,2})?", text.strip(), re.ASCII | re.IGNORECASE) is not None


def _as_field(text: str, field: str | None, held_to: Schema | None) -> str:
    """A label as its field's values are written, where that is a number: 2.0 is 2, and 1.50 is 1.5."""
    kind = None if held_to is None else next((c.kind for c in held_to.columns if c.name == field), None)
    if kind not in ("integer", "number") or not _is_number(text):
        return text
    return str(int(text)) if _is_integer(text) else as_text(float(text))


def _possible(labels: Labels, held_to: Schema | None) -> list[str] | None:
    """What the field can be, where the schema lists it."""
    if held_to is None or labels.field is None:
        return None
    column = next(c for c in held_to.columns if c.name == labels.field)
    node = held_to.document if column.key is None else held_to.document.get("properties", {}).get(column.key, {})
    options = node.get("enum") or ([node["const"]] if "const" in node else None)
    return None if options is None else [as_text(v) for v in options if v is not None]


def as_text(value: Any) -> str:
    """A value of JSON as a label is written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:MAX_NAMED])
    return f"{shown} and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else shown


def compared(outcome: Outcome, labels: Labels | None, held_to: Schema | None, *, exact: bool) -> str | None:
    """What of an answer is compared, folded; None where the row has none."""
    if outcome.status != "ok" or outcome.text is None:
        return None
    if labels is not None and labels.field is not None and held_to is not None:
        value = held_to.check(outcome.text).cells.get(labels.field)
        return None if value is None else fold(as_text(value), exact=exact)
    return fold(outcome.text, exact=exact)
