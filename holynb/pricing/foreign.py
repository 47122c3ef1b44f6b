"""Tables of other projects, read into entries of ours: genai-prices' `data.json` and litellm's `model_prices_and_context_window.json`.

Also tables of our own shape, prices.toml and models.toml. Anybody may have written them: sizes, types, bounds and dates are checked here,
and every entry once more by the reader of ours. Reads bytes; sends nothing, keeps nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from holynb.config import model_entries, models
from holynb.errors import BadSetting
from holynb.pricing import prices
from holynb.pricing.price_entries import MILLION, read_entry
from holynb.units import memory

__all__ = ["MAX_BYTES", "ForeignTable", "Kind", "read"]

Kind = Literal["prices", "models"]

MAX_BYTES, MAX_ENTRIES = 32_000_000, 50_000
MAX_NAME_CHARS, MAX_NAMES = 200, 50
#: Dollars per million tokens above which a figure is a slip of the pen.
MAX_DOLLARS = 100_000

#: Their names of the providers that we have under ours; others are passed over.
PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "gemini",
    "gemini": "gemini",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
}
GENAI_RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
LITELLM_RATES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
}
LITELLM_TIER = re.compile(r"_above_(\d{1,6})k_tokens")
#: What litellm says of models that answer in text.
LITELLM_MODES = ("chat", "responses")


#: A line that no JSON has.
TOML_LINE = re.compile(r"^\s*(\[\[\w+\]\]|\w+\s*=)", re.MULTILINE)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


READERS: Mapping[str, Callable[[str], Any]] = {
    "JSON": lambda text: json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant),
    "TOML": lambda text: tomllib.loads(text, parse_float=Decimal),
}


@dataclass(frozen=True, slots=True)
class ForeignTable:
    """What was read. `entries`: of our shape, as JSON has them; `left_out`: why each entry that cannot be was passed over."""

    shape: str
    entries: Sequence[Mapping[str, Any]]
    left_out: Sequence[str]


class _Unreadable(Exception):
    """An entry that cannot be; its text says why."""


def read(body: bytes, kind: Kind, source: str, date: dt.date) -> ForeignTable:
    """The entries of a table that was read on `date` at `source`. Raises BadSetting, in one line, where it is no such table."""
    if len(body) > MAX_BYTES:
        raise BadSetting(f"{source} has more than {memory(MAX_BYTES)}, which no table of {kind} has.")
    document = _document(body, source)
    shape, entries, left_out = _shape_of(document), dict[tuple[Any, ...], Mapping[str, Any]](), list[str]()
    if shape is None:
        raise BadSetting(f"{source} is not a table of {kind}. Those of genai-prices (data.json), litellm and holynb are read.")
    for name, raw in _raw_entries(shape, document, kind, {"date": str(date), "source": source, "reported": True}):
        try:
            for entry in [raw] if isinstance(raw, Mapping) else raw:
                _check(entry, kind, name)
                # litellm has some models twice, under NAME and under PROVIDER/NAME; of equal patterns the first counts.
                entries.setdefault((entry["provider"], tuple(entry["models"]), str(entry.get("since"))), _plain(entry))
        except (_Unreadable, BadSetting, ArithmeticError) as exc:
            why = str(exc).removesuffix(".")
            left_out.append(why if name in why else f"{name}: {why}")
        if len(entries) > MAX_ENTRIES:
            raise BadSetting(f"{source} has more than {MAX_ENTRIES:,} entries, which no table of {kind} has.")
    if not entries:
        raise BadSetting(f"{source} holds no {kind} of a provider that is known here{f' ({left_out[0]})' if left_out else ''}.")
    return ForeignTable(shape, list(entries.values()), left_out)


def _document(body: bytes, source: str) -> Any:
    """Its JSON or TOML. Raises BadSetting, with what is wrong where it is meant to be one of them."""
    why: dict[str, Exception] = {}
    try:
        text = body.decode("utf-8-sig")
        for name, reader in READERS.items():
            try:
                return reader(text)
            except (ValueError, RecursionError, ArithmeticError) as exc:
                why[name] = exc
    except UnicodeDecodeError:
        text = ""
    meant = "TOML" if TOML_LINE.search(text) else "JSON" if text.lstrip()[:1] in ("{", "[") else ""
    if type(why.get(meant)) in (json.JSONDecodeError, tomllib.TOMLDecodeError, ValueError):
        raise BadSetting(f"{source} cannot be read as {meant}: {why[meant]}.")
    raise BadSetting(f"{source} is neither JSON nor TOML, so it holds no table.")


def _shape_of(document: Any) -> str | None:
    if isinstance(document, list) and document and all(isinstance(p, dict) and isinstance(p.get("models"), list) for p in document):
        return "genai-prices"
    if not isinstance(document, dict):
        return None
    if any(isinstance(v, dict) and "litellm_provider" in v for v in document.values()):
        return "litellm"
    return "holynb" if any(isinstance(document.get(word), list) for word in ("price", "model")) else None


_Entry = Mapping[str, Any] | Iterator[Mapping[str, Any]]


def _raw_entries(shape: str, document: Any, kind: Kind, reading: Mapping[str, Any]) -> Iterator[tuple[str, _Entry]]:
    """A name for messages, and what becomes of it: an entry, or those that are made while they are asked for."""
    if shape == "holynb":
        for i, entry in enumerate(document.get("price" if kind == "prices" else "model", ()), 1):
            yield f"entry {i}", entry if isinstance(entry, Mapping) else iter(())
    elif shape == "litellm":
        for name, entry in document.items():
            if isinstance(entry, dict) and str(entry.get("litellm_provider")) in PROVIDERS and entry.get("mode") in LITELLM_MODES:
                yield name[:MAX_NAME_CHARS], (_litellm_price if kind == "prices" else _litellm_model)(name, entry, reading)
    else:
        for provider in document:
            if (ours := PROVIDERS.get(str(provider.get("id")))) is not None:
                for model in (m for m in provider["models"] if isinstance(m, dict)):
                    name = f"{ours}/{str(model.get('id'))[:MAX_NAME_CHARS]}"
                    yield name, (_genai_prices if kind == "prices" else _genai_model)(ours, model, reading)


# -- litellm ---------------------------------------------------------------------------------------------------------------
def _litellm_names(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    theirs = str(entry["litellm_provider"])
    return {"provider": PROVIDERS[theirs], "models": [_pattern(name.removeprefix(f"{theirs}/"))]}


def _litellm_price(name: str, entry: Mapping[str, Any], reading: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    rates = {ours: _dollars(entry[key], key) * MILLION for ours, key in LITELLM_RATES.items() if entry.get(key) is not None}
    if not {"input", "output"} <= rates.keys():
        return  # it is billed otherwise
    starts = sorted({int(m[1]) * 1000 for key in entry if (m := LITELLM_TIER.search(key))})
    tiers = []
    for start in starts:
        keys = {ours: f"{key}_above_{start // 1000}k_tokens" for ours, key in LITELLM_RATES.items()}
        above = {ours: _dollars(entry[key], key) * MILLION for ours, key in keys.items() if entry.get(key) is not None}
        tiers += [{"above": start, **above}] if above else []
    yield _price(_litellm_names(name, entry), rates, reading, tiers)


def _litellm_model(name: str, entry: Mapping[str, Any], reading: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    names = _litellm_names(name, entry)
    ours = next((m for m in models.shipped() if m.provider == names["provider"] and m.fits(name.rpartition("/")[2])), None)
    known: dict[str, Any] = {"output": entry.get("max_output_tokens")}
    if ours is None or ours.context is None:  # of some models it is what is left beside the longest answer: it replaces no figure
        known["context"] = entry.get("max_input_tokens")
    known |= {ours: True for ours, key in (("images", "supports_vision"), ("thinks", "supports_reasoning")) if entry.get(key) is True}
    if entry.get("deprecation_date") is not None:
        known["end"] = {"on": entry["deprecation_date"]}
    yield {**names, **{k: v for k, v in known.items() if v is not None}, **reading}


# -- genai-prices ----------------------------------------------------------------------------------------------------------
def _genai_prices(provider: str, model: Mapping[str, Any], reading: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An entry for each date from which prices hold; of several at one date, which hold at other hours, the dearest of each figure."""
    names = {"provider": provider, "models": _genai_patterns(model)}
    listed = model.get("prices")
    conditional = listed if isinstance(listed, list) else [{"prices": listed}]
    by_start: dict[str | None, list[Mapping[str, Any]]] = {}
    for one in conditional:
        figures = one.get("prices") if isinstance(one, Mapping) else None
        constraint = (one.get("constraint") or {}) if isinstance(one, Mapping) else None
        if not isinstance(figures, Mapping) or not isinstance(constraint, Mapping):
            raise _Unreadable("prices should be a table, and constraint one")
        start = constraint.get("start_date")
        by_start.setdefault(None if start is None else str(start), []).append(figures)
    for start, alternatives in by_start.items():
        rates, tiers = _genai_rates(alternatives)
        if {"input", "output"} <= rates.keys():
            more = {} if start is None else {"since": start}
            assumed = {"assumed": "the dearest hour's price at all hours"} if len(alternatives) > 1 else {}
            yield {**_price(names, rates, reading, tiers), **more, **assumed}


