"""The runs of this session: the last one, one by name; at the end of the program those that go on are stopped."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import NoReturn, Protocol, Self

from holynb import runlog
from holynb.errors import Fault, HolynbError, UserError
from holynb.journal import Journal
from holynb.results import Summary
from holynb.run.plan import Plan
from holynb.types import Outcome, Prompt, Route
from holynb.words import counted

__all__ = ["InProcess", "SessionRun", "ending", "find", "last", "reason", "remember", "runs", "stop_all"]

#: Longest wait at the end of a program for the runs that it leaves, seconds. A kernel that shuts down is given five.
EXIT_WAIT_S = 4.5


#: Why a run cannot begin, or broke off, where Python has begun to end.
ENDING = "The program is ending, so no new run can start. Call infer earlier, and run.wait() for the answers."


class SessionRun(Protocol):
    """What the session, and whoever lists it, reads of a `run.Run`."""

    plan: Plan
    name: str | None
    id: str
    n: int
    started: float
    stopped: bool
    journal: Journal

    @property
    def prompts(self) -> Sequence[Prompt]: ...
    @property
    def route(self) -> Route: ...
    @property
    def done(self) -> bool: ...
    @property
    def elapsed(self) -> float: ...
    def rows(self) -> Sequence[Outcome | None]: ...
    def summary(self) -> Summary: ...
    def cancel(self) -> None: ...
    def release(self) -> None: ...
    def leave(self) -> None: ...
    def wait(self, timeout: float | None = None) -> object: ...


class InProcess:
    """What goes on in its process: a copy of it is itself, and it is not pickled."""

    name: str | None
    id: str
    _future: Future[None] | None = None

    def leave(self) -> None:
        """End the wait for a run of the process that this one was forked from: it goes on there, and this one has no part in it."""
        self._future = Future()
        self._future.set_exception(
            HolynbError(f"Run {self.name or self.id} belongs to the process that this one was forked from, and continues there.")
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Run cannot be pickled, as it lives in its process. Take its answers: run.frame(), run.rows() or run.summary().")


_session: deque[SessionRun] = deque(maxlen=50)


def remember(run: SessionRun) -> None:
    """Add a run to the session's. From the first one on, a program that ends leaves none of them half written.

    Raises UserError where the program is ending: Python starts no more threads then, and the run would hang or break off.
    """
    if _is_ending():
        raise UserError(ENDING)
    atexit.unregister(stop_all)
    atexit.register(stop_all)
    _session.append(run)


def reason(failure: Exception) -> Exception:
    """Why a run broke off: Python's own error for work that it refuses at its end says nothing about what to do."""
    refused = isinstance(failure, RuntimeError) and "shutdown" in str(failure)
    return UserError(ENDING) if refused or (isinstance(failure, RuntimeError | CancelledError) and _is_ending()) else failure


def ending(error: Exception | None) -> Outcome:
    """How a row ends that the run left without an end."""
    if error is None:
        return Outcome("cancelled")
    kind = error.kind if isinstance(error, Fault) else "bad_request" if isinstance(error, HolynbError) else "internal"
    return Outcome("error", error_type=kind, error=str(error))


def _is_ending() -> bool:
    return sys.is_finalizing() or not threading.main_thread().is_alive()


def _leave_all() -> None:
    """In a process that was forked: the runs that go on are its parent's. A worker that ends must neither stop them nor wait for them."""
    atexit.unregister(stop_all)
    for run in list(_session):
        if not run.done:
            run.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def stop_all() -> None:
    """At exit, stop the runs that go on: answers in flight have a few seconds to end. Prints a line for each run on stderr.

    What is in a batch goes on at its provider.
    """
    going = [run for run in list(_session) if not run.done]
    for run in going:
        run.release()
    for run in going:
        try:
            run.wait(EXIT_WAIT_S)
        except (Exception, KeyboardInterrupt):  # noqa: BLE001 - how it ended is in the log; a second Ctrl-C ends it at once
            run.cancel()
        summary, name = run.summary(), run.name or run.id
        answered = f"{summary.ok:,} of {counted(summary.n, 'row')} answered"
        advice = f' run.wait() waits for the rest; resume="{name}" sends it.' if summary.ok else " run.wait() waits for them."
        if run.plan.options.batch and not run.stopped:
            rows = counted(summary.n - summary.running, "row")
            print(f'holynb: {name} goes on by batch: {rows} of {summary.n:,} ended. resume="{name}" collects the rest.', file=sys.stderr)
            continue
        print(f"holynb: the program ended during {name}, so it was stopped, with {answered}.{advice}", file=sys.stderr)
    runlog.close()


def runs() -> list[SessionRun]:
    """The session's runs, oldest first (the last 50)."""
    return list(_session)


def last() -> SessionRun | None:
    """The session's last run."""
    return _session[-1] if _session else None


def find(name: str) -> SessionRun | None:
    """The session's newest run of this name or id."""
    return next((r for r in reversed(_session) if name in (r.name, r.id)), None)
