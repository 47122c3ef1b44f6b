"""The words of `%infer …`: a table of commands, each with its help. Knows runs, the run log and pools; IPython only to ask and to show."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holynb.config import Options
from holynb.errors import BadKey, BadOption, closest
from holynb.ui.cell import grammar
from holynb.ui.commands import bench, money, roi
from holynb.ui.panel import commands
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.types import Endpoint
    from holynb.ui.cell import Host

__all__ = ["COMMANDS", "LineCommand", "ask_key", "help_text", "run"]


@dataclass(frozen=True, slots=True)
class LineCommand:
    """One word. `does` gets the magic and the words after it, and returns the line's value (None for what only prints)."""

    usage: str
    help: str
    does: Callable[[Host, Sequence[str]], Any]


#: Options that change how an earlier run's requests are sent, not what they ask.
AGAIN = frozenset(
    {
        "retries",
        "timeout",
        "connect_timeout",
        "deadline",
        "concurrency",
        "rpm",
        "tpm",
        "fallback",
        "budget",
        "show",
        "quiet",
        "debug",
        "bg",
    }
)


def run(magic: Host, line: str) -> Any:
    """Do what a line says: a Work to wait for, a value, or None. Raises UserError."""
    word, *rest = grammar.split(line) or ["help"]
    if word in COMMANDS:
        if rest and rest[0] in ("--help", "-h"):
            print(help_text(word))
            return None
        return COMMANDS[word].does(magic, rest)
    # `%infer some text` is a prompt in the wrong place, not a slip of the pen in a command.
    near = closest(word, [c for c in COMMANDS if c[0] == word[0] or not rest])
    raise BadOption(
        f"%infer takes a command, and {word!r} is none.{near} To send a prompt write it below %%infer; %infer help lists the commands."
    )


def help_text(word: str | None = None) -> str:
    """One command's help, or the list of all."""
    if word is not None:
        if word not in COMMANDS:
            raise BadOption(f"There is no command %infer {word}.{closest(word, COMMANDS)}")
        return f"%infer {COMMANDS[word].usage}\n  {COMMANDS[word].help}"
    lines = [_listed(c.usage, c.help.partition("\n")[0]) for c in COMMANDS.values()]
    return "\n".join(["%%infer [NAME <<] [ROUTE] [options], and the prompt below it. %%infer? prints every option.", *lines])


def _listed(usage: str, does: str) -> str:
    """One line of the list; two where the words are longer than their column, so that what it does stands under what the others do."""
    return f"  %infer {usage:<32} {does}" if len(usage) <= 32 else f"  %infer {usage}\n{'':<42}{does}"


def ask_key(endpoint: Endpoint) -> str | None:
    """Ask for a key; what is typed is not shown. None where nothing is typed."""
    from getpass import getpass

    page = f" ({endpoint.key_page})" if endpoint.key_page else ""
    return getpass(f"{endpoint.key_name}{page}: ").strip() or None


# -- what runs and what ran ------------------------------------------------------------------------------------------------
def _help(_: Host, rest: Sequence[str]) -> None:
    print(help_text(rest[0] if rest else None))


def _status(_: Host, rest: Sequence[str]) -> None:
    from holynb.run import session
    from holynb.ui.commands import pool

    _no_more("status", rest)
    going = [r for r in session.runs() if not r.done]
    for each in going:
        told = each.summary()
        print(
            f"run {each.name or each.id} on {each.route}: {told.n - told.running:,} of {counted(told.n, 'row')} · {told.money()} · {told.elapsed:.0f} s"
        )
    if not going:
        print("No run goes on.")
    print(pool.run(["list"], print)[0])


