"""What a test may have left running: pools, which outlive whoever started them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def end_pools(place: Path) -> list[int]:
    """End the pool processes whose home lies under `place`. Returns their ids.

    Every process of the machine is looked at, thousands of times in a suite: not where nothing was written that a pool writes first.
    """
    if not any({"run", "logs"} & set(folders) for _, folders, _ in os.walk(place)):
        return []
    processes = [p for p in psutil.process_iter() if of_ours(p, place)]
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=10)
    for process in alive:
        process.kill()
    return [p.pid for p in processes]


def of_ours(process: psutil.Process, place: Path) -> bool:
    try:
        return any("holynb-pool" in part for part in process.cmdline()) and process.environ().get("HOLYNB_HOME", "").startswith(str(place))
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
