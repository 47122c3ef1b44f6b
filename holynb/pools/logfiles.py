"""What a pool has written, also one that runs no more: its logs, why it ended, how it was started. Knows files; no processes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from holynb.pools.options import EMBEDDED, PoolOptions
from kernels_support.jupyter.supervisor import tail

__all__ = ["begin", "command", "epitaph", "files", "last_words"]

#: How a log begins.
_STARTED = "started with: "


def files(home: Path, name: str) -> list[Path]:
    """The pool's log and its ranks'."""
    folder = home / "logs"
    return [p for p in [_log(home, name), *sorted(folder.glob(f"pool-{name}.rank*.log"))] if p.exists()]


def begin(home: Path, wish: PoolOptions) -> Path:
    """A new log in place of the last ones, with how the pool is started. Raises OSError."""
    for old in files(home, wish.called):
        old.unlink(missing_ok=True)
    log = _log(home, wish.called)
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{_STARTED}{wish.command}\n")
    return log


def last_words(home: Path, name: str) -> str:
    """The last line of a pool that did not start; empty where it wrote none."""
    lines = [line for line in tail(_log(home, name), 3) if not line.startswith(_STARTED)]
    return lines[-1].removeprefix("error: ").removeprefix(f"the pool {name} ends: ") if lines else ""


def epitaph(home: Path, name: str) -> str:
    """Why the pool of this name ended, in the words of its log; empty where it does not say."""
    marks = f"the pool {name} ends: "
    said = [line.partition(marks)[2] for line in tail(_log(home, name), 20) if marks in line]
    return said[-1].strip().rstrip(".") if said else ""


def command(home: Path, word: str) -> str:
    """What starts the pool of this name or model: as it was started last, where its log says so."""
    for name in (word, PoolOptions(word).called):
        try:
            with _log(home, name).open(encoding="utf-8", errors="replace") as file:
                first = file.readline().strip()
        except OSError:
            continue
        if first.startswith(_STARTED) and (name == word or word in shlex.split(first)):
            return first.removeprefix(_STARTED)
    # A name alone says nothing of the model.
    return (
        PoolOptions(word).command if word == EMBEDDED or "/" in word or word.endswith(".gguf") else f"%infer pool start MODEL --name {word}"
    )


def _log(home: Path, name: str) -> Path:
    return home / "logs" / f"pool-{name.replace('/', '_')}.log"
