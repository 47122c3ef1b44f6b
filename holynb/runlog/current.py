"""The run log of HOLYNB_HOME: one handle a process, opened when it is first asked for."""

from __future__ import annotations

from pathlib import Path

from holynb.config import settings
from holynb.runlog.store import RunLog

__all__ = ["close", "log"]

_logs: dict[Path, RunLog] = {}


def log() -> RunLog:
    """The run log of HOLYNB_HOME."""
    path = settings.home() / "runs.sqlite"
    if path not in _logs:
        _logs[path] = RunLog(path)
    return _logs[path]


def close() -> None:
    """Write what is queued and end the writers' threads."""
    for each in _logs.values():
        each.close()
    _logs.clear()
