"""`%infer pool …` and `holynb pool …`: plan, start, list, status, stop, logs. Knows `holynb.pools`; knows no IPython, prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holynb import units
from holynb.config import Option, duration
from holynb.errors import BadOption, UserError, closest
from holynb.ui.cell import grammar
from holynb.ui.commands import own_servers, pool_nodes, pool_plan, pool_state, pool_token
from holynb.ui.commands.deploying import DEPLOY_HELP, DEPLOY_OPTIONS, deploy
from holynb.ui.output import ago, clean, count, listing
from holynb.ui.output.helplines import entry, wrapped
from holynb.ui.output.listing import Listing, Verbatim

if TYPE_CHECKING:
    from holynb.pools import PoolInfo
    from holynb.ui.output.listing import Part

__all__ = ["HELP", "PLAN_OPTIONS", "START_OPTIONS", "answer", "run"]

Notice = Callable[[str], None]


def bounds(word: str) -> int | str:
    """A whole number, or two with `..` between them, as `holynb.pools` takes them. Raises ValueError."""
    return word if ".." in word else int(word)


#: The options of `pool start`. `holynb.pools` refuses those that this version does not support, and explains why.
START_OPTIONS: tuple[Option, ...] = (
    Option("name", ("--name",), "N", "its name in pool/NAME (default: the last word of MODEL)"),
    Option("dp", ("--dp",), "D", "replicas; with --on ray also bounds such as 2..8, within which it follows its queue", bounds),
    Option("tp", ("--tp",), "T", "devices a layer is spread over", int),
    Option("pp", ("--pp",), "P", "stages: parts that the layers are divided into, each on a device of its own", int),
    Option("micro_batches", ("--micro-batches",), "M", "batches in flight in a pipeline (as many as stages)", int),
    Option(
        "devices",
        ("--devices",),
        "cpu|0,1,…",
        "cpu, or the numbers of its GPUs, one for each of dp × tp × pp: 0,1 (default: the first ones; without a GPU, cpu)",
    ),
    Option("dtype", ("--dtype",), "TYPE", "float32, float16, bfloat16; matrices of one byte a weight: fp8 on a GPU, int8 on both"),
    Option("kv", ("--kv",), "fp8", "keys and values of one byte: twice the tokens in the same memory"),
    Option("max_len", ("--max-len",), "N", "longest prompt and answer together, in tokens", int),
    Option("memory", ("--memory",), "X", "share of a device's memory to use (0.9)", float),
    Option("port", ("--port",), "P", "also serve on this loopback port, with a token (0: any free one)", int),
    Option("idle", ("--idle",), "DURATION", "stop after this long without a request (30m)", duration),
    Option("restart", ("--restart",), "N", "restart a replica that dies, up to N times (0)", int),
    Option("engine", ("--engine",), "native|vllm", "native (holynb's own engine), or a vLLM installed in another environment"),
    Option("python", ("--python",), "PATH", "with --engine vllm: the Python of that environment, or its folder"),
    Option("on", ("--on",), "ray[://HOST:PORT]", "on a Ray cluster: this machine's (ray), or ray://HOST:10001"),
    Option("cpus", ("--cpus",), "N", "with --on ray: CPUs of each rank (1)", int),
    Option("spread", ("--spread",), None, "with --on ray: stages on many nodes (SPREAD); else on as few as hold them (PACK)"),
    Option("wait_nodes", ("--wait-nodes",), "DURATION", "with --on ray: wait so long for nodes that are not free (refuse)", duration),
    Option("lease", ("--lease",), "DURATION", "with --on ray: it ends after this long without any client (10m)", duration),
    Option("runtime_env", ("--runtime-env",), "JSON|FILE", "with --on ray: Ray's runtime_env of its nodes"),
    Option("bg", ("--bg",), None, "return at once; requests to a starting pool wait"),
)

#: The options of `pool plan`: those of `start` that decide whether a model fits, and devices that this machine does not have.
PLAN_OPTIONS: tuple[Option, ...] = (
    Option("gpus", ("--gpus",), "NxSIZE", "plan for these devices instead of this machine's, such as 4x24GB"),
    *(o for o in START_OPTIONS if o.name in {"dp", "tp", "pp", "devices", "dtype", "kv", "max_len", "memory", "on", "cpus", "spread"}),
)

#: Where what an option does begins, in help.
OPTION_COLUMN = 25

#: Lines that `pool logs` shows by default.
DEFAULT_LOG_LINES = 50

NONE_RUNS = "No pool of yours is running. Start one: %infer pool start smollm2-135m"

HELP: Mapping[str, str] = {
    "plan": (
        "plan MODEL [--gpus NxSIZE] [--on ray] [options]: which dp, tp, pp and dtype fit, and the best; on Ray also which replica lies on "
        "which node. It loads nothing. MODEL also: a size such as 70B."
    ),
    "start": (
        "start MODEL [options]: load a model, and return when it is ready. "
        "MODEL: a folder of safetensors, a hub id, a GGUF file, smollm2-135m."
    ),
    "list": "list: your pools on this machine, with their state and memory, and servers that your settings name.",
    "status": "status NAME: one pool in full.",
    "stop": "stop NAME|--all: stop one pool or all of them, and free their memory.",
    "logs": "logs NAME [N]: the last N lines (50) that it wrote.",
    "deploy": DEPLOY_HELP,
    "token": pool_token.HELP,
}


def run(words: Sequence[str], notice: Notice, *, command: str = "%infer pool") -> tuple[str, Any]:
    """Run a command. Returns its output as text and as plain data for `--json`. `command`: its name in messages. Raises UserError."""
    parts, data = answer(words, notice, command=command)
    return listing.as_text(parts), data


def answer(words: Sequence[str], notice: Notice, *, command: str = "%infer pool") -> tuple[list[Part], Any]:
    """As `run`, with its output in lines and tables."""
    word, *args = [*words] or ["help"]
    if word in ("help", "--help", "-h"):
        return [Verbatim(_help(command))], dict(HELP)
    if word not in HELP:
        raise BadOption(f"There is no {command} {word}.{closest(word, HELP)} Known: {', '.join(HELP)}.")
    if args and args[0] in ("help", "--help", "-h"):
        return [Verbatim(_help(command, word))], HELP[word]
    handlers: Mapping[str, Callable[[Sequence[str], Notice], tuple[str | list[Part], Any]]]
    handlers = {
        "plan": _plan,
        "start": _start,
        "list": _list,
        "status": _status,
        "stop": _stop,
        "logs": _logs,
        "deploy": _deploy,
        "token": _token,
    }
    handler = handlers[word]

    def localise(text: str) -> str:
        """Write the commands that the text suggests as they are typed where it is read."""
        return text.replace("%infer pool ", f"{command} ")

    try:
        output, data = handler(args, lambda line: notice(clean(localise(line))))
    except UserError as exc:
        raise type(exc)(localise(str(exc))) from exc
    parts: Sequence[Part] = [output] if isinstance(output, str) else output
    return [type(p)(clean(localise(p))) if isinstance(p, str) else p for p in parts], data  # a log holds what others wrote


def _plan(args: Sequence[str], _: Notice) -> tuple[list[Part], Any]:
    return pool_plan.answer(args, PLAN_OPTIONS, _converted)


def _start(args: Sequence[str], notice: Notice) -> tuple[str, Any]:
    from holynb import pools

    values, positional = grammar.parse_options(args, {flag: option for option in START_OPTIONS for flag in option.flags})
    if len(positional) > 1:
        raise BadOption(f"pool start takes one model; unexpected argument {positional[1]!r}.")
    background = values.pop("bg", False)
    options = {name: _convert(name, value) for name, value in values.items()}
    info = pools.start(positional[0] if positional else pools.EMBEDDED, notice=notice, wait=not background, **options)
    address = f" and {info.base_url} (its token: holynb pool status {info.name} --json)" if info.base_url else ""
    if not address and "port" in options:
        address = f". Its port and token, once it is ready, in a terminal: holynb pool status {info.name} --json"
    text = f"pool/{info.name} is {pool_state.state(info)} (pid {info.pid}{_devices(info)})."
    text += f" Ask it with %%infer pool/{info.name}{address}" if info.chats else ""
    more = (pool_state.without_chat(info), pool_state.shortened(info), pool_state.remedy(info))
    return "\n".join(filter(None, [text, *more])), info.as_dict()


def _list(args: Sequence[str], notice: Notice) -> tuple[str | list[Part], Any]:
    from holynb import pools

    _refuse_args(args, "list")
    infos = pools.listing(notice)
    if not infos:
        return [*own_servers.asked_lines(), NONE_RUNS], []
    head = ["pool", "model", "state", "pid", "memory", "in flight", "started"]
    lines = [[f"pool/{i.name}", i.model, pool_state.state(i), str(i.pid), _memory(i), count(i.requests), _age(i)] for i in infos]
    return [Listing(head, lines, {3, 5}), *filter(None, map(pool_state.remedy, infos)), *own_servers.asked_lines()], [
        i.as_dict() for i in infos
    ]


def _status(args: Sequence[str], _: Notice) -> tuple[str, Any]:
    from holynb import pools

    if (
        len(args) == 1
        and (elsewhere := own_servers.asked_lines(args[0].removeprefix("pool/")))
        and pools.find(args[0].removeprefix("pool/")) is None
    ):
        return Verbatim("\n".join(elsewhere)), elsewhere
    info = pools.status(_pool_name(args, "status"))
    facts = {
        "model": info.model,
        "engine": "vLLM" if info.engine == "vllm" else "",
        "state": pool_state.state(info) if info.stage in ("", info.state) else f"{info.state}: {info.stage}",
        "pid": info.pid,
        "as": info.parallelism,
        "devices": "" if info.nodes else ", ".join(info.devices),  # of a cluster each node's are with it
        "memory": _memory(info),
        "longest": pool_state.longest(info),
        "requests": f"{count(info.requests)} in flight",
        "tokens": f"{count(info.tokens_in)} + {count(info.tokens_out)}",
        "stages": "; ".join(pool_state.stages(info)),
        "on": info.on,
        "nodes": "; ".join(pool_nodes.nodes(info)),
        "address": info.base_url,
        "clients": "\n             ".join(pool_token.clients(info)),
        **pool_state.changes(info),
        "remedy": pool_state.remedy(info),
        "chat": pool_state.without_chat(info),
        "why": info.why,
    }
    if info.base_url:
        facts["its token"] = f"in the rendezvous file in HOLYNB_HOME/run, and in: holynb pool status {info.name} --json"
    return Verbatim("\n".join([f"pool/{info.name}", *(f"  {k:<10} {v}" for k, v in facts.items() if v)])), info.as_dict()


def _stop(args: Sequence[str], _: Notice) -> tuple[str, Any]:
    from holynb import pools

    stopped = pools.stop("all" if list(args) == ["--all"] else _pool_name(args, "stop"))
    return (f"Stopped {', '.join(f'pool/{n}' for n in stopped)}." if stopped else "No pool was running."), stopped


def _logs(args: Sequence[str], _: Notice) -> tuple[str, Any]:
    from holynb import pools

    name, *more = [_pool_name(args[:1], "logs"), *args[1:]]
    if more and not (len(more) == 1 and more[0].isdigit()):
        raise BadOption(f"pool logs takes a pool and a number of lines, not {' '.join(more)!r}.")
    lines = pools.logs(name, int(more[0]) if more else DEFAULT_LOG_LINES)
    return Verbatim("\n".join(lines)), lines


def _deploy(args: Sequence[str], notice: Notice) -> tuple[str, Any]:
    return deploy(args, notice, _converted)


def _token(args: Sequence[str], _: Notice) -> tuple[str | list[Part], Any]:
    return pool_token.answer(args)


def _help(command: str, word: str | None = None) -> str:
    lines = [wrapped(f"{command} {line}", "", "    ") for line in ([HELP[word]] if word else HELP.values())]
    if word in (None, "start"):
        lines += ["", "Options of start:", *map(_option_help, START_OPTIONS)]
    if word == "plan":
        lines += ["", "Options of plan:", *map(_option_help, PLAN_OPTIONS)]
    if word == "deploy":
        lines += ["", "Options of deploy:", *map(_option_help, DEPLOY_OPTIONS)]
    return "\n".join(lines)


def _option_help(option: Option) -> str:
    return entry(", ".join(option.flags) + (f" {option.metavar}" if option.metavar else ""), option.help, OPTION_COLUMN)


def _convert(name: str, value: Any) -> Any:
    return _converted(next(o for o in (*PLAN_OPTIONS, *START_OPTIONS) if o.name == name), value)


def _converted(option: Option, value: Any) -> Any:
    if option.convert is None:
        return value
    try:
        return option.convert(value)
    except ValueError as exc:
        wanted = {int: "a whole number", bounds: "a whole number, or bounds such as 2..8", float: "a number"}.get(option.convert, str(exc))
        raise BadOption(f"{option.flags[-1]} takes {wanted}, not {value!r}.") from exc


def _pool_name(args: Sequence[str], word: str) -> str:
    """The pool that the argument names; without one, the only pool. Raises BadOption."""
    from holynb import pools

    if len(args) == 1:
        name = args[0].removeprefix("pool/")
        if (elsewhere := own_servers.named(name)) and pools.find(name) is None:
            raise BadOption(f"{elsewhere}. Whoever runs it sees its state, and stops it.")
        return name
    names = [] if args or word == "logs" else [info.name for info in pools.listing()]
    if len(names) == 1:
        return names[0]
    if not args and word != "logs" and not names:
        raise BadOption(". ".join([*own_servers.lines(), NONE_RUNS]))
    raise BadOption(f"pool {word} takes the name of one pool; " + (f"these run: {', '.join(names)}." if names else "pool list shows them."))


def _refuse_args(args: Sequence[str], word: str) -> None:
    """Raises BadOption if there are any."""
    if args:
        raise BadOption(f"pool {word} takes no more arguments; unexpected: {args[0]!r}.")


def _devices(info: PoolInfo) -> str:
    return f", on {', '.join(info.devices)}" if info.devices else ""


def _age(info: PoolInfo) -> str:
    return ago(info.started, time.time()) if info.started else "?"


def _memory(info: PoolInfo) -> str:
    return ", ".join(f"{g.device} {units.memory(g.used if g.ours is None else g.ours)}" for g in info.memory) or "?"
