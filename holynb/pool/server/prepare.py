"""The folder of a pool's weights, fetched or converted where it is not there yet by a process of its own. No torch here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from holynb.pool.models.weights import WeightsError, ready
from holynb.pool.server.config import PoolConfig
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.service import Service

__all__ = ["weights_folder"]


async def weights_folder(plan: PoolConfig, service: Service) -> Path:
    """The weights' folder; fetched or converted by a process of its own, whose progress is passed on. Raises StartError."""
    try:
        found = ready(plan.model, plan.home)
    except WeightsError as exc:
        raise StartError(str(exc)) from exc
    if found is not None:
        return found
    command = [sys.executable, "-P", "-m", "holynb.pool.models.weights", plan.model, "--home", str(plan.home)]
    command += ["--tag", plan.tag, "--parent", str(os.getpid())]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    last: dict[str, Any] = {}
    try:
        assert child.stdout is not None  # noqa: S101 - it was asked for
        async for line in child.stdout:
            last = json.loads(line)
            if "stage" in last:
                service.at(last["stage"], last["share"])
        await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if "folder" not in last:
        raise StartError(last.get("error") or f"the weights of {plan.model} could not be made ready (see the log)")
    return Path(last["folder"])
