"""`%infer pool token …` and `holynb pool token …`: named tokens for the ports of this machine's pools. Prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holynb import port_tokens
from holynb.config import Option, settings
from holynb.errors import BadOption, UserError, closest
from holynb.ui.cell import grammar
from holynb.ui.output.listing import Listing, Part

__all__ = ["HELP", "OPTIONS", "answer"]

HELP = (
    "token add NAME [--tokens-per-day N] | list | remove NAME: tokens by which others reach a pool's port (pool start … --port P) on this machine; "
    "one above its tokens of a day is refused with 429. A token is shown once, and kept as its hash."
)

OPTIONS = (Option("tokens_per_day", ("--tokens-per-day",), "N", "tokens of prompts and answers a day, of all pools together"),)


def answer(args: Sequence[str]) -> tuple[str | list[Part], Any]:
    """Raises UserError."""
    values, words = grammar.parse_options(args, {flag: option for option in OPTIONS for flag in option.flags})
    word, *names = words or ["list"]
    if word not in ("add", "list", "remove"):
        raise BadOption(f"There is no pool token {word}.{closest(word, ('add', 'list', 'remove'))} Known: add NAME, list, remove NAME.")
    if len(names) != (word != "list"):
        raise BadOption(f"pool token {word} takes {'no name' if word == 'list' else 'one name'}.")
    if values and word != "add":
        raise BadOption(f"--tokens-per-day belongs to pool token add, not to {word}.")
    home = settings.home()
    try:
        if word == "list":
            return _list(home)
        return _add(home, names[0], values.get("tokens_per_day")) if word == "add" else _remove(home, names[0])
    except port_tokens.TokenNameError as exc:
        raise BadOption(str(exc)) from exc
    except (OSError, ValueError) as exc:
        raise UserError(f"The tokens in {port_tokens.path(home)} cannot be used: {exc}. Mend or remove the file.") from exc


def _add(home: Any, name: str, per_day: Any) -> tuple[str, Any]:
    limit = None if per_day is None else _number(per_day)
    token = port_tokens.add(home, name, limit)
    allowed = "without a limit" if limit is None else f"{limit:,} tokens a day"
    text = f"{token}\nis {name}'s token ({allowed}). It is not shown again: give it to them as their API key, with the pool's address from pool status."
    return text, {"name": name, "token": token, "tokens_per_day": limit}


def _remove(home: Any, name: str) -> tuple[str, Any]:
    port_tokens.remove(home, name)
    return f"{name}'s token is removed; pools refuse it from now on.", {"name": name}


def _list(home: Any) -> tuple[str | list[Part], Any]:
    tokens = port_tokens.read(home)
    data = [{"name": t.name, "tokens_per_day": t.tokens_per_day, "added": t.added} for t in tokens]
    if not tokens:
        return "No named token. Add one: %infer pool token add NAME", data
    lines = [[t.name, "no limit" if t.tokens_per_day is None else f"{t.tokens_per_day:,}", t.added] for t in tokens]
    return [Listing(["name", "tokens a day", "added"], lines, {1})], data


def _number(word: Any) -> int:
    try:
        number = int(str(word).replace(",", "").replace("_", ""))
    except ValueError:
        number = -1
    if number < 1:
        raise BadOption(f"--tokens-per-day takes a whole number from 1 on, not {word!r}.")
    return number
