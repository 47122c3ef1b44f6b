"""The one thread that writes the run log: takes statements from any thread, commits them in groups, calls back when they are on disk.

A group is what arrived while the last one was being committed: a single row does not wait, and a thousand share a commit. What cannot be
written now is kept, up to a bound, and tried again; a file that was deleted or replaced is begun anew. Knows nothing of runs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from holynb.runlog import gate
from holynb.runlog.logfile import BUSY_S, LogFile, is_file_trouble, is_locked
from holynb.runlog.replay import Written
from holynb.runlog.statements import Statement

__all__ = ["LogWriter"]

MAX_STATEMENTS_PER_COMMIT = 512
#: How long a group is held open for what follows a statement that `leads`: it comes in the same turn of its loop.
FOLLOWS_S = 0.02
#: Longest wait for another process that writes; after that rows no longer wait for the disk.
PATIENCE_S = 10.0
#: How long a try waits that follows one that failed, and the pauses between tries.
RETRY_BUSY_S, FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 0.25, 5.0
#: How often it is looked whether the file is still the one at its path, and whenever a run ends: what a run has written is kept until
#: then, so it is found missing in time. A look costs as much as some rows.
LOOK_AGAIN_S = 0.05
#: What is kept while the log cannot be written.
MAX_KEPT_BYTES = 64 * 2**20

#: What may come over a log, and why: `trouble` (it cannot be written now), `written` (it is again), `full` (no more is kept), `replaced`.
Tell = Callable[[str, Exception | None], None]


class LogWriter:
    """Owner of the thread, which starts at the first `put`; `close` writes what is left and ends it. `tell` is called on that thread.

    `failure`: why the log cannot be written now; None where it can.
    """

    def __init__(self, path: Path, schema: str, tell: Tell = lambda what, why: None) -> None:
        self.path = path
        self.failure: Exception | None = None
        self._schema = schema
        self._tell = tell
        self._incoming: queue.SimpleQueue[Statement | float] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, sql: str, rows: Sequence[Sequence[Any]], on_done: Callable[[Exception | None], None] | None = None) -> None:
        """Queue a statement for every row of `rows`."""
        self.add(Statement(sql, rows, on_done))

    def add(self, statement: Statement) -> None:
        """Queue a statement."""
        with self._lock:
            if self._thread is None:
                self._incoming = queue.SimpleQueue()
                self._thread = threading.Thread(target=self._run, args=(self._incoming,), name="holynb-log", daemon=True)
                self._thread.start()
            self._incoming.put(statement)

    def close(self, timeout: float = BUSY_S) -> None:
        """Write what is queued, with `timeout` for a log that is locked, and end the thread. Idempotent; a later `put` starts one."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._incoming.put(time.monotonic() + timeout)
        if thread is not None:
            thread.join(timeout + PATIENCE_S + 1.0)

    def _run(self, incoming: queue.SimpleQueue[Statement | float]) -> None:
        # Held by this thread's frame alone: in a forked process it is left as it is, neither used nor closed.
        _Writing(self, incoming, LogFile(self.path, self._schema), self._tell).serve()


