"""The run log of HOLYNB_HOME: one handle per process, opened at its first use."""

from __future__ import annotations

import os
from pathlib import Path

from holynb.config import settings
from holynb.runlog.store import RunLog

__all__ = ["close", "log"]

_logs: dict[Path, RunLog] = {}

if hasattr(os, "register_at_fork"):
    # A forked process opens the log anew: its parent's thread is not there, and no connection of SQLite's may be carried over a fork.
    os.register_at_fork(after_in_child=_logs.clear)


def log() -> RunLog:
    """The run log of HOLYNB_HOME."""
    path = settings.home() / "runs.sqlite"
    if path not in _logs:
        _logs[path] = RunLog(path)
    return _logs[path]


def close() -> None:
    """Write what is queued and end the writers' threads."""
    for open_log in _logs.values():
        open_log.close()
    _logs.clear()
