"""Python, the folder of settings and results, the settings and the run log."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator

from holynb import units
from holynb.doctor.check import Check
from holynb.words import counted

__all__ = ["MIN_DISK_MB", "home", "python", "run_log", "settings"]

#: What the embedded model needs on disk until it is converted.
MIN_DISK_MB = 700


def python() -> Iterator[Check]:
    supported = sys.version_info >= (3, 11)
    cure = "" if supported else "python3.11 -m venv .venv && .venv/bin/pip install 'holynb[lab,local]'"
    yield Check(
        "Python", "works" if supported else "broken", f"{platform.python_version()} on {platform.system()} {platform.machine()}", cure
    )


def home() -> Iterator[Check]:
    from holynb.config import settings as kept

    home = kept.home()
    free = shutil.disk_usage(home).free
    if not os.access(home, os.W_OK):
        yield Check("home", "broken", f"{home} cannot be written", "export HOLYNB_HOME=/another/folder")
    elif free < MIN_DISK_MB * 1e6:
        says = f"{home}: {units.memory(free)} free, but the embedded model needs {units.memory(MIN_DISK_MB * 1e6)}"
        yield Check("home", "broken", says, "export HOLYNB_HOME=/a/folder/on/a/larger/disk")
    else:
        yield Check("home", "works", f"{home} ({units.memory(free)} free)")


def settings() -> Iterator[Check]:
    from holynb.config import settings as kept

    kept.current()
    files = ", ".join(str(p) for p in kept.config_paths()) or "no file; defaults apply"
    yield Check("settings", "works", f"{files}. A cell without a route goes to {kept.route()}")


def run_log() -> Iterator[Check]:
    from holynb.config import settings as kept

    path = kept.home() / "runs.sqlite"
    if not path.exists():
        yield Check("run log", "works", "none yet; the first run creates it")
        return
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            (runs,) = db.execute("SELECT count(*) FROM runs").fetchone()
        finally:
            db.close()
    except sqlite3.Error as exc:
        yield Check("run log", "broken", f"{path}: {exc}", f"mv {path} {path}.broken")
        return
    yield Check("run log", "works", f"{counted(runs, 'run')}, {units.memory(path.stat().st_size)}")
