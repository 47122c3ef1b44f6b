"""`%infer pool plan`: what fits, as lines and a table, and the command that starts the best of it. Prints nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holynb import units
from holynb.config import Option
from holynb.errors import BadOption
from holynb.ui.cell import grammar
from holynb.ui.output.listing import Listing

if TYPE_CHECKING:
    from holynb.ui.output.listing import Part

__all__ = ["answer"]

#: Options of the plan that `pool start` takes otherwise: the best way has its own sizes, and a start takes this machine's devices.
_OF_THE_WAY = {"gpus", "dp", "tp", "pp"}


def answer(args: Sequence[str], options: Sequence[Option], convert: Callable[[Option, Any], Any]) -> tuple[list[Part], Any]:
    """The plan in lines and a table, and as data. Raises BadOption."""
    from holynb import pools

    values, positional = grammar.parse_options(args, {flag: option for option in options for flag in option.flags})
    if len(positional) > 1:
        raise BadOption(f"pool plan takes one model; unexpected argument {positional[1]!r}.")
    model = positional[0] if positional else pools.EMBEDDED
    plan = pools.plan(model, **{o.name: convert(o, values[o.name]) for o in options if o.name in values})
    parts: list[Part] = [plan["says"]]
    if len(plan["ways"]) > 1:
        head = ["as", "dtype", "weights a device", "KV tokens a replica", "ready in about"]
        parts += [" ", Listing(head, [_way(w) for w in plan["ways"]], {2, 3, 4})]
    if plan["ways"] and not re.fullmatch(r"[\d.]+\s*[MBTmbt]", model):
        parts += [" ", f"Start it: {_start(model, plan['ways'][0], options, values)}"]
    return parts, plan


def _start(model: str, way: Mapping[str, Any], options: Sequence[Option], values: Mapping[str, Any]) -> str:
    """The command that starts `way`, with all that was asked for: the same model with other options may not fit, or be another plan."""
    words = [shlex.quote(model), *way["flags"].split()]
    for option in options:
        if option.name in values and option.name not in _OF_THE_WAY:
            words += [option.flags[0], shlex.quote(str(values[option.name]))]
    return f"%infer pool start {' '.join(words)}"


def _way(way: Mapping[str, Any]) -> list[str]:
    weights, tokens = units.memory(way["weights"]), f"{way['kv_tokens']:,}"
    return [way["flags"] or "one replica", way["dtype"], weights, tokens, f"{way['start_s']:.0f} s"]
