"""Local pools as the magic, the command line and the engine see them: plan, start, list, status, stop, logs. No torch; imports nothing of holynb.pool.

A pool is a process of its own (`python -m holynb.pool.server`) that outlives this one. All that is shared is its rendezvous
file in HOLYNB_HOME/run; what it says of itself comes from `/health` over its private socket.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holynb.errors import BadOption, BadRoute, closest
from holynb.pools import logfiles
from holynb.pools.info import PoolInfo, look
from holynb.pools.options import EMBEDDED, PoolOptions
from holynb.pools.vllm_env import python_with_vllm
from holynb.types import Gauge
from kernels_support.jupyter import rendezvous, shortage, socketdir
from kernels_support.jupyter.rendezvous import Record
from kernels_support.jupyter.supervisor import Child, Command, spawn, tail

__all__ = [
    "EMBEDDED",
    "PoolInfo",
    "PoolOptions",
    "command",
    "epitaph",
    "find",
    "gauges",
    "glance",
    "listing",
    "logs",
    "plan",
    "start",
    "status",
    "stop",
]

#: What the pool needs beyond holynb's own dependencies (the extra `local`).
_NEEDS = ("torch", "tokenizers", "safetensors", "starlette", "uvicorn", "gguf")
#: Of these, what a pool does without whose model runs in another environment.
_NATIVE = ("torch", "safetensors", "gguf")

#: Bytes that a pool needs for its files and a beginning of its logs.
_ROOM = 64 * 1024

#: Seconds after which a pool that runs and does not answer is not waited for any longer.
_SILENT_S = 20.0

Notice = Callable[[str], None]

_children: dict[int, Child] = {}
"""Pools that this process started, so that the system can bury them while it lives. Written by `start` and `_reap`."""


@contextlib.contextmanager
def _clearly() -> Iterator[None]:
    """What the system denies, as one line that says what to do."""
    try:
        yield
    except OSError as exc:
        raise BadRoute(f"The pools cannot be looked at or changed now: {shortage.describe(exc)}") from exc


@_clearly()
def start(model: str = EMBEDDED, *, notice: Notice = lambda text: None, wait: bool = True, **said: Any) -> PoolInfo:
    """Start a pool (options: see PoolOptions) and return when it is ready; with `wait=False` once it can be found.

    The same pool again is found, not started twice. Raises BadOption, and BadRoute where it cannot start, with its own last words.
    """
    wish = PoolOptions.of(model, said)
    record = find(wish.called, notice)
    if record is None:
        _launch(wish)
    else:
        _same(record, wish)
    return _await(wish.called, notice, until_ready=wait)


def _same(record: Record, wish: PoolOptions) -> None:
    """Raises BadOption where the pool that runs under this name is not what is wished for."""
    other = f"Choose another --name, or: %infer pool stop {record.name}"
    if record.facts.get("model") != _word(wish.model):
        raise BadOption(f"A pool named {record.name} already runs {record.facts.get('model')}. {other}")
    if wish.port is not None and (record.port is None or wish.port not in (0, record.port)):
        has = "no port" if record.port is None else f"port {record.port}"
        raise BadOption(f"The pool {record.name} already runs, with {has}. {other}")
    if wish.engine != record.facts.get("engine", "native"):
        raise BadOption(f"The pool {record.name} already runs, by the engine {record.facts.get('engine', 'native')}. {other}")
    runs = {flag: record.facts.get(flag, 1) for flag in ("dp", "tp", "pp")}
    if runs != {flag: getattr(wish, flag) for flag in runs}:
        raise BadOption(f"The pool {record.name} already runs, as {' '.join(f'--{flag} {n}' for flag, n in runs.items())}. {other}")
    for flag, wanted in (("dtype", wish.dtype), ("max_len", wish.max_len), ("devices", wish.devices and wish.places.split(","))):
        now = record.facts.get(flag)
        if wanted is not None and wanted != now:
            says = ", ".join(now) if isinstance(now, list) else now or "the default"
            raise BadOption(f"The pool {record.name} already runs, and its --{flag.replace('_', '-')} is {says}. {other}")


@_clearly()
def listing(notice: Notice = lambda text: None) -> list[PoolInfo]:
    """All pools, by name. Stale ones are cleaned away, which `notice` hears."""
    _reap()
    socketdir.sweep()
    records, notes = rendezvous.listing(_home() / "run")
    for note in notes:
        notice(note)
    return [look(r) for r in records]


@_clearly()
def find(word: str, notice: Notice = lambda text: None) -> Record | None:
    """The running pool of this name or model on this machine; None where there is none."""
    _reap()
    records, notes = rendezvous.listing(_home() / "run")
    for note in notes:
        notice(note)
    here = [r for r in records if r.here]
    return next((r for r in here if r.name == word), None) or next((r for r in here if r.facts.get("model") == word), None)


def status(name: str) -> PoolInfo:
    """One pool. Raises BadRoute where it does not run."""
    return look(_found(name))


@_clearly()
def stop(name: str) -> list[str]:
    """Stop a pool, or `all`; returns when its processes, socket and files are gone. The names stopped. Raises BadRoute."""
    run = _home() / "run"
    records = [r for r in rendezvous.listing(run)[0] if r.here] if name == "all" else [_found(name, wanted=False)]
    for record in records:
        ranks = (rendezvous.find(run, record.name) or record).ranks
        record.process.stop(grace=8.0)
        for rank in ranks:
            rank.signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)
        for rank in ranks:
            rank.wait(5.0)
        rendezvous.listing(run)  # cleans what a killed one left
    _reap()
    return [r.name for r in records]


def logs(name: str, n: int = 50) -> list[str]:
    """The last lines that the pool and its ranks wrote; also of one that has ended. Raises BadRoute where there is no log."""
    record = find(name)
    files = logfiles.files(_home(), record.name if record else name)
    if not files:
        raise BadRoute(f"There is no log of a pool named {name}. %infer pool list shows those that run.")
    lines: list[str] = []
    for file in files:
        lines += [f"== {file.name}", *tail(file, n)]
    return lines


def epitaph(name: str) -> str:
    """Why the pool of this name ended, in the words of its log; empty where it does not say."""
    return logfiles.epitaph(_home(), name)


def command(word: str) -> str:
    """The line that starts the pool of this name or model, as it was started last where that is known."""
    return logfiles.command(_home(), word)


def gauges(name: str) -> tuple[Gauge, ...]:
    """Memory of the pool's devices, now. Empty where it does not run or does not say."""
    info = glance(name)
    return info.memory if info else ()


