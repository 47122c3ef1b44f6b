"""`%infer pool token …` and `holynb pool token …`: named tokens for the ports of this machine's pools. Prints nothing."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from holynb import port_tokens, port_usage, typed_path
from holynb.config import Option, settings
from holynb.errors import BadOption, UserError, closest
from holynb.ui.cell import grammar
from holynb.ui.output.listing import Listing, Part

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["HELP", "OPTIONS", "answer", "clients"]

HELP = (
    "token add NAME … [--file NAMES] [--tokens-per-day N] | set NAME --tokens-per-day N | list [--days N] | remove NAME: tokens by which others reach a pool's port (pool start … --port P) on this machine; "
    "one above its tokens of a day is refused with 429. A token is shown once, and kept as its hash."
)

OPTIONS = (
    Option("tokens_per_day", ("--tokens-per-day",), "N", "tokens of prompts and answers a day, of all pools together"),
    Option("days", ("--days",), "N", "of list: what each used on each of the last N days, today first (default 1)"),
    Option("file", ("--file",), "NAMES", "a file with a name in each line; those that have a token keep it"),
)
#: A table of more days is wider than any page.
MOST_DAYS = 31
WORDS = ("add", "set", "list", "remove")


def answer(args: Sequence[str]) -> tuple[str | list[Part], Any]:
    """Raises UserError."""
    values, words = grammar.parse_options(args, {flag: option for option in OPTIONS for flag in option.flags})
    word, *names = words or ["list"]
    if word not in WORDS:
        raise BadOption(f"There is no pool token {word}.{closest(word, WORDS)} Known: {', '.join(WORDS)}.")
    for name in values:
        if word not in {"file": {"add"}, "days": {"list"}}.get(name, {"add", "set"}):
            raise BadOption(f"--{name.replace('_', '-')} does not belong to pool token {word}.")
    if word == "add" and "file" in values:
        names += _names_in(values["file"])
    if word == "add" and not names:
        raise BadOption("pool token add takes a name, or several, or --file with a name in each line.")
    if word != "add" and len(names) != (word != "list"):
        raise BadOption(f"pool token {word} takes {'no name' if word == 'list' else 'one name'}.")
    home = settings.home()
    try:
        if word == "list":
            return _list(home, _number(values.get("days", 1), "--days", MOST_DAYS))
        limit = None if values.get("tokens_per_day") is None else _number(values["tokens_per_day"])
        if word == "set":
            return _set(home, names[0], limit)
        if word == "remove":
            return _remove(home, names[0])
        return _add(home, names[0], limit) if len(names) == 1 and "file" not in values else _add_all(home, names, limit)
    except port_tokens.TokenNameError as exc:
        raise BadOption(str(exc)) from exc
    except sqlite3.Error as exc:
        raise UserError(f"What was used, in {port_usage.path(home)}, cannot be read: {exc}. Try again, or move the file away.") from exc
    except (OSError, ValueError) as exc:
        raise UserError(f"The tokens in {port_tokens.path(home)} cannot be used: {exc}. Mend or remove the file.") from exc


def clients(info: PoolInfo) -> list[str]:
    """What each named token has used today."""
    by_use = sorted(info.clients, key=lambda c: -c["used"])
    limits = [(c, "" if c["per_day"] is None else f" of {c['per_day']:,}") for c in by_use]
    return [f"{c['name']} {c['used']:,}{of} tokens today" for c, of in limits]


def _add(home: Any, name: str, limit: int | None) -> tuple[str, Any]:
    token = port_tokens.add(home, name, limit)
    allowed = "without a limit" if limit is None else f"{limit:,} tokens a day"
    text = f"{token}\nis {name}'s token ({allowed}). It is not shown again: give it to them as their API key, with the pool's address from pool status."
    return text, {"name": name, "token": token, "tokens_per_day": limit}


def _add_all(home: Any, names: Sequence[str], limit: int | None) -> tuple[str, Any]:
    """A line for each new one; every name is checked before the first token is made."""
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        port_tokens.check_name(name)
    there = {token.name for token in port_tokens.read(home)}
    data = [{"name": n, "token": port_tokens.add(home, n, limit), "tokens_per_day": limit} for n in wanted if n not in there]
    lines = [f"{d['name']} {d['token']}" for d in data]
    kept = [n for n in wanted if n in there]
    return "\n".join([*lines, *([f"(kept as they are: {', '.join(kept)})"] if kept else [])]), data


def _names_in(file: str) -> list[str]:
    """The names of a file, one a line. Raises BadOption."""
    try:
        lines = typed_path.typed(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as exc:
        raise BadOption(f"--file {file} cannot be read: {exc}") from exc
    names = []
    for number, line in enumerate(lines, 1):
        if name := line.strip():
            try:
                port_tokens.check_name(name)
            except port_tokens.TokenNameError as exc:
                raise BadOption(f"{file}, line {number}: {exc} No token was made.") from exc
            names.append(name)
    return names


def _set(home: Any, name: str, limit: int | None) -> tuple[str, Any]:
    if limit is None:
        raise BadOption("pool token set takes --tokens-per-day N.")
    port_tokens.change(home, name, limit)
    return f"{name} has {limit:,} tokens a day from now on.", {"name": name, "tokens_per_day": limit}


def _remove(home: Any, name: str) -> tuple[str, Any]:
    port_tokens.remove(home, name)
    return f"{name}'s token is removed; pools refuse it from now on.", {"name": name}


def _list(home: Any, n: int) -> tuple[str | list[Part], Any]:
    """The tokens, and what each used of the last `n` days, the whole of them where they are several."""
    tokens, today = port_tokens.read(home), date.today()  # noqa: DTZ011 - as the pools count
    days = [(today - timedelta(days=i)).isoformat() for i in range(n)]
    used = port_usage.by_day(home, days[-1])
    removed = sorted(set(used) - {t.name for t in tokens})
    counts = {name: {day: used.get(name, {}).get(day, 0) for day in days} for name in [*(t.name for t in tokens), *removed]}
    data: list[dict[str, Any]] = [
        {"name": t.name, "tokens_per_day": t.tokens_per_day, "added": t.added, "used": counts[t.name]} for t in tokens
    ]
    data += [{"name": name, "tokens_per_day": None, "added": None, "used": counts[name]} for name in removed]
    if not data:
        return "No named token. Add one: %infer pool token add NAME", data
    lines = []
    for entry in data:
        limit = "removed" if entry["added"] is None else "no limit" if entry["tokens_per_day"] is None else f"{entry['tokens_per_day']:,}"
        of_days = [sum(entry["used"].values())] * (n > 1) + list(entry["used"].values())
        lines.append([entry["name"], limit, entry["added"] or "", *(f"{c:,}" for c in of_days)])
    head = ["name", "tokens a day", "added", *([f"{n} days"] if n > 1 else []), "today", *(day[5:] for day in days[1:])]
    return [Listing(head, lines, {1, *range(3, len(head))})], data


def _number(word: Any, flag: str = "--tokens-per-day", most: int = sys.maxsize) -> int:
    try:
        number = int(str(word).replace(",", "").replace("_", ""))
    except ValueError:
        number = -1
    if not 1 <= number <= most:
        upto = "on" if most == sys.maxsize else f"to {most}"
        raise BadOption(f"{flag} takes a whole number from 1 {upto}, not {word!r}.")
    return number