def _genai_rates(alternatives: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Decimal], list[Mapping[str, Any]]]:
    rates: dict[str, Decimal] = {}
    above: dict[int, dict[str, Decimal]] = {}
    for figures in alternatives:
        for ours, key in GENAI_RATES.items():
            value = figures.get(key)
            if value is None:
                continue
            rates[ours] = max(rates.get(ours, Decimal(0)), _dollars(value.get("base") if isinstance(value, Mapping) else value, key))
            for tier in value.get("tiers", ()) if isinstance(value, Mapping) else ():
                if not isinstance(tier, Mapping) or type(tier.get("start")) is not int:
                    raise _Unreadable(f"{key}: tiers should have a start")
                at = above.setdefault(tier["start"], {})
                at[ours] = max(at.get(ours, Decimal(0)), _dollars(tier.get("price"), key))
    return rates, [{"above": start, **above[start]} for start in sorted(above)]


def _genai_model(provider: str, model: Mapping[str, Any], reading: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if model.get("context_window") is not None:
        yield {"provider": provider, "models": _genai_patterns(model), "context": model["context_window"], **reading}


def _genai_patterns(model: Mapping[str, Any]) -> list[str]:
    """The names that a model goes by, its id first. What they match by `and` or a regular expression is left to the id."""
    patterns, ahead = [_pattern(model.get("id"))], list[Any]([model.get("match")])
    while ahead and len(patterns) < MAX_NAMES:
        clause = ahead.pop(0)
        if not isinstance(clause, Mapping):
            continue
        for word, before, after in (("equals", "", ""), ("starts_with", "", "*"), ("ends_with", "*", ""), ("contains", "*", "*")):
            if word in clause:
                patterns.append(f"{before}{_pattern(clause[word])}{after}")
        ahead += clause["or"] if isinstance(clause.get("or"), list) else []
    return list(dict.fromkeys(patterns))


# -- figures ---------------------------------------------------------------------------------------------------------------
def _price(names: Mapping[str, Any], rates: Mapping[str, Decimal], reading: Mapping[str, Any], tiers: list[Any]) -> dict[str, Any]:
    return {**names, **rates, **({"tiers": tiers} if tiers else {}), "date": reading["date"], "source": reading["source"]}


def _dollars(value: Any, key: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= MAX_DOLLARS:
        raise _Unreadable(f"{key} should be a number of dollars from 0 to {MAX_DOLLARS:,}")
    return Decimal(value)


def _pattern(name: Any) -> str:
    """A name as a shell pattern that fits it alone."""
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise _Unreadable(f"a name should be text of at most {MAX_NAME_CHARS} characters on one line")
    return re.sub(r"([*?[])", r"[\1]", name.lower())


def _check(entry: Mapping[str, Any], kind: Kind, name: str) -> None:
    """What the readers of our own tables demand. Raises BadSetting."""
    if kind == "prices":
        price = read_entry(prices.dated(entry), name)
        rates = [price.rates, *(rates for _, rates in price.tiers), *([price.peak.rates] if price.peak else [])]
        if any(
            amount is not None and amount > MAX_DOLLARS
            for r in rates
            for amount in (r.input, r.output, r.cached, r.cache_write, r.cache_write_1h)
        ):
            raise _Unreadable(f"a price is above ${MAX_DOLLARS:,} per million tokens")
    else:
        model_entries.entry(entry, name)


def _plain(value: Any) -> Any:
    """Figures and dates as JSON keeps them."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value) if isinstance(value, dt.date) else value
