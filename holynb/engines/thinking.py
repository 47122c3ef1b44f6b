"""`--think`: what is sent so that a model thinks as much as was asked, and the words where it cannot. Pure; knows no wire's JSON.

One meaning on every wire: `off` is no thinking, `low` to `max` are levels, a number is tokens. A model that cannot do what is
asked gets the nearest it can. What each takes is data: models.toml for known models, dialects.py for the wires.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from holynb.config import models, update_files
from holynb.config.model_entries import ThinkingControl
from holynb.efforts import EFFORTS, nearest, rank
from holynb.engines.dialects import Dialect, guidance
from holynb.errors import Fault
from holynb.types import Request, Route

__all__ = ["Traits", "Wanted", "add", "apply", "gist", "learned", "note", "put", "wanted"]

#: What a model at an address was found to accept or refuse, in terms of its wire. Of thinking: `no think` (its field), `no on`,
#: `no off`, `no budget`, `no thoughts`, `think=low,high` (what it takes); of sampling, as every wire writes it: `no temperature`.
Traits = frozenset[str]

#: Tokens that a level stands for, on a model that takes a number, and the other way round: those that Google publishes for its own
#: (https://ai.google.dev/gemini-api/docs/openai), and more for max.
LEVEL_TOKENS: Mapping[str, int] = {"low": 1_024, "medium": 8_192, "high": 24_576, "max": 65_536}
#: The share of --max-tokens that thinking may take, since both are counted together: OpenRouter's
#: (https://openrouter.ai/docs/use-cases/reasoning-tokens).
LEVEL_SHARES: Mapping[str, float] = {"low": 0.2, "medium": 0.5, "high": 0.8, "max": 0.95}
MOST_SHARE = 0.95

#: Fields of `Sampling` that a model may refuse while it thinks.
SAMPLING = ("temperature", "top_p", "seed")
#: Tables of a request that we write into: `-p` adds its keys to them, or `-p text={"verbosity": "low"}` would cost the schema beside it.
TABLES = ("chat_template_kwargs", "output_config", "reasoning", "text")

#: Words of a refusal that is about thinking.
_ABOUT_THINKING = re.compile(r"think|reasoning|effort|chat_template_kwargs")
_LEVELS = re.compile(r"--think \w+|\d[\d,]*")
_QUOTED = re.compile(r"['\"`](\w+)['\"`]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is sent. `fields`: path → value; `leaves_out`: name in `Sampling` → path; `note`: in words, where it is not what was asked."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    leaves_out: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


NOTHING = Wanted()


def apply(payload: dict[str, Any], request: Request, traits: Traits, wire: str) -> None:
    """Write into the JSON of a request what its `think` wants, and take out what its model refuses while it thinks."""
    s, route = request.sampling, request.route
    if s.think is None and (
        (s.temperature is None and s.top_p is None)
        or not _refused_unasked(route.provider, route.model, wire, update_files.stamp(models.FILE_NAME))
    ):
        return  # nearly every request: tested before anything is built
    want = wanted(request, wire, traits)
    if want is NOTHING:
        return
    for path, value in want.fields.items():
        put(payload, path, value)
    for path in want.leaves_out.values():
        _remove(payload, path)


class _Ask(NamedTuple):
    """What of a request decides what is sent. `sets`: the sampling fields of it that have a value."""

    route: Route
    wire: str
    think: str | int | None
    max_tokens: int | None
    sets: tuple[str, ...]


def wanted(request: Request, wire: str, traits: Traits = frozenset()) -> Wanted:
    """What this request sends of thinking on this wire."""
    s = request.sampling
    ask = _Ask(request.route, wire, s.think, s.max_tokens, tuple(n for n in SAMPLING if getattr(s, n) is not None))
    return _wanted(ask, traits, update_files.stamp(models.FILE_NAME))


def note(request: Request, wire: str, traits: Traits = frozenset()) -> str | None:
    """What a person should know of this request."""
    return wanted(request, wire, traits).note


def gist(line: str) -> str:
    """What makes two notes one: they are the same but for levels and numbers of tokens."""
    return _LEVELS.sub("", line)


def add(payload: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Write `-p` into the JSON of a request, over what is there; of TABLES key by key."""
    for name, value in extra.items():
        ours = payload.get(name) if name in TABLES else None
        payload[name] = {**ours, **value} if isinstance(ours, Mapping) and isinstance(value, Mapping) else value


