"""Models as lines of a table: context, thinking, prices, when they end. Reads the tables; sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from holynb.config import models
from holynb.pricing import prices
from holynb.types import Route
from holynb.ui.output.listing import Listing

if TYPE_CHECKING:
    from decimal import Decimal

    from holynb.config.model_entries import KnownModel, Reading
    from holynb.ui.output.listing import Part

__all__ = ["parts"]


def parts(routes: Sequence[tuple[Route, int | None]], *, whole: bool) -> list[Part]:
    """A line for each route and its context length. `whole`: all that is known, and below it where that was read."""
    known = [models.find(route.provider, route.model) for route, _ in routes]
    head = ["route", "context", *(["longest answer", "thinks", "images"] if whole else []), "$/M in", "$/M out", ""]
    lines = []
    for (route, context), model in zip(routes, known, strict=True):
        price = prices.list_price(route)
        figures = [_tokens(model.output if model else None), _thinks(model), _yes_or_no(model.images if model else None)] if whole else []
        length = context or (model.context if model else None)
        dollars = [_dollars(price.input), _dollars(price.output)] if price else ["?", "?"]
        lines.append([str(route), _tokens(length), *figures, *dollars, models.lifecycle(route)])
    ending = len(head) - 1
    numbers = {i for i, name in enumerate(head) if name in ("context", "longest answer", "$/M in", "$/M out")}
    shown = Listing(head, lines, numbers, prose={i for i, name in enumerate(head) if name == "thinks"} | {ending}, wide={ending})
    return [shown, *([_sources([m for m in known if m is not None])] if whole else ())]


def _thinks(model: KnownModel | None) -> str:
    """`medium; off, low to max`: what it does by itself, then what it can be told."""
    if model is None or model.thinks is None:
        return "?"
    control = model.thinking
    if control is None:
        return "yes" if model.thinks else "no"
    levels = (
        [f"from {control.budget[0]:,} tokens" if control.budget[0] > 1 else "any number of tokens"]
        if control.budget
        else [" to ".join(dict.fromkeys((control.values[0], control.values[-1])))]
    )
    off = ["off"] if isinstance(control.off, dict) else []
    return f"{control.default or '?'}; {', '.join([*off, *levels])}"


def _sources(known: Iterable[KnownModel]) -> str:
    """Where the table was read, facts before reports, each site with its latest reading; and of what list HolySheep's are."""
    readings = [part.reading for m in known for part in (m, m.thinking, m.end) if part is not None]
    facts, reports = ([r for r in readings if r.reported is reported] for reported in (False, True))
    says = [f"Read at {_sites(facts)}." if facts else "", f"Reported by {_sites(reports)}." if reports else ""]
    if any(m.article for m in known):
        says.append("Models and prices are those of the article that holynb began with; with its key set, the server's own list is shown.")
    return " ".join(s for s in says if s)


def _sites(readings: Iterable[Reading]) -> str:
    latest: dict[str, str] = {}
    for r in sorted(readings, key=lambda r: r.date):
        latest[urlsplit(r.source).hostname or r.source] = str(r.date)
    return ", ".join(f"{site} ({day})" for site, day in sorted(latest.items()))


def _tokens(count: int | None) -> str:
    return f"{count:,}" if count else "?"


def _yes_or_no(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


def _dollars(value: Decimal | None) -> str:
    return "?" if value is None else f"{value.normalize():f}"
