"""The commands of `%infer …`, in a table with their help. Knows runs, the run log and pools; uses IPython only to ask and to display."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from holynb.config import Options
from holynb.errors import BadOption, closest
from holynb.translation import say
from holynb.ui import reference
from holynb.ui.cell import grammar
from holynb.ui.commands import bench, history, key, money, roi, trust
from holynb.ui.output.helplines import entry, wrapped
from holynb.ui.panel import commands

if TYPE_CHECKING:
    from holynb.ui.cell import Host

__all__ = ["COMMANDS", "LineCommand", "help_text", "reference_page", "run"]


@dataclass(frozen=True, slots=True)
class LineCommand:
    """One command. `run` takes the magic and the words after the command; it returns the line's value, None if it only prints."""

    usage: str
    help: str
    run: Callable[[Host, Sequence[str]], Any]


#: Where what a command does begins, in the list of all.
SUMMARY_COLUMN = 34

#: Options of `resume` and `run --only`: how the requests of an earlier run are sent, not what they contain.
RESEND_OPTIONS = frozenset(
    {
        "retries",
        "timeout",
        "connect_timeout",
        "deadline",
        "tier",
        "concurrency",
        "rpm",
        "tpm",
        "fallback",
        "budget",
        "prompt_cache",
        "show",
        "format",
        "quiet",
        "debug",
        "bg",
    }
)


def run(magic: Host, line: str) -> Any:
    """Run a line. Returns a Work or LineStep to wait for, or the line's value. Raises UserError."""
    word, *args = grammar.split(line) or ["help"]
    if word in COMMANDS:
        if args and args[0] in ("--help", "-h"):
            print(help_text(word))
            return None
        return COMMANDS[word].run(magic, args)
    if not args and word.rstrip("?") in COMMANDS:
        print(help_text(word.rstrip("?")))
        return None
    # `%infer some text` is a prompt in the wrong place rather than a misspelt command.
    hint = closest(word, [c for c in COMMANDS if c[0] == word[0] or not args])
    raise BadOption(
        f"%infer takes a command, but {word!r} is not one.{hint} To send a prompt write it below %%infer; %infer help lists the commands."
    )


def help_text(word: str | None = None) -> str:
    """The help of a command, an option, a column, a setting or a variable; or the list of commands. Raises BadOption for another word."""
    if word is not None:
        parts = [reference.help_lines(reference.find(word))]
        if word in COMMANDS:
            summary, newline, options = say(COMMANDS[word].help).partition("\n")
            parts.insert(0, f"{wrapped(f'%infer {COMMANDS[word].usage}', '', '      ')}\n{wrapped(summary, '  ')}{newline}{options}")
        if not any(parts):
            hint = closest(word, [*COMMANDS, *reference.closest_words()])
            raise BadOption(f"There is no {word!r} to explain.{hint} %infer help lists the commands, %%infer? the options.")
        return "\n".join(filter(None, parts))
    head = say("%%infer [NAME <<] [ROUTE] [options], and the prompt below it. %%infer? prints every option.")
    lines = [entry(f"%infer {c.usage}", say(c.help.partition("\n")[0]), SUMMARY_COLUMN) for c in COMMANDS.values()]
    return "\n".join([wrapped(head), *lines])


def reference_page() -> str:
    """The page of every word, as Markdown."""
    from holynb.ui.commands import pool

    words = {word: (command.usage, command.help) for word, command in COMMANDS.items()}
    words["pool"] = (COMMANDS["pool"].usage, "\n".join([COMMANDS["pool"].help, *(f"%infer pool {line}" for line in pool.HELP.values())]))
    return reference.page(words)


# -- runs ------------------------------------------------------------------------------------------------
def _help(_: Host, args: Sequence[str]) -> None:
    print(help_text(args[0] if args else None))