def _runs(_: Host, rest: Sequence[str]) -> None:
    from holynb import runlog
    from holynb.results import dollars
    from holynb.run import session
    from holynb.ui.output import ago, grid

    if rest and not (len(rest) == 1 and rest[0].isdigit()):
        raise BadOption(f"%infer runs takes how many to list, not {' '.join(rest)!r}.")
    records = runlog.log().runs(int(rest[0]) if rest else 20)
    if not records:
        print("There is no run yet. Start one with %%infer.")
        return
    head = ["run", "name", "route", "status", "rows", "ok", "failed", "cost", "started"]
    going = {run.id for run in session.runs() if not run.done}
    # What never came to its end and does not go on here was killed, or goes on in another kernel: nobody can tell from the log.
    status = {r.id: r.status if r.ended or r.id in going else "unfinished" for r in records}
    lines = [
        [r.id, r.name or "", r.route, status[r.id], f"{r.n:,}", f"{r.ok:,}", f"{r.failed:,}", dollars(r.cost), ago(r.started, time.time())]
        for r in records
    ]
    print(grid(head, lines))


def _show(magic: Host, rest: Sequence[str]) -> None:
    from holynb.ui.cell import views
    from holynb.ui.output import plots, report

    if any(token.startswith("--replay") for token in rest):
        commands.replay(magic, rest)
        return
    said, left = grammar.words(rest)
    options = Options.parse(said)
    _only("show", said, {"show"})
    if len(left) > 1:
        raise BadOption(f"%infer show takes one run, and {left[1]!r} is one word too many.")
    run = report.load(left[0] if left else None)
    plots.show(views.text_view(magic.shell), run, options.show, magic.shell)


def _stop(_: Host, rest: Sequence[str]) -> None:
    from holynb.run import session

    going = [r for r in session.runs() if not r.done]
    if rest:
        chosen = [r for r in going if rest[0] in (r.id, r.name)]
        if not chosen:
            known = [w for r in going for w in (r.name, r.id) if w]
            raise BadOption(f"No run {rest[0]!r} goes on in this session.{closest(rest[0], known)} %infer status shows those that do.")
        going = chosen
    for each in going:
        each.cancel()
        print(f"Stopping {each.name or each.id}: no new requests; what is in flight has 3 seconds. %infer show {each.name or each.id}")
    if not going:
        print("No run goes on in this session.")


def _resume(magic: Host, rest: Sequence[str]) -> Any:
    from holynb.run import resume

    said, left = grammar.words(rest)
    if len(left) != 1:
        raise BadOption("%infer resume takes the name or the id of one run; %infer runs lists them.")
    _only("resume", said, AGAIN)
    Options.parse(said)
    plan = resume.resumed(left[0], said)
    return magic.start(plan, None, plan.options.show)


def _run(magic: Host, rest: Sequence[str]) -> Any:
    from holynb.run import resume

    said, left = grammar.words(rest)
    Options.parse(said)
    if said.get("use"):
        if len(left) > 1:
            raise BadOption(f"{left[1]!r} is one word too many: %infer run --use NAME takes one route and options.")
        return magic.send(grammar.CellLine(route=left[0] if left else None, options=said), "")
    if said.pop("only", None) is None or len(left) > 1:
        raise BadOption(
            "%infer run takes --only failed [RUN] (a run's failed rows again; default: the last) or --use NAME [ROUTE] (a saved prompt). "
            "Cells start with %%infer."
        )
    _only("run", said, AGAIN)
    plan = resume.failed_again(left[0] if left else None, said)
    return magic.start(plan, None, plan.options.show)


# -- models, keys, pools -------------------------------------------------------------------------------------------------
def _models(_: Host, rest: Sequence[str]) -> None:
    from holynb.ui.commands import models

    said, left = grammar.words(rest)
    _only("models", said, {"api_base", "api_key_name"})
    if len(left) > 1:
        raise BadOption(f"%infer models takes one provider, and {left[1]!r} is one word too many.")
    print(models.text(left[0] if left else None, **said))


