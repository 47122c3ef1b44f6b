"""An entry of a table of models: its fields, and the checks that each of them passes. Reads no file.

Every figure has a date and a source, and is a fact (the vendor's own word) or reported. models.toml says what each field means.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from fnmatch import fnmatchcase
from typing import Any

from holynb.errors import BadSetting, closest

__all__ = ["KnownModel", "Reading", "Shutdown", "ThinkingControl", "day", "entry", "text"]

READING_FIELDS = ("date", "source", "reported")
ENTRY_FIELDS = (
    "provider",
    "models",
    "offer",
    "context",
    "output",
    "images",
    "thinks",
    "wire",
    "thinking",
    "end",
    "article",
    *READING_FIELDS,
)
THINKING_FIELDS = ("field", "values", "budget", "default", "on", "off", "refuses", *READING_FIELDS)
END_FIELDS = ("on", "successor", "rerouted", *READING_FIELDS)
REQUIRED_FIELDS = ("provider", "models", "date", "source")

#: What no model reaches: above it, a figure is a slip of the pen.
MAX_TOKENS = 100_000_000
#: Years in which a model can end or be read of.
YEARS = (2020, 2050)


@dataclass(frozen=True, slots=True)
class Reading:
    """When and where a figure was read. `reported`: not in its vendor's own words."""

    date: dt.date
    source: str
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Shutdown:
    """From the day `on` a model does not answer any more; with `rerouted`, its successor does, at its own price."""

    on: dt.date
    reading: Reading
    successor: str | None = None
    rerouted: bool = False


@dataclass(frozen=True, slots=True)
class ThinkingControl:
    """How a model is told how much to think; models.toml says what each means. Fields are paths into the request's JSON.

    `off`: fields to send, False where it cannot be switched off, None where that is not known.
    """

    field: str
    reading: Reading
    values: tuple[str, ...] = ()
    budget: tuple[int, int] | None = None
    default: str | None = None
    on: Mapping[str, Any] = dataclass_field(default_factory=dict)
    off: Mapping[str, Any] | bool | None = None
    refuses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One entry. `models`: patterns; `offer`: names; `thinks`: None where it is not known. `article`: of the article's list of prices.

    `wire`: the one that it is asked over, None where that is its provider's.
    """

    provider: str
    models: tuple[str, ...]
    reading: Reading
    offer: tuple[str, ...] = ()
    context: int | None = None
    output: int | None = None
    images: bool | None = None
    thinks: bool | None = None
    thinking: ThinkingControl | None = None
    end: Shutdown | None = None
    article: bool = False
    wire: str | None = None

    def fits(self, model: str) -> bool:
        return any(fnmatchcase(model.lower(), pattern) for pattern in self.models)


def entry(raw: Mapping[str, Any], where: str) -> KnownModel:
    """The model of an entry. Raises BadSetting, in one line that names the entry and the field."""
    _check_names(raw, ENTRY_FIELDS, where)
    if missing := [name for name in REQUIRED_FIELDS if name not in raw]:
        raise BadSetting(f"{where}: {', '.join(missing)} missing.")
    reading = Reading(
        day(raw["date"], f"{where}: date"), text(raw["source"], f"{where}: source"), _flag(raw.get("reported"), where) or False
    )
    thinking = raw.get("thinking")
    return KnownModel(
        text(raw["provider"], f"{where}: provider"),
        _texts(raw["models"], f"{where}: models"),
        reading,
        _texts(raw.get("offer", ()), f"{where}: offer"),
        context=_tokens(raw.get("context"), f"{where}: context"),
        output=_tokens(raw.get("output"), f"{where}: output"),
        images=_flag(raw.get("images"), f"{where}: images"),
        thinks=True if thinking is not None else _flag(raw.get("thinks"), f"{where}: thinks"),
        thinking=None if thinking is None else _thinking(thinking, reading, f"{where}: thinking"),
        end=None if raw.get("end") is None else _end(raw["end"], reading, f"{where}: end"),
        article=_flag(raw.get("article"), f"{where}: article") or False,
        wire=_wire(raw.get("wire"), f"{where}: wire"),
    )


def _thinking(raw: Any, reading: Reading, where: str) -> ThinkingControl:
    _check_names(raw, THINKING_FIELDS, where)
    if "field" not in raw or ("values" in raw) == ("budget" in raw):
        raise BadSetting(f"{where} needs field, and either values or budget.")
    values, budget, off = _texts(raw.get("values", ()), f"{where}: values"), raw.get("budget"), raw.get("off")
    if budget is not None and (not isinstance(budget, list) or len(budget) != 2 or not all(type(n) is int and n >= 0 for n in budget)):
        raise BadSetting(f"{where}: budget should be [least, most] tokens, not {budget!r}.")
    default = None if raw.get("default") is None else text(raw["default"], f"{where}: default")
    if default not in (None, "on", "off", *values):
        raise BadSetting(f"{where}: default {default!r} is none of its values, on, or off.")
    if off is not None and off is not False and not (isinstance(off, Mapping) and off):
        raise BadSetting(f"{where}: off should be a table of fields, or false, not {off!r}.")
    on = raw.get("on", {})
    if not isinstance(on, Mapping):
        raise BadSetting(f"{where}: on should be a table of fields, not {on!r}.")
    refuses = _texts(raw.get("refuses", ()), f"{where}: refuses")
    limits = None if budget is None else (budget[0], budget[1])
    return ThinkingControl(text(raw["field"], f"{where}: field"), _reading(raw, reading, where), values, limits, default, on, off, refuses)


def _end(raw: Any, reading: Reading, where: str) -> Shutdown:
    _check_names(raw, END_FIELDS, where)
    if "on" not in raw:
        raise BadSetting(f"{where}: on missing.")
    successor = None if raw.get("successor") is None else text(raw["successor"], f"{where}: successor")
    on, rerouted = day(raw["on"], f"{where}: on"), _flag(raw.get("rerouted"), f"{where}: rerouted") or False
    return Shutdown(on, _reading(raw, reading, where), successor, rerouted)


def _reading(raw: Mapping[str, Any], of_entry: Reading, where: str) -> Reading:
    """The reading of a part of an entry: the entry's, but for what it says itself."""
    date = day(raw["date"], f"{where}: date") if "date" in raw else of_entry.date
    source = text(raw["source"], f"{where}: source") if "source" in raw else of_entry.source
    reported = _flag(raw.get("reported"), f"{where}: reported")
    return Reading(date, source, of_entry.reported if reported is None else reported)


