"""Starts pools and plans them: runs `python -m holynb.pool.server` (or `.vllm`, `.advice`) as processes. Imports nothing of holynb.pool."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from holynb import typed_path
from holynb.errors import BadOption, BadRoute, closest
from holynb.pools import client, environment, logfiles, on_ray
from holynb.pools.client import Notice, explain_os_errors
from holynb.pools.info import PoolInfo, read_status
from holynb.pools.options import EMBEDDED, PoolOptions
from holynb.pools.vllm_env import python_with_vllm
from kernels_support.jupyter import rendezvous, shortage
from kernels_support.jupyter.files import private_folder
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Child, Command, spawn

__all__ = ["check_model", "plan", "recorded_model", "start"]

#: What the pool needs beyond holynb's own dependencies (the extra `local`).
_REQUIRED = ("torch", "tokenizers", "safetensors", "starlette", "uvicorn", "gguf")
#: Of these, what only the native engine needs.
_NATIVE_ONLY = ("torch", "safetensors", "gguf")

#: For a pool's files and the beginning of its logs.
_MIN_FREE_BYTES = 64 * 1024

#: Seconds without an answer after which a running pool is no longer waited for.
_SILENT_S = 20.0
#: The same before it can be found: a slow disk may take a minute to load it.
_UNSEEN_S = 120.0


@explain_os_errors()
def start(model: str = EMBEDDED, *, notice: Notice = lambda text: None, wait: bool = True, **options: Any) -> PoolInfo:
    """Start a pool (options: see PoolOptions) and return when it is ready; with `wait=False` once it can be found.

    Returns the pool that runs already, where it is the same. Raises BadOption, and BadRoute where it cannot start, with its last log line;
    what it had begun is ended then, also where the wait is interrupted.
    """
    wanted = PoolOptions.parse(model, options)
    record = client.find(wanted.pool_name, notice)
    if record is None:
        check_model(model)
        child = _launch(wanted)
        try:
            return _wait_started(wanted.pool_name, notice, until_ready=wait, began=child)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                notice(f"{wanted.pool_name}: interrupted while it started, so it is stopped")
            _end(wanted.pool_name, child)
            raise
    _check_same(record, wanted)
    return _wait_started(wanted.pool_name, notice, until_ready=wait)


def _check_same(record: Record, wanted: PoolOptions) -> None:
    """Raises BadOption where the pool that runs under this name has other options."""
    advice = f"Choose another --name, or: %infer pool stop {record.name}"
    if not _names(wanted.model, str(record.facts.get("model"))):
        raise BadOption(f"A pool named {record.name} is already running {record.facts.get('model')}. {advice}")
    if wanted.port is not None and (record.port is None or wanted.port not in (0, record.port)):
        actual = "no port" if record.port is None else f"port {record.port}"
        raise BadOption(f"The pool {record.name} is already running, with {actual}. {advice}")
    if (wanted.on is None) != (record.facts.get("on") is None):
        there = f"on {record.facts['on']}" if record.facts.get("on") else "on this machine alone"
        raise BadOption(f"The pool {record.name} is already running, {there}. {advice}")
    if wanted.engine != record.facts.get("engine", "native"):
        raise BadOption(f"The pool {record.name} is already running, with the engine {record.facts.get('engine', 'native')}. {advice}")
    actual_flags = {flag: record.facts.get(flag, 1) for flag in ("dp", "tp", "pp")}
    if actual_flags != {flag: getattr(wanted, flag) for flag in actual_flags}:
        raise BadOption(
            f"The pool {record.name} is already running, as {' '.join(f'--{flag} {n}' for flag, n in actual_flags.items())}. {advice}"
        )
    for flag, value in (
        ("dtype", wanted.dtype),
        ("kv", wanted.kv),
        ("max_len", wanted.max_len),
        ("devices", wanted.devices and wanted.on is None and wanted.device_list.split(",")),
    ):
        actual_value = record.facts.get(flag)
        if value not in (None, False) and value != actual_value:
            text = ", ".join(actual_value) if isinstance(actual_value, list) else actual_value or "the default"
            raise BadOption(f"The pool {record.name} is already running, but its --{flag.replace('_', '-')} is {text}. {advice}")


def _names(model: str, recorded: str) -> bool:
    """Whether a MODEL is the recorded one. Of a hub id the organisation may be left out: the pool adds it to names that are known."""
    wanted, (organisation, _, name) = recorded_model(model), recorded.partition("/")
    return wanted == recorded or ("/" not in wanted and organisation != "" and wanted.lower() == name.lower())


def plan(model: str = EMBEDDED, **options: Any) -> dict[str, Any]:
    """Which dp, tp, pp and dtype of MODEL (or of a size such as 70B) fit, best first; nothing is loaded or fetched.

    Options: gpus (`4x24GB`; else this machine's devices), devices, dp, tp, pp, dtype, kv, max_len, memory; with `on` also cpus and
    spread: what fits the cluster, which replica lies on which node, and what is left. Raises BadOption, BadRoute.
    """
    on = options.pop("on", None)
    bounds = isinstance(options.get("dp"), str)
    as_in_start = ("memory", "max_len", "cpus", "spread", *["dp"] * bounds)
    checked = {n: v for n, v in options.items() if n != "gpus" and (on or n in as_in_start)}
    wanted = PoolOptions.parse(model, {**checked, "on": on})
    module = "holynb.pool.advice"
    if wanted.on is not None:
        _check_installed(wanted)
        module, options["address"] = "holynb.pool.ray.advice", on_ray.address(wanted.on)
    argv = [sys.executable, "-P", "-m", module, recorded_model(model), "--home", str(client.home()), "--json"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        argv += [] if value is None else [flag] if value is True else [flag, str(value)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=120, env=environment.variables(model, on_ray=on is not None)
    )
    lines = done.stdout.strip().splitlines()
    result: dict[str, Any] = (
        json.loads(lines[-1]) if lines else {"error": (done.stderr.strip().splitlines() or ["the plan printed nothing"])[-1]}
    )
    if "error" in result:
        raise BadOption(str(result["error"]))
    # A path is said as it was typed; a known model that was named without its organisation comes back with it.
    return {
        **result,
        "model": result["model"].replace(recorded_model(model), model),
        "says": result["says"].replace(recorded_model(model), model),
    }


def _launch(wanted: PoolOptions) -> Child:
    """Start the server's process. Raises BadRoute where it cannot run here."""
    if not hasattr(socket, "AF_UNIX"):
        raise BadRoute(
            "The local pool needs Unix sockets, which this system's Python lacks. Hosted routes work; for pools on Windows use WSL."
        )
    _check_installed(wanted)
    home, on = client.home(), wanted.on is not None
    argv = on_ray.argv(wanted, recorded_model(wanted.model), home) if on else _argv(wanted, home)
    own = {on_ray.RUNTIME_ENV: wanted.runtime_env_json} if on else {}
    try:
        _check_disk(home / "run")
        command = Command(
            argv, env=own, inherits=environment.variables(wanted.model, on_ray=on), log=logfiles.create(home, wanted), cwd=home
        )
        child = spawn(command, bound=False)
    except OSError as exc:
        raise BadRoute(f"The pool {wanted.pool_name} cannot be started: {shortage.describe(exc)}") from exc
    client.children[child.pid] = child
    return child


def _check_installed(wanted: PoolOptions) -> None:
    """Raises BadRoute where this Python lacks what the pool needs."""
    on = wanted.on is not None
    needs = [name for name in _REQUIRED if name not in _NATIVE_ONLY or not (wanted.engine == "vllm" or on)] + ["ray"] * on
    if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
        what = "A pool on Ray" if on else "The local pool"
        other = "" if on else f". Or ask a provider: %%infer {_elsewhere()}"
        raise BadRoute(f"{what} needs {', '.join(missing)}: pip install 'holynb[local{',ray' if on else ''}]'{other}")


def _elsewhere() -> str:
    """A route that needs no pool: the one that the settings ask by default, where it is none."""
    from holynb.config import settings

    route = settings.route()
    return "openai/gpt-6-luna" if route.provider == "pool" else str(route)


def _argv(wanted: PoolOptions, home: Path) -> list[str]:
    """The command of a pool of this machine."""
    engine = ["holynb.pool.vllm", "--python", python_with_vllm(wanted.python)] if wanted.engine == "vllm" else ["holynb.pool.server"]
    argv = [sys.executable, "-P", "-m", *engine, "--tag", f"holynb-pool:{wanted.pool_name}", "--name", wanted.pool_name]
    argv += ["--model", recorded_model(wanted.model), "--home", str(home), "--devices", wanted.device_list, "--memory", str(wanted.memory)]
    argv += ["--idle", str(wanted.idle), "--tp", str(wanted.tp), "--pp", str(wanted.pp), "--restart", str(wanted.restart)]
    for flag, value in (
        ("--dtype", wanted.dtype),
        ("--kv", wanted.kv),
        ("--max-len", wanted.max_len),
        ("--port", wanted.port),
        ("--micro", wanted.micro_batches),
    ):
        argv += [] if value is None else [flag, str(value)]
    return argv


def _check_disk(folder: Path) -> None:
    """Raises OSError where the disk is full: the pool itself could not log it."""
    private_folder(folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_MIN_FREE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _wait_started(name: str, notice: Notice, *, until_ready: bool, began: Child | None = None) -> PoolInfo:
    """Wait until the pool is found, or ready. Raises BadRoute with its last log line where it ends instead.

    `began`: its process, where this start began it. A start that gives up ends it.
    """
    progress, run, started_at = "", client.home() / "run", time.monotonic()
    answered_at = started_at
    while True:
        # The process is checked before the record: a pool that starts and ends in between would be missed.
        # A pool of this name that began under another HOLYNB_HOME is another one.
        dead = not any(c.alive for c in list(client.children.values()) if {name, str(client.home())} <= set(c.command.argv))
        record = rendezvous.find(run, name)
        info = read_status(record) if record else None
        if info and (info.state == "ready" or not until_ready):
            return info
        if info is None and dead:
            client.reap()
            reason = logfiles.last_line(client.home(), name) or "it printed nothing"
            raise BadRoute(f"The pool {name} did not start: {reason} (%infer pool logs {name})")
        if info and info.stage and info.state == "starting" and info.progress != progress:
            progress = info.progress
            notice(progress)
        now = time.monotonic()
        if info is None or info.state != "silent":
            answered_at = now
        if now - answered_at > _SILENT_S or (info is None and now - started_at > _UNSEEN_S):
            if began is None:
                raise BadRoute(
                    f"The pool {name} runs{f' (process {info.pid})' if info else ''} but does not answer. End it: %infer pool stop {name}"
                )
            raise BadRoute(f"The pool {name} did not answer while it started, and was ended. Its log may say more: %infer pool logs {name}")
        time.sleep(0.05)


def _end(name: str, child: Child) -> None:
    """End a pool that this process began, however far it came; not another's of that name, which was there first."""
    try:
        record = rendezvous.find(client.home() / "run", name)
        if record is not None and record.process.pid == child.pid:
            with contextlib.suppress(BadRoute):  # it can be found no more
                client.stop(name)
        child.stop()
    finally:  # a second interrupt waits for nothing
        if child.alive:
            child.kill()
        client.reap()


def check_model(model: str) -> None:
    """Raises BadOption where this can only be the embedded model's name, mistyped: a hub id has a slash."""
    near = closest(model, [EMBEDDED])
    if near and model != EMBEDDED and not re.search(r"[/\\]", model) and not typed_path.is_there(typed_path.typed(model)):
        raise BadOption(f"{model} is no folder, no .gguf file and no hub id (org/name).{near}")


def recorded_model(model: str) -> str:
    """The MODEL as the pool records it: a path is made absolute, so that it means the same from every folder."""
    path = typed_path.typed(model)
    return str(path.resolve()) if typed_path.is_there(path) and model != EMBEDDED else model
