"""`%infer prices` and `%infer models update`: newer tables without a new release. Read from an address, checked, shown, taken when told to.

What was shown waits in HOLYNB_HOME, and `--take` takes just that. Nothing is sent but the request for the file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holynb import loop, typed_path
from holynb.config import models, settings, update_files
from holynb.config.layers import address_problem
from holynb.engines import pages
from holynb.errors import BadOption, BadSetting, Fault, closest
from holynb.pricing import foreign, prices
from holynb.ui.commands import table_diff
from holynb.ui.output import clean, listing
from holynb.units import memory

if TYPE_CHECKING:
    from holynb.pricing.foreign import ForeignTable, Kind
    from holynb.ui.output.listing import Part

__all__ = ["answer", "run"]

#: Where a table is read from, unless `[update]` of the user's config.toml or `--from` says otherwise. genai-prices' first files,
#: prices/data.json among them, are frozen.
ADDRESSES: Mapping[str, str] = {
    "prices": "https://raw.githubusercontent.com/pydantic/genai-prices/main/prices/new_data/v2/data.json",
    "models": "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json",
}
FILES: Mapping[str, str] = {"prices": prices.FILE_NAME, "models": models.FILE_NAME}
FLAGS = ("--take", "--from", "--remove")


def run(kind: Kind, args: Sequence[str]) -> str:
    """What `%infer prices …`, or `%infer models update …`, prints in a terminal. Raises UserError."""
    return listing.as_text(answer(kind, args))


def answer(kind: Kind, args: Sequence[str]) -> list[Part]:
    """The same in lines and tables. Raises UserError."""
    if not args:
        return [_state(kind)]
    if args[0] != "update":
        raise BadOption(f"%infer {kind} takes update, not {args[0]!r}.{closest(args[0], ['update'])}")
    address, flags = _parse(kind, list(args[1:]))
    if "--remove" in flags:
        there = [update_files.remove(FILES[kind]), update_files.remove(_waiting(kind))]
        return [
            f"Removed. The {kind} that ship with holynb count again." if there[0] else f"No update of {kind} was taken: nothing to remove."
        ]
    waiting = update_files.read(_waiting(kind))
    if "--take" in flags and waiting is not None and address in (None, waiting.get("source")):
        return [_take(kind, waiting)]
    table, source = _fetched(kind, address or settings.current().update.get(kind) or ADDRESSES[kind])
    document = {"source": source, "date": str(models.today()), "shape": table.shape, "entries": table.entries}
    shown = table_diff.parts(kind, table, source)
    if "--take" in flags:
        return [*shown, _take(kind, document)]
    update_files.write(_waiting(kind), document)
    return [*shown, f"Nothing is taken yet. %infer {kind} update --take takes what is shown here."]


def _waiting(kind: Kind) -> str:
    return f"{kind}.new.json"


def _take(kind: Kind, document: Mapping[str, Any]) -> str:
    path = update_files.write(FILES[kind], document)
    update_files.remove(_waiting(kind))
    count = len(document["entries"])
    return clean(f"Taken: {count:,} {kind} of {document.get('source')}, kept in {path}. %infer {kind} update --remove undoes it.")


def _parse(kind: Kind, words: list[str]) -> tuple[str | None, set[str]]:
    """The address of `--from`, and the flags."""
    address, flags = None, set[str]()
    while words:
        flag, _, value = words.pop(0).partition("=")
        if flag not in FLAGS:
            raise BadOption(f"%infer {kind} update takes {', '.join(FLAGS)}, not {flag!r}.{closest(flag, FLAGS)}")
        if flag == "--from":
            if not value and not words:
                raise BadOption(f"--from takes the address or the file of a table of {kind}.")
            address = value or words.pop(0)
        flags.add(flag)
    return address, flags


def _fetched(kind: Kind, address: str) -> tuple[ForeignTable, str]:
    """The table at an address or in a file, checked, and where it was read. Raises BadSetting, BadOption."""
    if "://" in address:
        if problem := address_problem(address):
            raise BadOption(f"The address of a table of {kind} {problem}.")
        try:
            body = loop.submit(pages.get(address, foreign.MAX_BYTES)).result(pages.WHOLE_S * 2)
        except Fault as fault:
            raise BadSetting(f"The table of {kind} cannot be read: {fault.message}") from None
        return foreign.read(body, kind, address, models.today()), address
    path = typed_path.typed(address).absolute()
    try:
        if path.stat().st_size > foreign.MAX_BYTES:
            raise BadSetting(f"{path} has more than {memory(foreign.MAX_BYTES)}, which no table of {kind} has.")
        body = path.read_bytes()
    except OSError as exc:
        raise BadSetting(f"{path} cannot be read: {exc.strerror}.") from exc
    return foreign.read(body, kind, str(path), models.today()), str(path)


# -- what there is -----------------------------------------------------------------------------------------------------------
def _state(kind: Kind) -> str:
    """Which tables count now, and how old they are."""
    shipped = prices.table() if kind == "prices" else models.shipped()
    days = sorted(day for e in shipped if (day := _read_on(e)) is not None)
    taken = update_files.read(FILES[kind])
    lines = [
        f"{len(shipped):,} {kind} ship with holynb, read between {days[0]} and {days[-1]}.",
        "No update was taken."
        if taken is None
        else f"An update of {len(taken['entries']):,} was read {taken.get('date')} from {taken.get('source')}; where both have an entry, the later reading counts.",
        f"%infer {kind} update reads {settings.current().update.get(kind) or ADDRESSES[kind]} and shows what would change.",
        f'--from ADDRESS, or [update] {kind} = "ADDRESS" in your config.toml, reads another.',
    ]
    return clean("\n".join(lines))


def _read_on(entry: Any) -> dt.date | None:
    """The day an entry of either table was read; the article's and the simulator's are as old as they are."""
    if getattr(entry, "article", False) or entry.provider in ("holysheep", "sim"):
        return None
    day: dt.date | None = entry.date if hasattr(entry, "date") else entry.reading.date
    return day