def _status(magic: Host, args: Sequence[str]) -> None:
    from holynb.ui.cell import said
    from holynb.ui.commands import active, pool

    _refuse_args("status", args)
    lines = active.lines()
    parts, _ = pool.answer(["list"], print)
    said.show(magic.shell, *(lines or [say("No run is active.")]), *(say(p) if isinstance(p, str) else p for p in parts))


def _meant(magic: Host, word: str) -> str:
    """The word as it is, where a run has this name; else the id of the run that a variable of this name holds, or whose result it holds."""
    from holynb import runlog
    from holynb.results import frame
    from holynb.run import Run

    with suppress(runlog.BrokenLog):  # the command says so where it needs the log
        if (named := runlog.log().find(word)) is not None and named.name == word:
            return word
    held = magic.shell.user_ns.get(word)
    return (held.id if isinstance(held, Run) else frame.origin_of(held)) or word


def _show(magic: Host, args: Sequence[str]) -> None:
    from holynb.ui.cell import shown
    from holynb.ui.output import report

    if any(token.startswith("--replay") for token in args):
        commands.replay(magic, args)
        return
    values, positional = grammar.parse_options(args)
    options = Options.parse(values)
    _refuse_options_except("show", values, {"show", "format"})
    if len(positional) > 1:
        raise BadOption(f"%infer show takes one run; unexpected argument {positional[1]!r}.")
    run = report.load(_meant(magic, positional[0]) if positional else None)
    run = replace(run, format=options.format) if "format" in values else run
    shown.show(run, options.show, magic.shell)


def _stop(magic: Host, args: Sequence[str]) -> None:
    from holynb.run import session
    from holynb.ui.commands import active

    running = [r for r in session.runs() if not r.done]
    if args:
        chosen = [r for r in running if _meant(magic, args[0]) in (r.id, r.name)]
        if not chosen and (batches := active.stopped(_meant(magic, args[0]))) is not None:
            print(batches)
            return
        if not chosen:
            names = [name for r in running for name in (r.name, r.id) if name]
            raise BadOption(f"No run {args[0]!r} is active in this session.{closest(args[0], names)} %infer status shows the active ones.")
        running = chosen
    for run in running:
        run.cancel()
        print(say(f"Stopping {run.name or run.id}: no new requests; those in flight have 3 seconds. %infer show {run.name or run.id}"))
    if not running:
        print(say("No run is active in this session."))


def _resume(magic: Host, args: Sequence[str]) -> Any:
    from holynb.run import resume

    values, positional = grammar.parse_options(args)
    if len(positional) > 1:
        raise BadOption("%infer resume takes the name or the id of one run, or nothing: the last unfinished one.")
    _refuse_options_except("resume", values, RESEND_OPTIONS)
    Options.parse(values)
    plan = resume.resumed(_meant(magic, positional[0]) if positional else history.unfinished(), values)
    return magic.start(plan, None, plan.options.show)


def _run(magic: Host, args: Sequence[str]) -> Any:
    from holynb.run import resume

    values, positional = grammar.parse_options(args)
    Options.parse(values)
    if values.get("use"):
        if len(positional) > 1:
            raise BadOption(f"Unexpected argument {positional[1]!r}: %infer run --use NAME takes one route and options.")
        return magic.send(grammar.CellLine(route=positional[0] if positional else None, options=values), "")
    if values.pop("only", None) is None or len(positional) > 1:
        raise BadOption(
            "%infer run takes --only failed [RUN] (a run's failed rows again; default: the last) or --use NAME [ROUTE] (a saved prompt). "
            "Cells start with %%infer."
        )
    _refuse_options_except("run", values, RESEND_OPTIONS)
    plan = resume.failed_again(_meant(magic, positional[0]) if positional else None, values)
    return magic.start(plan, None, plan.options.show)


# -- models, keys, pools -------------------------------------------------------------------------------------------------
def _show_tables(word: str, magic: Host, args: Sequence[str]) -> None:
    from holynb.ui.cell import said
    from holynb.ui.commands import models

    said.show(magic.shell, *models.command(word, args), gap=models.GAP)