class _Writing:
    """What the thread knows. `waiting`: what is to be written, in order; `unanswered`: written, and whoever waits not yet told."""

    def __init__(self, writer: LogWriter, incoming: queue.SimpleQueue[Statement | float], file: LogFile, tell: Tell) -> None:
        self._writer, self._incoming, self._file, self._tell = writer, incoming, file, tell
        self._written = Written(writer.path.parent)
        self._waiting: deque[Statement] = deque()
        self._unanswered: list[Statement] = []
        self._kept_bytes = 0
        self._opened = self._reported = False
        self._next_try = self._pause = 0.0
        self._looked_at = float("-inf")
        self._ends_at: float | None = None
        self._ended = False

    def serve(self) -> None:
        """Write until told to end, and then what can be written."""
        while not self._is_over():
            self._take()
            if self._has_work and time.monotonic() >= self._next_try:
                with gate.inside():
                    self._try()
            if self._ended and not self._has_work and self._incoming.empty():
                with gate.inside():
                    self._file.checkpoint()
                self._ended = False
        for statement in self._waiting:
            statement.done(self._writer.failure)
        with gate.inside():
            self._file.close()

    @property
    def _has_work(self) -> bool:
        return bool(self._waiting or self._unanswered)

    def _is_over(self) -> bool:
        if self._ends_at is None:
            return False
        failure = self._writer.failure
        return not self._has_work or (failure is not None and (not is_locked(failure) or time.monotonic() > self._ends_at))

    # -- what comes ------------------------------------------------------------------------------------------------
    def _take(self) -> None:
        """Wait until something is to be done, and take what has come."""
        now = time.monotonic()
        wait = max(0.0, self._next_try - now) if self._has_work else None
        if self._ends_at is not None:  # nothing comes any more
            time.sleep(max(0.0, min(wait or 0.0, self._ends_at - now)))
            return
        while self._writer.failure is not None or len(self._waiting) < MAX_STATEMENTS_PER_COMMIT or wait == FOLLOWS_S:
            try:
                item = self._incoming.get() if wait is None else self._incoming.get(timeout=wait) if wait else self._incoming.get_nowait()
            except queue.Empty:
                return
            wait = FOLLOWS_S if isinstance(item, Statement) and item.leads else 0.0
            if isinstance(item, float):
                self._ends_at, self._next_try = item, 0.0
                if self._has_work:
                    self._writer.failure = None  # one more try
                return
            self._accept(item)

    def _accept(self, statement: Statement) -> None:
        if statement.replay:
            self._written.add([statement])
            return
        self._waiting.append(statement)
        if self._writer.failure is not None:
            if statement.durable or statement.eager:
                self._next_try = 0.0
            if not statement.durable:
                self._keep(statement)
            self._reported = self._reported and not statement.eager

    def _keep(self, statement: Statement) -> None:
        """Keep what cannot be written now, and let whoever waits for it go on; past the bound it is dropped, and said."""
        failure = self._writer.failure
        if statement.durable:
            if failure is not None and (not is_locked(failure) or time.monotonic() > statement.deadline):
                statement.done(failure)
            return
        self._kept_bytes += statement.size
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._waiting.remove(statement)
            self._tell("full", failure)
        statement.done(None)

    # -- what goes -------------------------------------------------------------------------------------------------
    def _try(self) -> None:
        """Write all that waits, or find out why it cannot be."""
        failure: Exception | None = None
        known = self._writer.failure
        busy_s = PATIENCE_S if known is None and self._ends_at is None else RETRY_BUSY_S
        try:
            if known is not None or self._look_is_due:
                self._renew(busy_s)
                self._answer()
            while self._waiting:
                group = self._group()
                self._commit(group)
                if self._look_is_due or any(s.last or s.durable for s in group):
                    self._renew(busy_s)  # replaced just now: what was written lies in a file that is gone
                self._answer()
        except Exception as exc:  # noqa: BLE001 - a thread that ends here would leave every row waiting for ever
            failure = exc
        self._writer.failure = failure
        if failure is None:
            self._next_try = self._pause = self._kept_bytes = 0
            return
        if not is_locked(failure):
            self._file.close_in_trouble(failure)
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_S), LAST_PAUSE_S)
        self._next_try = time.monotonic() + self._pause
        if not self._reported:
            self._reported = True
            self._tell("trouble", failure)
        for statement in [s for s in self._waiting if known is None or s.durable]:
            self._keep(statement)
        for statement in self._unanswered:  # they are written again with the rest of their run
            if not statement.durable:
                statement.done(None)

    @property
    def _look_is_due(self) -> bool:
        return time.monotonic() - self._looked_at > LOOK_AGAIN_S

    def _renew(self, busy_s: float) -> None:
        """Open the file where it is not open, or another one lies at its path by now; write into it again what it lacks."""
        gone = self._file.is_open and not self._file.is_current()
        if gone:
            self._file.close()
        if not self._file.is_open:
            self._file.open(busy_s)
            try:
                lacked = self._file.transaction(self._written.restore)
            except BaseException:
                self._file.close()
                raise
            if lacked and self._opened and (self._file.replaced or not gone):
                self._tell("replaced", None)
            self._file.replaced, self._opened = False, True
        self._file.wait_for_others(busy_s)
        self._looked_at = time.monotonic()

    def _group(self) -> list[Statement]:
        """What is committed next: as many as go together, and what follows the last of them where that one leads."""
        end = MAX_STATEMENTS_PER_COMMIT
        while end < len(self._waiting) and self._waiting[end - 1].leads:
            end += 1
        return list(islice(self._waiting, end))

    def _commit(self, group: list[Statement]) -> None:
        """Write a group, without the statements that are themselves at fault."""
        try:
            self._file.commit(group)
        except Exception as exc:
            if is_file_trouble(exc):
                raise
            if len(group) > 1:
                for statement in group:
                    self._commit([statement])
            else:
                self._waiting.popleft().done(exc)
            return
        for _ in group:
            self._waiting.popleft()
        self._written.add(group)
        self._unanswered += group

    def _answer(self) -> None:
        """Tell whoever waits for what is on disk; first, that nothing waits any more: a run that has ended listens no longer."""
        if self._reported and not self._waiting:
            self._reported = False
            self._tell("written", None)
        done, self._unanswered = self._unanswered, []
        for statement in done:
            statement.done(None)
        self._written.end(done)
        self._ended = self._ended or any(s.last for s in done)
