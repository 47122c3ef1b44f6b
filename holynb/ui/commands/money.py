"""The words of `%infer` about money and saved prompts: prompts, cost, cache, bench, roi; and what `--save` and `--confirm` say. Prints and asks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from holynb.errors import BadOption, closest
from holynb.ui.output import ago, clean, grid, one_line
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.config import Options
    from holynb.pricing import SpendingLine
    from holynb.run import Plan
    from holynb.ui.cell import Host

__all__ = ["bench", "cache", "confirm", "cost", "keep", "prompts", "roi"]

#: Days that `%infer cost` lists one by one.
DAYS = 14


# -- beside a cell ---------------------------------------------------------------------------------------------------------
def keep(body: str, route: str | None, options: Options) -> None:
    """`--save NAME`, and say so. Raises as `saved.save_from_options`."""
    from holynb.prompts import saved

    if options.save is None:
        raise BadOption("-N runs nothing and only saves: give the prompt a name with -S NAME.")
    made = saved.save_from_options(body, route, options)
    if not options.quiet:
        before = ", in place of an earlier one that is kept in prompts/before" if made.replaced else ""
        print(f"Saved as {made.name}{before}. %infer run --use {made.name}")


def confirm(plan: Plan, asks: Callable[[], bool]) -> None:
    """`--confirm USD`: ask where a person is there. Raises BadOption where the answer is no, or nobody can answer."""
    from holynb.run import quote

    if plan.options.confirm is not None:
        quote.check(plan, _yes if asks() else None)


def _yes(question: str) -> bool:
    return input(question).strip().lower() in ("y", "yes")


# -- saved prompts -----------------------------------------------------------------------------------------------------------
def prompts(_: Host, rest: Sequence[str]) -> None:
    """`%infer prompts [NAME] [--remove]`."""
    from holynb.prompts import saved

    names = [w for w in rest if w != "--remove"]
    if any(w.startswith("-") for w in names) or len(names) > 1:
        raise BadOption(f"%infer prompts takes one name and --remove, not {' '.join(rest)!r}.")
    if "--remove" in rest:
        if not names:
            raise BadOption("%infer prompts NAME --remove: say which.")
        print(f"Removed {names[0]}; the file is kept in {saved.remove(names[0])}")
        return
    if names:
        print(_whole(saved.load(names[0])))
        return
    known = saved.listing()
    if not known:
        print("No prompt is saved yet. %%infer -S NAME saves a cell's prompt; -N saves it without running it.")
        return
    now = dt.datetime.now(dt.UTC).timestamp()
    lines = [[s.name, s.route or "", _said(s.options), ago(s.at.timestamp(), now) if s.at else "?", s.body] for s in known]
    print(grid(["name", "route", "options", "saved", "prompt"], lines, {4: 60}))


def _whole(prompt: Any) -> str:
    head = " · ".join(p for p in (prompt.name, prompt.route, _said(prompt.options), str(prompt.path)) if p)
    return f"{head}\n\n{clean(prompt.body)}"


def _said(options: Any) -> str:
    return " ".join(f"{k}={one_line(str(v))}" for k, v in options.items())


# -- what was spent ------------------------------------------------------------------------------------------------------------
def cost(_: Host, rest: Sequence[str]) -> None:
    """`%infer cost [--month]`."""
    from holynb import runlog
    from holynb.pricing import spending

    if list(rest) not in ([], ["--month"]):
        raise BadOption(f"%infer cost takes --month, not {' '.join(rest)!r}.{closest(rest[-1], ['--month'])}")
    now = dt.datetime.now()  # noqa: DTZ005 - a person's days and months are local ones
    log = runlog.log()
    here = spending.month(log, now)
    if rest:
        first = dt.datetime.combine(here.first, dt.time())
        lines = spending.by_day(log, first.timestamp())
        made = [spending.total([s for s in lines if s.route == r], route=r) for r in dict.fromkeys(s.route for s in lines)]
        made.sort(key=lambda s: s.cost or -1, reverse=True)
        everything = spending.total([s for s in lines if s.provider != "sim"], route="all but sim")
        print(_table([*made, everything], day=False) if lines else "Nothing was asked this month.")
    else:
        since = dt.datetime.combine(now.date() - dt.timedelta(days=DAYS - 1), dt.time())
        lines = spending.by_day(log, since.timestamp())
        print(_table(lines, day=True) if lines else f"Nothing was asked in the last {DAYS} days.")
    print(_ahead(here))


def _table(lines: Sequence[SpendingLine], *, day: bool) -> str:
    head = [*(["day"] if day else []), "route", *(["model"] if day else []), "rows", "failed", "cached", "tokens in", "tokens out", "cost"]
    rows = []
    for s in lines:
        names = [str(s.day), s.route or "?", s.model or ""] if day else [s.route or "?"]
        rows.append([*names, *(f"{n:,}" for n in (s.rows, s.failed, s.cached, s.tokens_in, s.tokens_out)), money(s)])
    return grid(head, rows)


def money(said: SpendingLine) -> str:
    """What a line came to: `$0.42`, `$0.42 + 3 unknown`, `? (3)`; nothing where only a pool without a price answered. Simulated says so."""
    from holynb.results import dollars

    simulated = " simulated" if said.provider == "sim" and said.cost else ""
    if said.cost is None:
        return f"? ({said.unknown:,} unknown)" if said.unknown else ""
    return dollars(said.cost) + simulated + (f" + {said.unknown:,} unknown" if said.unknown else "")


def _ahead(here: Any) -> str:
    from holynb.results import dollars

    name = f"{here.first:%B %Y}"
    simulated = f" Simulated, and so nobody's money: {dollars(here.simulated.cost)}." if here.simulated.cost else ""
    if here.per_day is None:
        return f"{name}: {'nothing with a known price' if here.so_far.rows else 'nothing'} spent so far.{simulated}"
    unknown = f", and {counted(here.so_far.unknown, 'answer')} of unknown price" if here.so_far.unknown else ""
    return f"{name}: {dollars(here.so_far.cost)} spent so far{unknown}; at {dollars(here.per_day)} a day the month ends at {dollars(here.projected)}.{simulated}"


def cache(_: Host, rest: Sequence[str]) -> None:
    """`%infer cache [clear]`."""
    from holynb import runlog
    from holynb.pricing import spending
    from holynb.results import dollars

    if list(rest) not in ([], ["clear"]):
        raise BadOption(f"%infer cache takes clear, not {' '.join(rest)!r}.{closest(rest[0], ['clear'])}")
    log = runlog.log()
    if rest:
        print(f"{counted(log.clear(), 'answer')} will not be given again. The run log keeps what was said: %infer runs, %infer show RUN.")
        return
    count, worth = spending.reusable_answers(log)
    size = sum(p.stat().st_size for p in log.path.parent.glob(f"{log.path.name}*"))
    paid = f" {'It' if count == 1 else 'They'} cost {dollars(worth)} when asked." if worth else ""
    print(
        f"{counted(count, 'answer')} {'is' if count == 1 else 'are'} given again instead of asking.{paid}\nRun log: {log.path.name} in HOLYNB_HOME, {size / 2**10:,.0f} KiB. %infer cache clear forgets the answers, not the runs."
    )


# -- bench ---------------------------------------------------------------------------------------------------------------------
def bench(magic: Host, rest: Sequence[str]) -> Any:
    """`%infer bench R1,R2 [options]`: something to wait for."""
    from holynb.ui.commands.bench import start

    return start(magic, rest)


def roi(magic: Host, rest: Sequence[str]) -> Any:
    """`%infer roi [ROUTES] [options]`."""
    from holynb.ui.commands.roi import asked, leave

    return leave(magic.shell, asked(rest))
