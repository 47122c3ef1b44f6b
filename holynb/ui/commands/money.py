"""`%infer prompts|cost|cache|bench|roi`, and `--save` and `--confirm` of a cell. Prints and asks; calculates nothing."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holynb import units
from holynb.errors import BadOption, closest
from holynb.types import SIMULATED
from holynb.ui.cell import said
from holynb.ui.cell.question import yes_or_no
from holynb.ui.output import ago, clean, count, one_line
from holynb.ui.output.listing import Listing
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.config import Options
    from holynb.pricing import SpendingLine
    from holynb.pricing.spending import Month
    from holynb.prompts.saved import SavedPrompt
    from holynb.run import Plan
    from holynb.ui.cell import Host

__all__ = ["bench", "cache", "confirm_cost", "cost", "prompts", "roi", "save_prompt"]

#: How far back `%infer cost` lists day by day.
DAYS_LISTED = 14


# -- options of a cell -------------------------------------------------------------------------------------------------------
def save_prompt(body: str, route: str | None, options: Options) -> None:
    """`--save NAME`: save the prompt and print its name. Raises BadOption without a name, and as `saved.save_from_options`."""
    from holynb.prompts import saved

    if options.save is None:
        raise BadOption("-N only saves the prompt: give it a name with -S NAME.")
    prompt = saved.save_from_options(body, route, options)
    if not options.quiet:
        before = ", replacing an earlier one, which is kept in prompts/before" if prompt.replaced else ""
        print(f"Saved as {prompt.name}{before}. %infer run --use {prompt.name}")


def confirm_cost(plan: Plan, can_ask: Callable[[], bool]) -> None:
    """`--confirm USD`: ask the user if `can_ask()`. Raises BadOption if the answer is no, or if nobody can answer."""
    from holynb.run import quote

    if plan.options.confirm is not None:
        flag = "A higher --confirm says yes beforehand; --budget is a hard cap."
        quote.check(plan, functools.partial(yes_or_no, flag=flag) if can_ask() else None)


# -- saved prompts -----------------------------------------------------------------------------------------------------------
def prompts(magic: Host, args: Sequence[str]) -> None:
    """`%infer prompts [NAME] [--remove]`."""
    from holynb.prompts import saved

    names = [w for w in args if w != "--remove"]
    if any(w.startswith("-") for w in names) or len(names) > 1:
        raise BadOption(f"%infer prompts takes one name and --remove, not {' '.join(args)!r}.")
    if "--remove" in args:
        if not names:
            raise BadOption("%infer prompts NAME --remove: say which.")
        print(f"Removed {names[0]}; the file is kept in {saved.remove(names[0])}")
        return
    if names:
        print(_prompt_text(saved.load(names[0])))
        return
    listing = saved.listing()
    if not listing:
        print("No prompt is saved yet. %%infer -S NAME saves a cell's prompt; -N saves it without running it.")
        return
    now = dt.datetime.now(dt.UTC).timestamp()
    lines = [[s.name, s.route or "", _options_text(s.options), ago(s.at.timestamp(), now) if s.at else "?", s.body] for s in listing]
    said.show(magic.shell, Listing(["name", "route", "options", "saved", "prompt"], lines, prose={2, 4}, wide={4}))


def _prompt_text(prompt: SavedPrompt) -> str:
    head = " · ".join(p for p in (prompt.name, prompt.route, _options_text(prompt.options), str(prompt.path)) if p)
    return f"{head}\n\n{clean(prompt.body)}"


def _options_text(options: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={one_line(str(v))}" for k, v in options.items())


# -- what was spent ------------------------------------------------------------------------------------------------------------
def cost(magic: Host, args: Sequence[str]) -> None:
    """`%infer cost [RUN] [--month]`."""
    from holynb import runlog
    from holynb.pricing import spending
    from holynb.results import is_pool

    if len(args) == 1 and not args[0].startswith("-"):
        print(_run_text(args[0]))
        return
    if list(args) not in ([], ["--month"]):
        raise BadOption(f"%infer cost takes a run or --month, not {' '.join(args)!r}.{closest(args[-1], ['--month'])}")
    now = dt.datetime.now()  # noqa: DTZ005 - a person's days and months are local ones
    log = runlog.log()
    month = spending.month(log, now)
    if args:
        first = dt.datetime.combine(month.first, dt.time())
        lines = spending.by_day(log, first.timestamp())
        by_route = [spending.total([s for s in lines if s.route == r], route=r) for r in dict.fromkeys(s.route for s in lines)]
        by_route.sort(key=lambda s: s.cost or -1, reverse=True)
        real = [s for s in lines if s.provider not in SIMULATED]
        everything = spending.total(real, route="all but sim")
        pooled = [is_pool(s.route) for s in real if s.rows]
        shown = _table([*by_route, everything], day=False, free=all(pooled)) if lines else "No requests this month."
    else:
        since = dt.datetime.combine(now.date() - dt.timedelta(days=DAYS_LISTED - 1), dt.time())
        lines = spending.by_day(log, since.timestamp())
        shown = _table(lines, day=True) if lines else f"No requests in the last {DAYS_LISTED} days."
    said.show(magic.shell, shown, _month_text(month))


def _run_text(name: str) -> str:
    """What a run has cost, all its attempts."""
    from holynb import runlog
    from holynb.pricing import spending
    from holynb.results import cost_text
    from holynb.run import resume

    record = resume.stored(name)
    paid = spending.paid(runlog.log(), record.id)
    unknown = sum(paid.unknown.values())
    known = paid.known if paid.known or not (unknown or record.cost is None) else None
    cost = cost_text(known, record.route, unknown=unknown)
    rows = f"{record.ok:,} of {counted(record.n, 'row')} answered"
    tokens_in, tokens_out = spending.tokens(runlog.log(), record.id)
    cost += f" and {tokens_in:,} + {tokens_out:,} tokens"
    return f"{record.name or record.id} on {record.routes}: {cost} over all attempts, {rows}, started {ago(record.started, dt.datetime.now(dt.UTC).timestamp())}."


def _table(lines: Sequence[SpendingLine], *, day: bool, free: bool = False) -> Listing:
    """free: what the last line sums is of pools alone."""
    thought = any(s.tokens_reasoning is not None for s in lines)
    counts = ["sent", "failed", "cached", "tokens in", "tokens out", *(["thought"] if thought else [])]
    rows = []
    for s in lines:
        names = [str(s.day), s.route or "?", s.model or ""] if day else [s.route or "?"]
        figures = [s.rows, s.failed, s.cached, s.tokens_in, s.tokens_out, *([s.tokens_reasoning] if thought else [])]
        rows.append([*names, *map(count, figures), _spent(s, free=free and s is lines[-1])])
    names = ["day", "route", "model"] if day else ["route"]
    return Listing([*names, *counts, "cost"], rows, range(len(names), len(names) + len(counts) + 1))


def _spent(line: SpendingLine, *, free: bool) -> str:
    """What a line cost; nothing where nothing was answered. free: pools alone answered, whatever the line is called."""
    from holynb.results import cost_text

    route = "pool/" if free else line.route
    return cost_text(line.cost, route, unknown=line.unknown) if line.cost is not None or line.unknown or line.rows else ""


def _month_text(month: Month) -> str:
    from holynb.results import dollars

    name = f"{month.first:%B %Y}"
    simulated = f" Simulated, not billed: {dollars(month.simulated.cost)}." if month.simulated.cost else ""
    if month.per_day is None:
        return f"{name}: {'nothing with a known price' if month.so_far.rows else 'nothing'} spent so far.{simulated}"
    unknown = f", and {counted(month.so_far.unknown, 'answer')} of unknown price" if month.so_far.unknown else ""
    return (
        f"{name}: {dollars(month.so_far.cost)} spent so far{unknown}; "
        f"at {dollars(month.per_day)} a day the month ends at {dollars(month.projected)}.{simulated}"
    )


def cache(_: Host, args: Sequence[str]) -> None:
    """`%infer cache [clear]`."""
    from holynb import runlog
    from holynb.pricing import spending
    from holynb.results import dollars

    if list(args) not in ([], ["clear"]):
        raise BadOption(f"%infer cache takes clear, not {' '.join(args)!r}.{closest(args[0], ['clear'])}")
    log = runlog.log()
    if args:
        print(f"{counted(log.clear(), 'answer')} will not be reused. The run log keeps them: %infer runs, %infer show RUN.")
        return
    count, cost_usd = spending.reusable_answers(log)
    size_bytes = sum(p.stat().st_size for p in log.path.parent.glob(f"{log.path.name}*"))
    paid = f" {'It' if count == 1 else 'They'} cost {dollars(cost_usd)} when first asked." if cost_usd else ""
    print(
        f"{counted(count, 'answer')} can be reused instead of asking again.{paid}\n"
        f"Run log: {log.path.name} in HOLYNB_HOME, {units.memory(size_bytes)}. "
        "%infer cache clear forgets the answers, not the runs."
    )


# -- bench ---------------------------------------------------------------------------------------------------------------------
def bench(magic: Host, args: Sequence[str]) -> Any:
    """`%infer bench R1,R2 [options]`: the LineStep to wait for."""
    from holynb.ui.commands.bench import start

    return start(magic, args)


def roi(magic: Host, args: Sequence[str]) -> Any:
    """`%infer roi [ROUTES] [options]`."""
    from holynb.ui.commands.roi import parse_args, show

    return show(magic.shell, parse_args(args))