def glance(name: str) -> PoolInfo | None:
    """One pool, now; None where it does not run."""
    record = find(name)
    return look(record) if record else None


def plan(model: str = EMBEDDED, **said: Any) -> dict[str, Any]:
    """Which dp, tp, pp and dtype of MODEL (or of a size such as 70B) fit, best first; nothing is loaded or fetched.

    Options: gpus (`4x24GB`; else this machine's devices), devices, dp, tp, pp, dtype, max_len, memory. Raises BadOption.
    """
    argv = [sys.executable, "-P", "-m", "holynb.pool.advice", _word(model), "--home", str(_home()), "--json"]
    for name, value in said.items():
        argv += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **_environment()})
    lines = done.stdout.strip().splitlines()
    found: dict[str, Any] = (
        json.loads(lines[-1]) if lines else {"error": (done.stderr.strip().splitlines() or ["the plan said nothing"])[-1]}
    )
    if "error" in found:
        raise BadOption(str(found["error"]))
    return {**found, "model": model, "says": found["says"].replace(_word(model), model)}


# -- starting ------------------------------------------------------------------------------------------------------
def _launch(wish: PoolOptions) -> None:
    """Start the server's process. Raises BadRoute where it cannot run here."""
    if not hasattr(socket, "AF_UNIX"):
        raise BadRoute(
            "The local pool needs Unix sockets, which this system's Python has not. Hosted routes work; for pools on Windows use WSL."
        )
    foreign = wish.engine == "vllm"
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None and not (foreign and name in _NATIVE)]
    if missing:
        raise BadRoute(f"The local pool needs {', '.join(missing)}: pip install 'holynb[local]'")
    home = _home()
    engine = ["holynb.pool.vllm", "--python", python_with_vllm(wish.python)] if foreign else ["holynb.pool.server"]
    argv = [sys.executable, "-P", "-m", *engine, "--tag", f"holynb-pool:{wish.called}", "--name", wish.called]
    argv += ["--model", _word(wish.model), "--home", str(home), "--devices", wish.places, "--memory", str(wish.memory)]
    argv += ["--idle", str(wish.idle), "--tp", str(wish.tp), "--pp", str(wish.pp), "--restart", str(wish.restart)]
    for flag, value in (("--dtype", wish.dtype), ("--max-len", wish.max_len), ("--port", wish.port), ("--micro", wish.micro_batches)):
        argv += [] if value is None else [flag, str(value)]
    try:
        _room(home / "run")
        child = spawn(Command(argv, env=_environment(), log=logfiles.begin(home, wish), cwd=home), bound=False)
    except OSError as exc:
        raise BadRoute(f"The pool {wish.called} cannot be started: {shortage.describe(exc)}") from exc
    _children[child.pid] = child