def _check_names(raw: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(raw, Mapping):
        raise BadSetting(f"{where} should be a table.")
    for name in raw:
        if name not in known:
            raise BadSetting(f"{where}: there is no {name!r}.{closest(str(name), known)}")


def text(value: Any, where: str) -> str:
    """A table's field as text on one line. Raises BadSetting."""
    if not isinstance(value, str) or not value.strip() or len(value) > 300 or not value.isprintable():
        raise BadSetting(f"{where} should be text on one line.")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise BadSetting(f"{where} should be a list.")
    return tuple(text(v, where) for v in value)


def _wire(value: Any, where: str) -> str | None:
    if value not in (None, "responses"):
        raise BadSetting(f'{where} should be "responses" or left out, not {value!r}.')
    return None if value is None else str(value)


def _flag(value: Any, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise BadSetting(f"{where} should be true or false, not {value!r}.")
    return value


def _tokens(value: Any, where: str) -> int | None:
    if value is not None and (type(value) is not int or not 0 < value <= MAX_TOKENS):
        raise BadSetting(f"{where} should be a number of tokens from 1 to {MAX_TOKENS:,}, not {value!r}.")
    return value


def day(value: Any, where: str) -> dt.date:
    """The day of a table's field, a date of TOML or text of JSON. Raises BadSetting."""
    date = value
    if isinstance(value, str):
        try:
            date = dt.date.fromisoformat(value)
        except ValueError:
            date = None
    if type(date) is not dt.date or not YEARS[0] <= date.year <= YEARS[1]:
        raise BadSetting(f"{where} should be a date such as 2026-11-23, not {value!r}.")
    return date
