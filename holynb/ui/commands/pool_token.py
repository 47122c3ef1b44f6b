"""`%infer pool token …` and `holynb pool token …`: named tokens for the ports of this machine's pools. Prints nothing."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from holynb import port_tokens, port_usage
from holynb.config import Option, duration, settings, whole_number
from holynb.errors import BadOption, UserError, closest
from holynb.ui.cell import grammar
from holynb.ui.commands import token_names
from holynb.ui.output.listing import Listing, Part, Remark

if TYPE_CHECKING:
    from holynb.pools import PoolInfo

__all__ = ["CLIENT_HEAD", "HELP", "OPTIONS", "answer", "client_rows", "clients"]

#: Of a table of who asks a pool.
CLIENT_HEAD = ("name", "tokens today", "tokens a day", "left")

HELP = (
    "token add NAME … [--file NAMES] [--tokens-per-day N] [--expires DURATION] | set NAME … [--file NAMES] [--tokens-per-day N|none] "
    "[--expires DURATION|none] | list [--days N] | remove NAME … [--file NAMES]: tokens by which others reach a pool's port "
    "(pool start … --port P) on this machine; one above its tokens of a day is refused with 429, one that has expired with 401. "
    "A token is shown once, as NAME TOKEN, and kept as its hash."
)

OPTIONS = (
    Option("tokens_per_day", ("--tokens-per-day",), "N", "tokens of prompts and answers a day, of all pools together; none: no limit"),
    Option("expires", ("--expires",), "DURATION", "refused after this long, such as 120d; none: never"),
    Option("days", ("--days",), "N", "of list: what each used on each of the last N days, today first (default 1)"),
    Option("file", ("--file",), "NAMES", "a file with a name in each line, in UTF-8; of add: those that have a token keep it"),
)
#: A table of more days is wider than any page.
MOST_DAYS = 31
WORDS = ("add", "set", "list", "remove")
#: The words that an option belongs to.
_OF_WORDS = {"file": {"add", "set", "remove"}, "days": {"list"}}
#: What stands for no limit and for no end.
_NONE = "none"


def answer(args: Sequence[str]) -> tuple[str | list[Part], Any]:
    """Raises UserError."""
    values, words = grammar.parse_options(args, {flag: option for option in OPTIONS for flag in option.flags})
    word, *typed = words or ["list"]
    if word not in WORDS:
        raise BadOption(f"There is no pool token {word}.{closest(word, WORDS)} Known: {', '.join(WORDS)}.")
    for name in values:
        if word not in _OF_WORDS.get(name, {"add", "set"}):
            raise BadOption(f"--{name.replace('_', '-')} does not belong to pool token {word}.")
    if word == "list" and typed:
        raise BadOption("pool token list takes no name.")
    if word != "list" and not typed and "file" not in values:
        raise BadOption(f"pool token {word} takes a name, or several, or --file with a name in each line.")
    home, names = settings.home(), token_names.names(typed, values.get("file"))
    try:
        if word == "list":
            return _list(home, _number(values.get("days", 1), "--days", MOST_DAYS))
        if word == "remove":
            return _remove(home, names)
        terms = _terms(values)
        if word == "set":
            return _set(home, names, terms)
        return _add(home, names, terms, keeps="file" in values or len(names) > 1)
    except port_tokens.TokenNameError as exc:
        raise BadOption(str(exc)) from exc
    except sqlite3.Error as exc:
        raise UserError(f"What was used, in {port_usage.path(home)}, cannot be read: {exc}. Try again, or move the file away.") from exc
    except (OSError, ValueError) as exc:
        raise UserError(f"The tokens in {port_tokens.path(home)} cannot be used: {exc}. Mend or remove the file.") from exc


def clients(info: PoolInfo) -> list[str]:
    """What each named token has used today, the most first."""
    return [f"{name} {used}{f' of {limit}' if left else ''} tokens today" for name, used, limit, left in client_rows(info)]


def client_rows(info: PoolInfo | None) -> list[list[str]]:
    """Of each named token what stands under CLIENT_HEAD, the most used first."""
    rows = []
    for one in sorted(info.clients if info else (), key=lambda c: (-c["used"], c["name"])):
        used, limit = one["used"], one["per_day"]
        left = "" if limit is None else f"{max(0, limit - used):,}"
        rows.append([one["name"], f"{used:,}", "no limit" if limit is None else f"{limit:,}", left])
    return rows


def _terms(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of the tokens: tokens_per_day (None: without a limit) and expires (empty: never). Raises BadOption."""
    terms: dict[str, Any] = {}
    if (limit := values.get("tokens_per_day")) is not None:
        terms["tokens_per_day"] = None if limit == _NONE else _number(limit)
    if (after := values.get("expires")) is not None:
        terms["expires"] = "" if after == _NONE else _time_after(after)
    return terms