def _room(folder: Path) -> None:
    """Raises OSError where the disk is full: a pool that found out itself could write that nowhere."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_ROOM))
        file.flush()
        os.fsync(file.fileno())


def _await(name: str, notice: Notice, *, until_ready: bool) -> PoolInfo:
    """Wait until the pool is found, or ready. Raises BadRoute with its own words where it ends instead."""
    said, run, heard = "", _home() / "run", time.monotonic()
    while True:
        # Whether it still runs is asked before its file: else one that ends in between would be missed.
        dead = not any(c.alive for c in list(_children.values()) if name in c.command.argv)
        record = rendezvous.find(run, name)
        info = look(record) if record else None
        if info and (info.state == "ready" or not until_ready):
            return info
        if info is None and dead:
            _reap()
            words = logfiles.last_words(_home(), name) or "it said nothing"
            raise BadRoute(f"The pool {name} did not start: {words} (%infer pool logs {name})")
        if info and info.stage and info.state == "starting" and info.progress != said:
            said = info.progress
            notice(said)
        if info is None or info.state != "silent":
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENT_S:
            raise BadRoute(f"The pool {name} runs (process {info.pid}) and does not answer. End it: %infer pool stop {name}")
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    """Where this holynb is not installed but on a path of this process alone, the pool must find the same one."""
    place = str(Path(__file__).resolve().parents[2])
    if "site-packages" in place or "dist-packages" in place:
        return {}
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([place, *filter(None, [os.environ.get("PYTHONPATH")])]))}


def _word(model: str) -> str:
    """The MODEL as the pool records it: a path whole, so that it means the same from every folder."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() and model != EMBEDDED else model


# -- looking -------------------------------------------------------------------------------------------------------
def _found(name: str, *, wanted: bool = True) -> Record:
    """The running pool. Raises BadRoute that says how to start it, or where nobody wants it to run, what does."""
    record = find(name)
    if record is not None:
        return record
    records = rendezvous.listing(_home() / "run")[0]
    if (far := next((r for r in records if r.name == name and not r.here), None)) is not None:
        place = f"the machine {far.host}, which shares this home folder"
        raise BadRoute(f"pool/{name} is of {place}: go there. If that is no more, remove the file of the pool in {_home() / 'run'}.")
    running = [r.name for r in records if r.here]
    others = f"These run: {', '.join(f'pool/{n}' for n in running)}." if running else "No pool runs."
    after = f"Start it: {command(name)}" if wanted else others
    raise BadRoute(f"There is no running pool {name!r}.{closest(name, running)} {after}")


def _reap() -> None:
    """Bury the pools that this process started and that have ended."""
    for pid, child in list(_children.items()):
        if not child.alive:
            _children.pop(pid, None)  # two threads may look at once


def _home() -> Path:
    from holynb.config import settings

    return settings.home().resolve()
