"""`%infer runs`: the newest runs of the run log, those that go on among them. Reads; sends nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.errors import BadOption
from holynb.translation import say
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.ui.cell import Host

__all__ = ["runs", "unfinished"]


def runs(magic: Host, args: Sequence[str]) -> None:
    from holynb import runlog
    from holynb.results import cost_text
    from holynb.run import session
    from holynb.ui.cell import said
    from holynb.ui.output import ago
    from holynb.ui.output.listing import Listing

    if args and not (len(args) == 1 and args[0].isdigit()):
        raise BadOption(f"%infer runs takes how many to list, not {' '.join(args)!r}.")
    records = runlog.log().runs(int(args[0]) if args else 20)
    if not records:
        print(say("There is no run yet. Start one with %%infer."))
        return
    head = ["run", "name", "route", "status", "rows", "ok", "failed", "cost", "started"]
    running = {run.id for run in session.runs() if not run.done}
    # A run without an end that is not of this session was killed, or runs in another kernel: the log cannot tell the two apart.
    status = {r.id: r.status if r.ended or r.id in running else "unfinished" for r in records}
    lines = [
        [
            r.id,
            r.name or "",
            r.routes,
            status[r.id],
            f"{r.n:,}",
            f"{r.ok:,}",
            f"{r.failed:,}",
            cost_text(r.cost, r.route, unknown=r.unknown, simulated=r.simulated),
            ago(r.started, time.time()),
        ]
        for r in records
    ]
    said.show(magic.shell, Listing(head, lines, numbers={4, 5, 6, 7}))


def unfinished() -> str:
    """The id of the last run that did not end, saying which it is: nobody named it. Raises BadOption."""
    from holynb import runlog
    from holynb.run import resume

    record = resume.stored(resume.unfinished())
    done = sum(outcome.status == "ok" for _, outcome in runlog.log().answers(record.id).values())
    name = f"{record.name} ({record.id})" if record.name else record.id
    print(f"Resuming {name}: {max(record.n - done, 0):,} of {counted(record.n, 'row')} left.")
    return record.id