def _pool(magic: Host, args: Sequence[str]) -> None:
    from holynb.ui.cell import said, views
    from holynb.ui.commands import pool

    status = views.StatusLine(magic.shell, at_once=True)
    try:
        parts, _ = pool.answer(args, status)
    except BaseException:
        status.end("")
        raise
    shown = [type(p)(say(p)) if isinstance(p, str) else p for p in parts]
    if all(isinstance(p, str) for p in shown):
        bundle = said.bundle(shown)
        status.end(bundle["text/plain"], bundle["text/html"])
    else:
        status.end("")
        said.show(magic.shell, *shown)


def _refuse_args(word: str, args: Sequence[str]) -> None:
    if args:
        raise BadOption(f"%infer {word} takes no arguments; unexpected: {shlex.join(args)}.")


def _refuse_options_except(word: str, values: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raises BadOption for options of a cell that this command does not take."""
    for name in values:
        if name not in allowed:
            flags = ", ".join(sorted(grammar.flag(n) for n in allowed))
            raise BadOption(f"%infer {word} does not take {grammar.flag(name)}. It takes {flags}.")


COMMANDS: dict[str, LineCommand] = {
    "help": LineCommand("help [WORD]", "this list, or one command, option, column, setting or variable", _help),
    "status": LineCommand("status", "active runs, batches at their providers and local pools", _status),
    "runs": LineCommand("runs [N]", "the newest runs in the run log", history.runs),
    "show": LineCommand(
        "show [RUN|VAR] [--show WHAT] [--format HOW] | --replay FILE [--speed X]",
        "show a run again, from this session or the run log (or by a variable that holds it or its result), or a recorded one",
        _show,
    ),
    "stop": LineCommand("stop [RUN]", "stop one background run, or all", _stop),
    "resume": LineCommand("resume [RUN] [options]", "send the rows that a run still lacks (default: the last unfinished run)", _resume),
    "run": LineCommand(
        "run --only failed [RUN] | --use NAME", "send a run's failed rows again (the value is the whole frame), or run a saved prompt", _run
    ),
    "models": LineCommand(
        "models [PROVIDER] [--api-base URL] | update [--take] [--from ADDRESS] [--remove]",
        "routes with prices, end dates and where each key comes from; what your own server offers; update: as for prices",
        partial(_show_tables, "models"),
    ),
    "prices": LineCommand(
        "prices [update] [--take] [--from ADDRESS] [--remove]",
        "how old prices are; update: fetch newer ones and show what would change; --take: apply them; --remove: go back",
        partial(_show_tables, "prices"),
    ),
    "key": LineCommand("key PROVIDER", "enter a provider's key without echo; kept in the system keyring if there is one", key.run),
    "trust": LineCommand(
        "trust [HOST] [--remove]", "let your key go to an address that a project file names; list the trusted ones", trust.run
    ),
    "panel": LineCommand("panel [--df NAME]", "a form for the same job without typing a magic, and one for pools", commands.panel),
    "dash": LineCommand("dash [--beside]", "a live view of runs, pools and spending; --beside: next to the notebook", commands.dash),
    "pool": LineCommand("pool plan|start|list|status|stop|logs", "local models in their own processes; see %infer pool help", _pool),
    "prompts": LineCommand("prompts [NAME] [--remove]", "list saved prompts, or show one; %%infer --save NAME saves one", money.prompts),
    "cost": LineCommand(
        "cost [RUN] [--month]", "what was spent, by day and route, and this month's projection; what a run cost in all", money.cost
    ),
    "cache": LineCommand("cache [clear]", "answers that the run log can reuse; clear: reuse none of them", money.cache),
    "bench": LineCommand("bench R1,R2 [options]", f"compare routes on the same prompts, side by side\n{bench.HELP}", money.bench),
    "roi": LineCommand("roi [R1,R2] [options]", f"compare API prices with your own GPUs, per month at a given load\n{roi.HELP}", money.roi),
}