@lru_cache(maxsize=1024)
def _refused_unasked(provider: str, model: str, wire: str, stamp: update_files.Stamp | None) -> tuple[str, ...]:  # noqa: ARG001
    """The sampling fields that a model refuses unasked, since it thinks by default. `stamp`: of what is known of models."""
    known = guidance(Route(provider, model), wire)
    return known.control.refuses if known is not None and known.by_default else ()


@lru_cache(maxsize=4096)
def _wanted(ask: _Ask, traits: Traits, stamp: update_files.Stamp | None) -> Wanted:
    route, think = ask.route, ask.think
    known = guidance(route, ask.wire)
    if known is None:
        return NOTHING if think in (None, "off") else Wanted(note=f"{route} has no setting for thinking: --think is left out.")
    way, control = known.way, known.control
    if think is None:
        refuses = _refused_unasked(route.provider, route.model, ask.wire, stamp)
        left = tuple(n for n in ask.sets if n in refuses)
        return Wanted(leaves_out=way.places(left), note=_left_words(route, left, off=bool(control.off))) if left else NOTHING
    if known.thinks is False:
        return NOTHING if think == "off" else Wanted(note=f"{route} does not think: --think {think} is left out.")
    if listed := next((t.removeprefix("think=").split(",") for t in traits if t.startswith("think=")), None):
        control = _as_listed(control, listed)
    if "no off" in traits:
        control = replace(control, off=False)
    if "no budget" in traits:
        way = replace(way, budget_field=None)
    want = _asked(ask, way, control, think)
    if "no think" in traits and control.field in want.fields:
        want = _without_level(ask, way, control, traits)
    if "no thoughts" in traits:
        want = replace(want, fields={p: v for p, v in want.fields.items() if p not in way.thoughts})
    left = () if want.fields == _way_off(way, control) else tuple(n for n in ask.sets if n in control.refuses or f"no {n}" in traits)
    words = " ".join(w for w in (want.note, _left_words(route, left, off=bool(control.off)) if left else None) if w)
    return replace(want, leaves_out=way.places(left), note=words or None)


# -- what a model takes ------------------------------------------------------------------------------------------------
def _as_listed(control: ThinkingControl, listed: Iterable[str]) -> ThinkingControl:
    """The control of a model whose refusal listed what it takes."""
    values = tuple(sorted((v for v in listed if v != "none"), key=rank))
    off = {control.field: "none"} if "none" in listed else False if control.off == {control.field: "none"} else control.off
    return replace(control, values=values, off=off) if values else control


def _without_level(ask: _Ask, way: Dialect, control: ThinkingControl, traits: Traits) -> Wanted:
    """What is left for a model that was found not to take its field: thinking is asked for, but not how much."""
    words = f"{ask.route} does not take {control.field}"
    if ask.think == "off" or not control.on or "no on" in traits:
        return Wanted(note=f"{words}, so --think {ask.think} is left out.")
    return Wanted(_on(way, {**control.on}), note=f"{words}, so --think {ask.think} only turns thinking on.")


def _way_off(way: Dialect, control: ThinkingControl) -> Mapping[str, Any] | bool | None:
    if control.off is None:
        return {} if control.default == "off" else way.usual.off
    return control.off


# -- the nearest -------------------------------------------------------------------------------------------------------
def _asked(ask: _Ask, way: Dialect, control: ThinkingControl, think: str | int) -> Wanted:
    if think == "off":
        return _off(ask.route, way, control)
    if control.budget is not None:
        return _budget(ask, way, control, control.budget)
    if isinstance(think, int) and way.budget_field is not None:
        return _budget(ask, way, replace(control, field=way.budget_field), (1, 0))
    value = nearest(control.values, think if isinstance(think, str) else _level_of(think))
    return Wanted(_on(way, {**control.on, control.field: value}), note=_level_words(ask.route, control, think, value))


def _off(route: Route, way: Dialect, control: ThinkingControl) -> Wanted:
    """No thinking, or as little as there is. Where it is not known how: the wire's usual way, or nothing where nothing is thought then."""
    off = _way_off(way, control)
    if isinstance(off, Mapping):
        return Wanted(dict(off))
    why = "always thinks" if off is False else "is not known to have a way to answer without thinking"
    if control.budget is not None:
        least = max(1, control.budget[0])
        return Wanted({**control.on, control.field: least}, note=f"{route} {why}: --think off is sent as {least:,} tokens, the minimum.")
    value = min(control.values, key=rank)
    return Wanted({**control.on, control.field: value}, note=f"{route} {why}: --think off is sent as {value}, the lowest.")


