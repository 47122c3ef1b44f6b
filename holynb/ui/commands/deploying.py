"""`pool deploy`: a pool behind Ray Serve. Knows `holynb.pools`; knows no IPython, prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holynb.config import Option, duration
from holynb.errors import BadOption
from holynb.ui.cell import grammar

__all__ = ["DEPLOY_HELP", "DEPLOY_OPTIONS", "deploy"]

DEPLOY_HELP = (
    "deploy MODEL [--replicas 1..8] [options]: MODEL behind Ray Serve on a running cluster, asked as ray/MODEL; "
    "--write FILE: the YAML that `serve deploy` takes."
)

DEPLOY_OPTIONS: tuple[Option, ...] = (
    Option("name", ("--name",), "N", "its name in ray/NAME (default: the last word of MODEL)"),
    Option("replicas", ("--replicas",), "N|A..B", "replicas, or the fewest and the most, by the requests under way (1)"),
    Option("target", ("--target",), "N", "requests under way at a replica that Serve aims at (32)", float),
    Option("cool_down", ("--cool-down",), "DURATION", "a replica goes after this long with fewer requests (10m)", duration),
    Option("tp", ("--tp",), "T", "devices a layer is spread over, of one machine", int),
    Option("pp", ("--pp",), "P", "stages: parts that the layers are divided into, each on a device of its own, of one machine", int),
    Option("gpus", ("--gpus",), None, "a GPU for each rank (default: CPU)"),
    Option("cpus", ("--cpus",), "N", "CPUs for each rank (1)", float),
    Option("dtype", ("--dtype",), "TYPE", "as for pool start"),
    Option("kv", ("--kv",), "fp8", "as for pool start"),
    Option("max_len", ("--max-len",), "N", "as for pool start", int),
    Option("memory", ("--memory",), "X", "as for pool start", float),
    Option("home", ("--home",), "PATH", "where each node keeps weights and logs (default: its HOLYNB_HOME)"),
    Option("version", ("--version",), "V", "another one replaces all replicas, which finish what they have begun"),
    Option("port", ("--port",), "P", "Serve's HTTP port on this machine (8000)", int),
    Option("address", ("--address",), "A", "the cluster (default: RAY_ADDRESS, else the one of this machine)"),
    Option("write", ("--write",), "FILE", "write the YAML that `serve deploy` takes, and deploy nothing"),
)


def deploy(args: Sequence[str], notice: Callable[[str], None], convert: Callable[[Option, Any], Any]) -> tuple[str, Mapping[str, Any]]:
    """Run the command. `convert`: a value of an option as it is meant. Raises UserError."""
    from holynb import pools

    flags = {flag: option for option in DEPLOY_OPTIONS for flag in option.flags}
    values, positional = grammar.parse_options(args, flags)
    if len(positional) > 1:
        raise BadOption(f"pool deploy takes one model; unexpected argument {positional[1]!r}.")
    by_name = {o.name: o for o in DEPLOY_OPTIONS}
    options = {name: convert(by_name[name], value) for name, value in values.items()}
    facts = pools.deploy(positional[0] if positional else pools.EMBEDDED, notice=notice, **options)
    if "file" in facts:
        return f"Wrote {facts['file']}. Deploy it with: serve deploy {facts['file']}", facts
    how = "" if options.get("port") in (None, 8000) else f" --api-base {facts['url']}"
    place = f"{facts['url']}, on the Ray cluster at {facts['cluster']}"
    return f"ray/{facts['name']} answers at {place}. Ask it with %%infer ray/{facts['name']}{how}", facts
