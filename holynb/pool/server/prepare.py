"""The folder of a pool's weights, fetched or converted first where it is missing, in a process of its own. No torch here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from holynb.pool.models.weights import WeightsError, local_folder
from holynb.pool.server.config import PoolConfig
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.service import Service
from kernels_support.jupyter.limits import unlimited

__all__ = ["weights_folder"]


async def weights_folder(
    config: PoolConfig, service: Service, *, kept: bool = True, look: Callable[[Path], Awaitable[object]] | None = None
) -> Path:
    """The weights' folder; progress of a download or conversion is the service's stage. `kept`: see `local_folder`. Raises StartError.

    look: called before that with a folder of config.json alone, where it is to be had; raises StartError where the rest is not wanted.
    """
    try:
        folder = local_folder(config.model, config.home, kept=kept)
    except WeightsError as exc:
        raise StartError(str(exc)) from exc
    if folder is not None:
        return folder
    if look is not None:
        with tempfile.TemporaryDirectory(prefix="holynb-config-") as place:
            if (folder := await _made_ready(config, service, "--config", place)) is not None:
                await look(folder)
    folder = await _made_ready(config, service, *["--widened"] * (not kept))
    if folder is None:
        raise StartError(f"the weights of {config.model} could not be made ready (see the log)")
    return folder


async def _made_ready(config: PoolConfig, service: Service, *options: str) -> Path | None:
    """The folder that `holynb.pool.models.weights` names. Raises StartError."""
    command = [sys.executable, "-P", "-m", "holynb.pool.models.weights", config.model, "--home", str(config.home)]
    command += ["--tag", config.tag, "--parent", str(os.getpid()), *options]
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
    return None if message["folder"] is None else Path(message["folder"])
