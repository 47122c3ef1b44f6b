"""Running pools: find, list, status, stop, logs. Imports nothing of holynb.pool.

A pool is a process of its own (`python -m holynb.pool.server`) that outlives this one. All that is shared is its rendezvous
file in HOLYNB_HOME/run; its status comes from `/health` over its private socket.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from holynb.errors import BadRoute, closest
from holynb.events import Gauge
from holynb.pools import logfiles, on_ray
from holynb.pools.info import PoolInfo, rank_logs, read_status
from holynb.pools.options import EMBEDDED
from holynb.words import composed
from kernels_support.jupyter import rendezvous, shortage, socketdir
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Child, tail

__all__ = ["end_reason", "find", "find_status", "gauges", "listing", "logs", "not_running", "start_command", "status", "stop"]

Notice = Callable[[str], None]

children: dict[int, Child] = {}
"""Pools that this process started, by process id, so that their zombies are reaped. Written by `launch.start` and `reap`."""


#: Held while pools are looked up: one that is gone is looked for once.
_finding = threading.Lock()

#: How long a pool may take to end: one on Ray gives its places back first.
_GRACE_S, _RAY_GRACE_S = 8.0, 40.0


@contextlib.contextmanager
def explain_os_errors() -> Iterator[None]:
    """Turns OSError into a BadRoute with advice."""
    try:
        yield
    except OSError as exc:
        raise BadRoute(f"Pools cannot be read or changed now: {shortage.describe(exc)}") from exc


@explain_os_errors()
def listing(notice: Notice = lambda text: None) -> list[PoolInfo]:
    """All pools, by name. Removes stale records, and reports that to `notice`."""
    reap()
    socketdir.sweep()
    records = _records(notice)
    return [read_status(r) for r in records]


@explain_os_errors()
def find(name_or_model: str, notice: Notice = lambda text: None) -> Record | None:
    """The running pool of this name or model on this machine; None where there is none."""
    reap()
    name_or_model = composed(name_or_model)
    records = _records(notice)
    local = [r for r in records if r.here]
    return next((r for r in local if r.name == name_or_model), None) or next(
        (r for r in local if composed(str(r.facts.get("model"))) == name_or_model), None
    )


def _records(notice: Notice) -> list[Record]:
    """The live records. A pool on Ray lives on where its process on this machine was killed: it is found again."""
    with _finding:  # who comes while it is looked for waits, and does not take it for gone
        gone: list[Record] = []
        records, notes = rendezvous.listing(home() / "run", gone.append)
        for record in gone:
            if record.here and record.facts.get("on") and (child := on_ray.find_again(record, home())) is not None:
                children[child.pid] = child
                notes = [n for n in notes if not n.startswith(f"{record.name} (")]
                records = rendezvous.listing(home() / "run")[0]
    for note in notes:
        notice(note)
    return records


def status(name: str) -> PoolInfo:
    """One pool. Raises BadRoute where it does not run."""
    return read_status(_require(name))


@explain_os_errors()
def stop(name: str) -> list[str]:
    """Stop a pool, or `all`; returns the names stopped, once their processes, sockets and files are gone. Raises BadRoute."""
    run = home() / "run"
    records = [r for r in rendezvous.listing(run)[0] if r.here] if name == "all" else [_require(name, wanted=False)]
    for record in records:
        ranks = (rendezvous.find(run, record.name) or record).ranks
        record.process.stop(grace=_RAY_GRACE_S if record.facts.get("on") else _GRACE_S)
        for rank in ranks:
            rank.signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
        for rank in ranks:
            rank.wait(5.0)
        rendezvous.listing(run)  # removes what a killed server left
        if logfiles.ENDED_ON_REQUEST not in logfiles.end_reason(home(), record.name):
            logfiles.add_end(home(), record.name, f"it was {logfiles.ENDED_ON_REQUEST}, and killed because it did not")
    reap()
    return [r.name for r in records]


def logs(name: str, n: int = 50) -> list[str]:
    """The last `n` lines of the logs of the pool and its ranks, also after its end. Raises BadRoute where there is no log."""
    record = find(name)
    if record is not None and record.facts.get("on"):
        own = [f"== {logfiles.path(home(), record.name).name}", *tail(logfiles.path(home(), record.name), n)]
        return own + [line for head, lines in rank_logs(record, n) for line in (f"== {head}", *lines)]
    files = logfiles.files(home(), record.name if record else name)
    if not files:
        raise BadRoute(f"There is no log of a pool named {name}. %infer pool list shows the running ones.")
    lines: list[str] = []
    for file in files:
        lines += [f"== {file.name}", *tail(file, n)]
    return lines


def end_reason(name: str) -> str:
    """Why the pool of this name ended, from its log; empty where the log does not tell."""
    return logfiles.end_reason(home(), name)


def start_command(name_or_model: str) -> str:
    """The line that starts the pool of this name or model, with the options of its last start where the log has them."""
    return logfiles.start_command(home(), name_or_model)


def gauges(name: str) -> tuple[Gauge, ...]:
    """Current memory of the pool's devices. Empty where it does not run or does not report it."""
    info = find_status(name)
    return info.memory if info else ()


def find_status(name: str) -> PoolInfo | None:
    """The current status of a pool; None where it does not run."""
    record = find(name)
    return read_status(record) if record else None


def _require(name: str, *, wanted: bool = True) -> Record:
    """The running pool. Raises BadRoute with the command that starts it, or without `wanted`, with the pools that run."""
    record = find(name)
    if record is not None:
        return record
    records = rendezvous.listing(home() / "run")[0]
    if (remote := next((r for r in records if r.name == name and not r.here), None)) is not None:
        machine = f"the machine {remote.host}, which shares this home folder"
        raise BadRoute(f"pool/{name} is of {machine}: go there. If that machine is gone, remove the pool's file in {home() / 'run'}.")
    running = [r.name for r in records if r.here]
    others = f"Running: {', '.join(f'pool/{n}' for n in running)}." if running else "No pool is running."
    advice = f"Start it: {start_command(name)}" if wanted else others
    raise BadRoute(f"There is no running pool {name!r}.{closest(name, running)} {advice}")


def not_running(name: str) -> str:
    """The message that no such pool runs, with a suggestion where a pool or model has a similar name."""
    near = closest(name, {EMBEDDED: None, **{word: None for p in listing() for word in (p.name, p.model)}})
    near, start = (near.replace("mean ", "mean pool/"), "If not, start") if near else ("", "Start")
    return f"pool/{name} is not running.{near} {start} it: {start_command(name)}"


def reap() -> None:
    """Reap the pools that this process started and that have ended."""
    for pid, child in list(children.items()):
        if not child.alive:
            children.pop(pid, None)  # two threads may reap at once


def home() -> Path:
    from holynb.config import settings

    return settings.home().resolve()
