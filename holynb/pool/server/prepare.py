"""The folder of a pool's weights, fetched or converted first where it is missing, in a process of its own. No torch here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from holynb.pool.models.weights import WeightsError, local_folder
from holynb.pool.server.config import PoolConfig
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.service import Service
from kernels_support.jupyter.limits import unlimited

__all__ = ["weights_folder"]


async def weights_folder(config: PoolConfig, service: Service, *, kept: bool = True) -> Path:
    """The weights' folder; progress of a download or conversion is the service's stage. `kept`: see `local_folder`. Raises StartError."""
    try:
        folder = local_folder(config.model, config.home, kept=kept)
    except WeightsError as exc:
        raise StartError(str(exc)) from exc
    if folder is not None:
        return folder
    command = [sys.executable, "-P", "-m", "holynb.pool.models.weights", config.model, "--home", str(config.home)]
    command += ["--tag", config.tag, "--parent", str(os.getpid()), *["--widened"] * (not kept)]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    unlimited(child.pid)
    message: dict[str, Any] = {}
    try:
        assert child.stdout is not None  # noqa: S101 - stdout=PIPE
        async for line in child.stdout:
            message = json.loads(line)
            if "stage" in message:
                service.set_stage(message["stage"], message["share"])
        await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if "folder" not in message:
        raise StartError(message.get("error") or f"the weights of {config.model} could not be made ready (see the log)")
    return Path(message["folder"])
