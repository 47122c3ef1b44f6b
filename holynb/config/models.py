"""Models of hosted providers: how much they take, how they think, when they end and what follows. Knows no price, sends nothing.

What ships stands in models.toml; what `%infer models update` took lies over it, and above both what a server said of its own models in
this session.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files

from holynb.config import update_files
from holynb.config.model_entries import KnownModel, Reading, Shutdown, entry
from holynb.types import Route

__all__ = [
    "FILE_NAME",
    "announce",
    "find",
    "forget",
    "lifecycle",
    "merged",
    "names",
    "notice",
    "offered",
    "serving",
    "shipped",
    "state",
    "today",
]

#: Where an update is kept, in HOLYNB_HOME.
FILE_NAME = "models.json"

#: What servers said in this session of their own models: (provider, model) → the day they end, or that no end is announced.
_announced: dict[tuple[str, str], Shutdown | None] = {}


# -- looking up ----------------------------------------------------------------------------------------------------------
def find(provider: str, model: str) -> KnownModel | None:
    """What is known of a model; None: nothing."""
    known = _find(provider, model, update_files.stamp(FILE_NAME))
    key = provider, model
    if key not in _announced:
        return known
    end = _announced[key]
    if end is not None and known is not None and known.end is not None:
        end = replace(end, successor=known.end.successor, rerouted=known.end.rerouted)
    base = known or KnownModel(provider, (model,), end.reading if end else Reading(dt.date.min, ""))
    return replace(base, end=end)


@lru_cache(maxsize=1024)
def _find(provider: str, model: str, stamp: update_files.Stamp | None) -> KnownModel | None:
    ours, theirs = (next((e for e in table if e.provider == provider and e.fits(model)), None) for table in (shipped(), _updated(stamp)))
    if ours is None or theirs is None:
        return ours or theirs
    return merged(ours, theirs)


def merged(ours: KnownModel, theirs: KnownModel) -> KnownModel:
    """An update's figures over ours where they are as good and read later; what only one of both knows, from it."""
    newer = theirs.reading.reported <= ours.reading.reported and theirs.reading.date > ours.reading.date
    first, second = (theirs, ours) if newer else (ours, theirs)
    figures = {
        n: getattr(first, n) if getattr(first, n) is not None else getattr(second, n) for n in ("context", "output", "images", "thinks")
    }
    return replace(ours, **figures, thinking=first.thinking or second.thinking, end=_later_end(ours.end, theirs.end), reading=first.reading)


def _later_end(ours: Shutdown | None, theirs: Shutdown | None) -> Shutdown | None:
    """A fact before a report, else what was read later; the successor from whoever names one."""
    if ours is None or theirs is None:
        return ours or theirs
    newer = theirs.reading.reported <= ours.reading.reported and theirs.reading.date > ours.reading.date
    end, other = (theirs, ours) if newer else (ours, theirs)
    return replace(end, successor=end.successor or other.successor, rerouted=ours.rerouted or theirs.rerouted)


def serving(provider: str, model: str, day: dt.date) -> str:
    """The model that answers under this name on a day: its successor, at its price, where the vendor has rerouted it."""
    known = find(provider, model)
    end = known.end if known is not None else None
    return end.successor if end is not None and end.rerouted and end.successor and end.on <= day else model


def names(provider: str) -> list[str]:
    """The models of a provider that ship in the table, each by its plainest name, on offer or not."""
    return [e.models[0].rstrip("*") for e in shipped() if e.provider == provider and not set(e.models[0].rstrip("*")) & set("*?[")]


def offered(provider: str, day: dt.date | None = None) -> dict[str, int | None]:
    """The models of a provider that are offered by name, those that end last and those that have ended not at all → context length."""
    day = day or today()
    named = [(n, find(provider, n)) for n in _offers(update_files.stamp(FILE_NAME)).get(provider, ())]
    living = [(n, m) for n, m in named if m is not None and (m.end is None or m.end.on > day)]
    return {n: m.context for n, m in sorted(living, key=lambda pair: pair[1].end is not None)}


def state() -> tuple[object, ...]:
    """What `offered` depends on: equal as long as its answers are."""
    return update_files.stamp(FILE_NAME), today(), tuple(_announced.items())


def today() -> dt.date:
    """The day, where the person is."""
    return dt.date.today()  # noqa: DTZ011


@lru_cache(maxsize=4)
def _offers(stamp: update_files.Stamp | None) -> dict[str, tuple[str, ...]]:
    names: dict[str, dict[str, None]] = {}
    for e in (*shipped(), *_updated(stamp)):
        names.setdefault(e.provider, {}).update(dict.fromkeys(e.offer))
    return {provider: tuple(of) for provider, of in names.items()}


def announce(provider: str, ends: Mapping[str, dt.date | None], source: str) -> None:
    """Keep for this session what a provider's own server says of its models: the day each ends, None where no end is announced."""
    for model, day in ends.items():
        _announced[provider, model] = None if day is None else Shutdown(day, Reading(today(), source))


def forget() -> None:
    """Forget what servers said."""
    _announced.clear()


# -- words ---------------------------------------------------------------------------------------------------------------
def lifecycle(route: Route, day: dt.date | None = None) -> str:
    """`ends 2026-11-30; successor anthropic/claude-sonnet-5-5`, `reported to end …`, `ended …`; empty where no end is known."""
    known = find(route.provider, route.model)
    if known is None or known.end is None:
        return ""
    end = known.end
    over = end.on <= (day or today())
    verb = ("reported to have ended" if over else "reported to end") if end.reading.reported else ("ended" if over else "ends")
    if not end.successor:
        return f"{verb} {end.on}"
    successor = Route(route.provider, end.successor)
    return f"{verb} {end.on}{f', then answered by {successor} at its price' if end.rerouted else f'; successor {successor}'}"


def notice(route: Route, day: dt.date | None = None) -> str:
    """`lifecycle` as a sentence about the route; empty where no end is known."""
    words = lifecycle(route, day)
    return words and f"{route} {'is ' if words.startswith('reported') else ''}{words}."


# -- tables -------------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def shipped() -> tuple[KnownModel, ...]:
    """The models that ship with holynb."""
    document = tomllib.loads((files("holynb.config") / "models.toml").read_text("utf-8"))
    return tuple(entry(e, f"models.toml, entry {i}") for i, e in enumerate(document["model"], 1))


@lru_cache(maxsize=4)
def _updated(stamp: update_files.Stamp | None) -> tuple[KnownModel, ...]:
    """The models of the update that was taken. Raises BadSetting."""
    return () if stamp is None else tuple(entry(e, f"{FILE_NAME}, entry {i}") for i, e in enumerate(update_files.entries(stamp), 1))
