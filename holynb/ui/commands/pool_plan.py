"""`%infer pool plan`: what fits, as lines and a table, and the command that starts the best of it. Prints nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holynb import units
from holynb.config import Option
from holynb.errors import BadOption
from holynb.translation import say
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
    parts: list[Part] = [plan["says"], *[_per_device(way, plan.get("memory")) for way in plan["ways"][:1]]]
    if "nodes" in plan:
        parts += [" ", Listing(["node", "has", "free", "replicas", "left then"], [_node(n) for n in plan["nodes"]], set())]
    if len(plan["ways"]) > 1:
        head = ["as", "dtype", "weights a device", "KV tokens a replica", "ready in about"]
        parts += [" ", Listing(head, [_way(w) for w in plan["ways"]], {2, 3, 4})]
    startable = not re.fullmatch(r"[\d.]+\s*[MBTmbt]", model)
    if plan["ways"] and startable:
        parts += [" ", f"Start it: {_start(plan['model'], plan['ways'][0]['flags'], options, values)}"]
    elif plan.get("would") is not None and startable:
        parts += [" ", f"What fits: {_start(plan['model'], plan['would'], options, {k: v for k, v in values.items() if k != 'dtype'})}"]
    return parts, plan


def _start(model: str, flags: str, options: Sequence[Option], values: Mapping[str, Any]) -> str:
    """The command that starts this way, with all that was asked for: the same model with other options may not fit, or be another plan."""
    words = [shlex.quote(model), *flags.split()]
    for option in options:
        if option.name in values and option.name not in _OF_THE_WAY:
            words += [option.flags[0], *([] if option.metavar is None else [shlex.quote(str(values[option.name]))])]
    return f"%infer pool start {' '.join(words)}"


def _per_device(way: Mapping[str, Any], memory: int | None) -> str:
    """What the fullest device of the best way holds, and how much that is of what it has."""
    weights, work, kv = (units.memory(way[name]) for name in ("weights", "work", "kv"))
    total = units.memory(way["weights"] + way["work"] + way["kv"])
    line = f"Per device: {weights} of weights + {work} of work + {kv} of KV cache = {total}"
    return f"{line} of {units.memory(memory)}." if memory else f"{line}."


def _way(way: Mapping[str, Any]) -> list[str]:
    weights, tokens = units.memory(way["weights"]), f"{way['kv_tokens']:,}"
    return [way["flags"] or say("one replica"), way["dtype"], weights, tokens, f"{way['start_s']:.0f} s"]


def _node(node: Mapping[str, Any]) -> list[str]:
    """A node of a cluster: its address, what it has, what of it is free, the replicas that go there, what is left then."""
    size = "" if node["gpu_memory"] is None else f" {node['gpu_memory'] / 1e9:.0f}GB"
    gpus = f"{node['gpus']:g}x {node['kind'] or 'GPU'}{size}, " if node["gpus"] else ""
    return [node["address"], f"{gpus}{node['cpus']:g} CPUs", _rest(node, "free"), _held(node["replicas"]) or "none", _rest(node, "left")]


def _rest(node: Mapping[str, Any], which: str) -> str:
    gpus = f"{node[f'{which}_gpus']:g} GPUs, " if node["gpus"] else ""
    return f"{gpus}{node[f'{which}_cpus']:g} CPUs"


def _held(replicas: Sequence[Mapping[str, Any]]) -> str:
    """`0, 1`; of a replica whose stages lie on several nodes, those that lie here: `0 (stages 0, 1)`."""
    return ", ".join(f"{r['replica']}{_stages(r['stages']) if r['divided'] else ''}" for r in replicas)


def _stages(stages: Sequence[int]) -> str:
    return f" (stage{'s' * (len(stages) > 1)} {', '.join(map(str, stages))})"
