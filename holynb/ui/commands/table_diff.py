"""What a table of prices or models would change: a line for each change, and how many are new or the same. Takes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holynb.config import model_entries, models
from holynb.pricing import prices
from holynb.pricing.price_entries import read_entry
from holynb.types import Route
from holynb.ui.output import clean, clip
from holynb.ui.output.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holynb.pricing.foreign import ForeignTable, Kind
    from holynb.ui.output.listing import Part

__all__ = ["parts"]

#: So many changes are shown in full, so many new names, and so many reasons of what was left out.
MAX_CHANGES, MAX_NAMES, MAX_REASONS = 60, 12, 3


def parts(kind: Kind, table: ForeignTable, source: str) -> list[Part]:
    """The difference between what counts now and this table."""
    changes, new, same = list[list[str]](), list[str](), 0
    for raw in _counting(table.entries):
        before, after, name = (_price if kind == "prices" else _model)(raw)
        if before is None:
            new.append(name)
        elif before == after:
            same += 1
        else:
            changes.append([name, before, after])
    shown = Listing([kind[:-1], "now", "then"], changes[:MAX_CHANGES], prose={1, 2})
    above = clean(f"{_entries(len(table.entries))} of {source} (as {table.shape} has them), against what counts now:")
    lines = list[str]()
    lines += [f"… and {len(changes) - MAX_CHANGES:,} more changes."] if len(changes) > MAX_CHANGES else []
    names = f" ({', '.join(new[:MAX_NAMES])}{', …' if len(new) > MAX_NAMES else ''})" if new else ""
    lines.append(f"{len(changes):,} changed, {len(new):,} new{names}, {same:,} the same.")
    if table.left_out:
        reasons = "; ".join(clip(reason, 160) for reason in table.left_out[:MAX_REASONS])
        lines.append(f"{_entries(len(table.left_out))} left out as invalid: {reasons}.")
    return [above, *([shown] if changes else []), clean("\n".join(lines))]


def _counting(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that count now or will: of the prices of one model, none that a later one has followed."""
    today, latest = str(models.today()), dict[tuple[str, ...], str]()
    for raw in entries:
        if (since := str(raw.get("since") or "")) <= today:
            key = raw["provider"], *raw["models"]
            latest[key] = max(latest.get(key, ""), since)
    return [raw for raw in entries if str(raw.get("since") or "") >= latest.get((raw["provider"], *raw["models"]), "")]


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _name(raw: Any) -> Route:
    """The route of an entry, by its first name; what stands for a pattern's character stands for itself."""
    name = raw["models"][0]
    for character in "*?[":
        name = name.replace(f"[{character}]", character)
    return Route(raw["provider"], name)


def _price(raw: Any) -> tuple[str | None, str, str]:
    route = _name(raw)
    after = read_entry(prices.dated(raw), str(route))
    before = prices.list_price(route, at=None)
    return None if before is None else _rates_text(before), _rates_text(after), f"{route}{f' from {after.since}' if after.since else ''}"


def _rates_text(price: Any) -> str:
    """`$2 in, $8 out, cached $0.5; above 200,000: $4 in, $16 out`."""
    parts = [(0, price.rates), *price.tiers]
    figures = [f"{f'above {above:,}: ' if above else ''}{_rates_line(rates)}" for above, rates in parts]
    return "; ".join([*figures, *(["at peak hours " + _rates_line(price.peak.rates)] if price.peak else [])])


def _rates_line(rates: Any) -> str:
    named = [
        (rates.input, "in"),
        (rates.output, "out"),
        (rates.cached, "cached"),
        (rates.cache_write, "written"),
        (rates.cache_write_1h, "written for an hour"),
    ]
    return ", ".join(f"${amount.normalize():f} {word}" for amount, word in named if amount is not None)


def _model(raw: Any) -> tuple[str | None, str, str]:
    route = _name(raw)
    known, theirs = models.find(route.provider, route.model), model_entries.entry(raw, str(route))
    after = theirs if known is None else models.merged(known, theirs)
    return None if known is None else _model_text(known), _model_text(after), str(route)


def _model_text(model: Any) -> str:
    """`context 1,000,000, answer 128,000, images, reported to end 2027-01-14`."""
    end = model.end
    figures = [
        f"context {model.context:,}" if model.context else "",
        f"answer {model.output:,}" if model.output else "",
        "images" if model.images else "",
        "thinks" if model.thinks else "",
        f"{'reported to end' if end.reading.reported else 'ends'} {end.on}" if end else "",
    ]
    return ", ".join(f for f in figures if f) or "nothing known"
