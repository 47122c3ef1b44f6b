"""A pool's logs, also after its end: their files, why it ended, how it was started. Knows files; no processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from pathlib import Path

from holynb.pools.options import EMBEDDED, PoolOptions
from holynb.words import composed
from kernels_support.jupyter.files import private_folder
from kernels_support.jupyter.supervisor import tail

__all__ = ["ENDED_ON_REQUEST", "add_end", "create", "end_reason", "files", "last_line", "path", "start_command", "started"]

#: In the reason of a pool that was stopped. Such a pool starts again only where somebody asks for it.
ENDED_ON_REQUEST = "told to end"

#: The first line of a log: this, and the start command.
_START_LINE = "started with: "


def files(home: Path, name: str) -> list[Path]:
    """The pool's log and its ranks'."""
    folder = home / "logs"
    return [p for p in [path(home, name), *sorted(folder.glob(f"pool-{name}.rank*.log"))] if p.exists()]


def create(home: Path, options: PoolOptions) -> Path:
    """Replace the pool's old logs by a new one that has the start command. Raises OSError."""
    for old in files(home, options.pool_name):
        old.unlink(missing_ok=True)
    log = path(home, options.pool_name)
    private_folder(log.parent)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{_START_LINE}{options.start_command}\n")
    return log


def last_line(home: Path, name: str) -> str:
    """The last line of a pool that did not start; empty where it wrote none."""
    lines = [line for line in tail(path(home, name), 3) if not line.startswith(_START_LINE)]
    return lines[-1].removeprefix("error: ").removeprefix(f"the pool {name} ends: ") if lines else ""


def end_reason(home: Path, name: str) -> str:
    """Why the pool of this name ended, from its log; empty where the log does not tell."""
    prefix = f"the pool {name} ends: "
    reasons = [line.partition(prefix)[2] for line in tail(path(home, name), 20) if prefix in line]
    return reasons[-1].strip().rstrip(".") if reasons else ""


def add_end(home: Path, name: str, why: str) -> None:
    """Add why the pool ended to its log, on behalf of a server that was killed before it could. Does nothing where it has no log."""
    with contextlib.suppress(OSError), os.fdopen(os.open(path(home, name), os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8") as file:
        file.write(f"the pool {name} ends: {why}\n")


def start_command(home: Path, name_or_model: str) -> str:
    """The line that starts the pool of this name or model: that of its last start, where a log has it."""
    for name in (name_or_model, PoolOptions(name_or_model).pool_name):
        try:
            with path(home, name).open(encoding="utf-8", errors="replace") as file:
                first = file.readline().strip()
        except OSError:
            continue
        if first.startswith(_START_LINE) and (name == name_or_model or name_or_model in shlex.split(first)):
            return first.removeprefix(_START_LINE)
    # A name alone does not give the model.
    is_model = name_or_model == EMBEDDED or "/" in name_or_model or name_or_model.endswith(".gguf")
    return PoolOptions(name_or_model).start_command if is_model else f"%infer pool start MODEL --name {name_or_model}"


def started(home: Path, name: str) -> dict[str, str]:
    """Model, dtype and kv of the last start of the pool of this name, as far as they were given; empty where no log has it."""
    command = start_command(home, name)
    try:
        words = shlex.split(command)[3:] if "MODEL" not in command else []
    except ValueError:  # a log that was written to by others
        return {}
    flags = {flag.removeprefix("--"): value for flag, value in itertools.pairwise(words) if flag in ("--dtype", "--kv")}
    return {"model": words[0], **flags} if words else {}


def path(home: Path, name: str) -> Path:
    """The pool's own log."""
    return home / "logs" / f"pool-{composed(name).replace('/', '_')}.log"
