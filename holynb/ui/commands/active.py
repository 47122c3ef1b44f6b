"""What `%infer status` says of runs: those that go on here, and those whose batches go on at their providers, which it looks at once."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from holynb.errors import BadOption, HolynbError
from holynb.results import captioned
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.runlog import RunRecord

__all__ = ["lines", "stopped"]

#: Longest wait for the providers of batches that an earlier kernel submitted, seconds in all.
LOOK_S = 30.0


def lines() -> list[str]:
    """A line for each run, and one for each of its batches."""
    from holynb.run import Run, session, spec
    from holynb.ui.output import seconds

    parts = []
    going = [run for run in session.runs() if not run.done]
    for run in going:
        summary = run.summary()
        done = summary.n - summary.running
        parts.append(
            f"run {run.name or run.id} on {spec.routes(run.plan)}: {done:,} of {counted(summary.n, 'row')}"
            + "".join(f" · {part}" for part in (captioned(summary.money()) if done else "", seconds(summary.elapsed)) if part)
        )
        if isinstance(run, Run):
            run.batch.look_now()
            parts += [f"  {line}" for line in run.batch.lines()]
    return parts + _elsewhere({run.id for run in going}) + _unfinished()


def stopped(name: str) -> str | None:
    """Cancel the batches of a run of an earlier kernel, and say so; None where it has none."""
    from holynb import runlog
    from holynb.config import settings
    from holynb.run import Run, resume

    with suppress(runlog.BrokenLog):
        record = runlog.log().find(name)
        if record is None or not runlog.log().batches(record.id):
            return None
        if runlog.Lease.is_held(settings.home(), record.id):
            return _stopped_elsewhere(record)
        run = Run(resume.resumed(record.id))
        run.batch.end_there()
        try:
            run.wait(LOOK_S)
        except runlog.RunHeld:  # another kernel was quicker
            return _stopped_elsewhere(record)
        except (TimeoutError, HolynbError):
            pass  # how it ended is said, and in the log
        left = "".join(f"\n  {line}" for line in run.batch.lines())
        return f"Stopped {record.name or record.id} at its provider. {run.summary().line()}{left}"
    return None


def _stopped_elsewhere(record: RunRecord) -> str:
    """Ask for the end of batches that another kernel collects, and say so."""
    from holynb import loop
    from holynb.batches.pace import MOST_S
    from holynb.run import resume
    from holynb.run.batch import elsewhere
    from holynb.ui.output import seconds

    troubles = loop.submit(elsewhere.end(resume.resumed(record.id), record.id)).result(LOOK_S)
    word = record.name or record.id
    head = f"Asked for the end of {word} at its provider. Another kernel collects it, and has what was answered by then within {seconds(MOST_S)}."
    return "\n  ".join([head, *troubles])


def _elsewhere(here: set[str]) -> list[str]:
    """Batches of earlier kernels: each is asked for once, and what is there is read into the run log."""
    from holynb import runlog

    with suppress(runlog.BrokenLog):
        runs = dict.fromkeys(p.run for p in runlog.log().batches() if p.run not in here)
        return [line for run in runs for line in _looked_at(run, LOOK_S / len(runs))]
    return []


def _unfinished() -> list[str]:
    """The newest run that ended early, and how it goes on; those by batch are told with their batches."""
    from holynb import runlog
    from holynb.run import resume
    from holynb.ui.output import ago

    with suppress(runlog.BrokenLog, BadOption):
        record = resume.stored(resume.unfinished())
        word, when = record.name or record.id, ago(record.ended or record.started, time.time())
        if record.ok < record.n and not runlog.log().batches(record.id):
            answered = f"{record.ok:,} of {counted(record.n, 'row')} answered"
            return [f"run {word} on {record.routes} ended early, {when}: {answered}. %infer resume {word} sends the rest."]
    return []


def _looked_at(name: str, seconds: float) -> list[str]:
    from holynb import runlog
    from holynb.config import settings
    from holynb.run import Run, resume, spec

    if runlog.Lease.is_held(settings.home(), name):
        return _collected_elsewhere(name)
    try:
        out = resume.stored(name).spec.get("options", {}).get("out")
        run = Run(resume.resumed(name))
        run.batch.look_once()
        with suppress(TimeoutError):
            run.wait(seconds)
    except runlog.RunHeld:  # another kernel was quicker
        return _collected_elsewhere(name)
    except HolynbError as exc:
        return [f"run {name} has batches that could not be looked at: {exc}"]
    summary = run.summary()
    word = run.plan.options.name or name
    rest = f"%infer resume {word} waits for the rest" if summary.running else f"%infer show {word}"
    head = f"run {word} on {spec.routes(run.plan)}: {summary.n - summary.running:,} of {counted(summary.n, 'row')}. {rest}"
    return [head, *(f"  {line}" for line in [*run.batch.lines(), *_about_file(run, out)])]


def _about_file(run: Run, out: str | None) -> list[str]:
    """Why the file of `--out` was not written."""
    from holynb.events import Noted

    notes = (e for e in run.journal.events() if isinstance(e, Noted) and e.level == "warning")
    return [] if out is None else [e.text for e in notes if Path(out).name in e.text]


def _collected_elsewhere(name: str) -> list[str]:
    from holynb import runlog

    record, n = runlog.log().find(name), len(runlog.log().batches(name))
    word = (record and record.name) or name
    return [f"run {word}: another kernel collects its {'batch' if n == 1 else f'{n} batches'}. %infer show {word}"]