def _budget(ask: _Ask, way: Dialect, control: ThinkingControl, limits: tuple[int, int]) -> Wanted:
    """A number of tokens, for a model that takes one. It is part of --max-tokens, and leaves room for the answer."""
    (least, most), route, think, room = limits, ask.route, ask.think, ask.max_tokens
    tokens = think if isinstance(think, int) else most if think == "max" and most else LEVEL_TOKENS[str(think)]
    if room is not None and least >= room:
        off = dict(control.off) if isinstance(control.off, Mapping) else {}
        none = f"{route} thinks {least:,} tokens or more, and --max-tokens {room} has no room for them: --think {think} is left out."
        return Wanted(off, note=none)
    share = MOST_SHARE if isinstance(think, int) else LEVEL_SHARES[str(think)]
    ours = tokens if room is None else min(tokens, max(1, int(room * share)))
    tokens = max(least, min(ours, most or ours))
    words = None
    if isinstance(think, int) and tokens != think:
        held = f"--max-tokens {room} holds both, thoughts and answer"
        why = f"{least:,} is its minimum" if tokens > ours else f"{most:,} is its maximum" if tokens < ours else held
        words = f"{route} thinks {tokens:,} tokens instead of {think:,}: {why}."
    return Wanted(_on(way, {**control.on, control.field: tokens}), note=words)


def _on(way: Dialect, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request that thinks: what was thought is asked for along with it, where a field beside it is sent."""
    beside = {path.rpartition(".")[0] for path in fields}
    return {**fields, **{path: v for path, v in way.thoughts.items() if path.rpartition(".")[0] in beside}}


def _level_of(tokens: int) -> str:
    """The level that stands for about so many tokens."""
    return min(LEVEL_TOKENS, key=lambda level: abs(math.log(tokens / LEVEL_TOKENS[level])))


# -- words -------------------------------------------------------------------------------------------------------------
def _level_words(route: Route, control: ThinkingControl, think: str | int, value: str) -> str | None:
    if isinstance(think, int):
        return f"{route} takes thinking levels, not a number of tokens: --think {think} is sent as {value}."
    if value == think or (think == "max" and value == max(control.values, key=rank)):
        return None
    return f"{route} takes {', '.join(control.values)}: --think {think} is sent as {value}, the nearest."


def _left_words(route: Route, names: tuple[str, ...], *, off: bool) -> str:
    keeps = "; --think off keeps it" if off else ""
    return f"{route} takes no {' and no '.join(names)} while it thinks: left out{keeps}."


# -- what a refusal teaches --------------------------------------------------------------------------------------------
def learned(traits: Traits, fault: Fault, request: Request, wire: str) -> Traits:
    """Traits after a refused request that asked for thinking; the same where the refusal is about something else."""
    if request.sampling.think is None or fault.kind != "bad_request":
        return traits
    want, known = wanted(request, wire, traits), guidance(request.route, wire)
    if known is None or not want.fields:
        return traits
    way, control = known.way, known.control
    s, refusal = request.sampling, fault.message.lower()
    about = _ABOUT_THINKING.search(refusal)
    for name in SAMPLING:  # "`temperature` may only be set to 1 when thinking is enabled"
        at = refusal.find(name)
        if at >= 0 and getattr(s, name) is not None and name not in want.leaves_out and (about is None or at < about.start()):
            return traits | {f"no {name}"}
    words = {w.replace("_", "") for w in re.findall(r"\w+", refusal)}
    if any(path in want.fields and path.rpartition(".")[2].lower() in words for path in way.thoughts):
        return traits | {"no thoughts"}
    sent = want.fields.get(control.field)
    listed = [w for w in _QUOTED.findall(refusal) if w in EFFORTS and w != sent]
    if isinstance(sent, str) and listed and not any(t.startswith("think=") for t in traits):
        return traits | {f"think={','.join(dict.fromkeys(listed))}"}
    if about is None:
        return traits
    if way.budget_field in want.fields and "no budget" not in traits:
        return traits | {"no budget"}
    if s.think == "off" and "no off" not in traits and want.note is None:
        return traits | {"no off"}
    return traits | {"no on" if "no think" in traits else "no think"}


# -- paths -------------------------------------------------------------------------------------------------------------
def put(payload: dict[str, Any], path: str, value: Any) -> None:
    """Write a value at a path; what stands beside it stays."""
    *steps, last = path.split(".")
    for step in steps:
        inner = payload.get(step)
        payload[step] = payload = dict(inner) if isinstance(inner, Mapping) else {}
    payload[last] = value


def _remove(payload: dict[str, Any], path: str) -> None:
    *steps, last = path.split(".")
    for step in steps:
        inner = payload.get(step)
        if not isinstance(inner, dict):
            return
        payload = inner
    payload.pop(last, None)