def _key(magic: Host, rest: Sequence[str]) -> None:
    from holynb.config import keys
    from holynb.secret import Secret
    from holynb.ui.commands import models

    if len(rest) != 1:
        raise BadOption("%infer key takes one provider, for example: %infer key openai. It asks for the key; never write it on the line.")
    endpoint = models.endpoint(rest[0])
    if endpoint.key_name is None:
        print(f"{rest[0]} needs no key: nothing is asked for, and its routes work as they are.")
        return
    if not magic.can_ask():
        raise BadKey(f"Nobody can be asked here. Set {endpoint.key_name} in the environment or in a .env file.")
    typed = ask_key(endpoint)
    if typed is None:
        print(f"Nothing was typed. {endpoint.route.provider}: {keys.describe_source(endpoint)}.")
        return
    secret = keys.remember(endpoint, Secret(typed, endpoint.key_name))
    where = (
        "in the system keyring"
        if keys.save_to_keyring(secret)
        else "for this session (there is no system keyring here; a .env file lasts longer)"
    )
    print(f"{endpoint.key_name} is kept {where}.")


def _pool(magic: Host, rest: Sequence[str]) -> None:
    from holynb.ui.cell import views
    from holynb.ui.commands import pool

    notice = views.StatusLine(magic.shell, at_once=True)
    try:
        text, _ = pool.run(rest, notice)
    except BaseException:
        notice.end("")
        raise
    notice.end(text)


def _no_more(word: str, rest: Sequence[str]) -> None:
    if rest:
        raise BadOption(f"%infer {word} takes nothing more, and {shlex.join(rest)} was given.")


def _only(word: str, said: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse options of a cell that mean nothing here: what was asked stays as it was."""
    for name in said:
        if name not in known:
            flags = ", ".join(sorted(grammar.flag(n) for n in known))
            raise BadOption(f"%infer {word} does not take {grammar.flag(name)}. It takes {flags}.")


COMMANDS: dict[str, LineCommand] = {
    "help": LineCommand("help [COMMAND]", "this list, or one command", _help),
    "status": LineCommand("status", "runs that go on, and local pools", _status),
    "runs": LineCommand("runs [N]", "the newest runs of the run log", _runs),
    "show": LineCommand(
        "show [RUN] [--show WHAT] | --replay FILE [--speed X]", "any run again, of this session or of the run log; or a recorded one", _show
    ),
    "stop": LineCommand("stop [RUN]", "stop a run that goes on in the background, or all", _stop),
    "resume": LineCommand("resume RUN [options]", "send what a run still lacks, from the run log alone", _resume),
    "run": LineCommand(
        "run --only failed [RUN] | --use NAME", "a run's failed rows again (the value is the whole frame), or a saved prompt", _run
    ),
    "models": LineCommand(
        "models [PROVIDER] [--api-base URL]",
        "routes with their prices, and where each key comes from; what a server of yours serves",
        _models,
    ),
    "key": LineCommand("key PROVIDER", "type a provider's key, unseen; kept in the system keyring where there is one", _key),
    "panel": LineCommand("panel [--df NAME]", "the same job without typing a magic: a form to ask with, and one for pools", commands.panel),
    "dash": LineCommand("dash [--beside]", "runs, pools with their memory, and spending, live; --beside the notebook", commands.dash),
    "pool": LineCommand("pool plan|start|list|status|stop|logs", "local models in processes of their own; %infer pool help", _pool),
    "prompts": LineCommand("prompts [NAME] [--remove]", "saved prompts, or one in full; %%infer --save NAME saves one", money.prompts),
    "cost": LineCommand("cost [--month]", "what was spent, by day and route; this month so far and where it leads", money.cost),
    "cache": LineCommand(
        "cache [clear]", "answers that the run log gives again instead of asking; clear: give none of them again", money.cache
    ),
    "bench": LineCommand("bench R1,R2 [options]", f"the same prompts over several routes, side by side\n{bench.HELP}", money.bench),
    "roi": LineCommand("roi [R1,R2] [options]", f"API prices against your own GPUs, a month of a given load\n{roi.HELP}", money.roi),
}