def _time_after(word: str) -> str:
    try:
        return (datetime.now().astimezone() + timedelta(seconds=duration(word))).isoformat(timespec="seconds")
    except (ValueError, OverflowError) as exc:
        raise BadOption(f"--expires takes a duration such as 30d or 120d, or none, not {word!r}.") from exc


def _terms_words(terms: Mapping[str, Any]) -> str:
    """`50,000 tokens a day, until 2027-03-01 09:00`."""
    limit, expires = terms.get("tokens_per_day"), terms.get("expires")
    return f"{'no limit' if limit is None else f'{limit:,} tokens a day'}{f', until {_minute(expires)}' if expires else ''}"


def _minute(time: str) -> str:
    """A time in ISO 8601, to the minute."""
    return time[:16].replace("T", " ")


def _add(home: Any, names: Sequence[str], terms: Mapping[str, Any], *, keeps: bool) -> tuple[list[Part], Any]:
    """A line for each new one. What is said about them is a note: the lines may go into a file. `keeps`: who has a token keeps it."""
    tokens = port_tokens.add_all(home, names, **terms) if keeps else {names[0]: port_tokens.add(home, names[0], **terms)}
    data = [
        {"name": name, "token": token, "tokens_per_day": terms.get("tokens_per_day"), "expires": terms.get("expires", "")}
        for name, token in tokens.items()
    ]
    kept = [name for name in names if name not in tokens]
    notes = [Remark(f"Kept as they are, for they have a token: {', '.join(kept)}.")] if kept else []
    if tokens:
        notes.append(
            Remark(f"Not shown again ({_terms_words(terms)}). Give each its own as its API key, with the pool's address from pool status.")
        )
    return [*(f"{name} {token}" for name, token in tokens.items()), *notes], data


def _set(home: Any, names: Sequence[str], terms: Mapping[str, Any]) -> tuple[str, Any]:
    if not terms:
        raise BadOption("pool token set takes --tokens-per-day N, or none, or --expires DURATION, or none.")
    port_tokens.change(home, names, lambda token: replace(token, **terms))
    now = {t.name: t for t in port_tokens.read(home)}
    data = [{"name": n, "tokens_per_day": now[n].tokens_per_day, "expires": now[n].expires} for n in names]
    return "\n".join(f"{d['name']} has {_terms_words(d)} from now on." for d in data), data


def _remove(home: Any, names: Sequence[str]) -> tuple[str, Any]:
    port_tokens.remove(home, *names)
    return "\n".join(f"{name}'s token is removed; pools refuse it from now on." for name in names), [{"name": name} for name in names]


def _list(home: Any, n: int) -> tuple[str | list[Part], Any]:
    """The tokens, and what each used of the last `n` days, the whole of them where they are several."""
    tokens, today = port_tokens.read(home), date.today()  # noqa: DTZ011 - as the pools count
    days = [(today - timedelta(days=i)).isoformat() for i in range(n)]
    used = port_usage.by_day(home, days[-1])
    removed = sorted(set(used) - {t.name for t in tokens})
    counts = {name: {day: used.get(name, {}).get(day, 0) for day in days} for name in [*(t.name for t in tokens), *removed]}
    data: list[dict[str, Any]] = [
        {"name": t.name, "tokens_per_day": t.tokens_per_day, "added": t.added, "expires": t.expires, "used": counts[t.name]} for t in tokens
    ]
    data += [{"name": name, "tokens_per_day": None, "added": None, "expires": "", "used": counts[name]} for name in removed]
    if not data:
        return "No named token. Add one: %infer pool token add NAME", data
    expired, ends = {t.name for t in tokens if t.is_expired}, any(t.expires for t in tokens)
    lines = []
    for entry in data:
        limit = (
            "expired"
            if entry["name"] in expired
            else "removed"
            if entry["added"] is None
            else "no limit"
            if entry["tokens_per_day"] is None
            else f"{entry['tokens_per_day']:,}"
        )
        of_days = [sum(entry["used"].values())] * (n > 1) + list(entry["used"].values())
        until = [_minute(entry["expires"])] if ends else []
        lines.append([entry["name"], limit, entry["added"] or "", *until, *(f"{c:,}" for c in of_days)])
    facts = ["name", "tokens a day", "added", *(["expires"] if ends else [])]
    head = [*facts, *([f"{n} days"] if n > 1 else []), "today", *(day[5:] for day in days[1:])]
    return [Listing(head, lines, {1, *range(len(facts), len(head))})], data


def _number(word: Any, flag: str = "--tokens-per-day", most: int = sys.maxsize) -> int:
    try:
        number = whole_number(word)
    except ValueError:
        number = -1
    if not 1 <= number <= most:
        upto = "on, or none" if most == sys.maxsize else f"to {most}"
        raise BadOption(f"{flag} takes a whole number from 1 {upto}, not {word!r}.")
    return number
