"""The GPUs: which there are, as the driver says it, and whether the installed torch can compute on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from holynb import units
from holynb.doctor.check import Check, installed

__all__ = ["gpu"]

#: A driver that nothing keeps loaded initialises each GPU for seconds.
_ASK_S = 30.0
#: Torch is read from disk, and a CUDA context made.
_OPEN_S = 120.0

#: In a process of its own: a context holds memory of the GPU, and a broken driver may end the process.
_OPEN = """
import json, torch
facts = {"cuda": torch.version.cuda, "count": 0, "error": ""}
try:
    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    facts["count"] = torch.cuda.device_count()
except Exception as exc:
    facts["error"] = f"{type(exc).__name__}: {exc}"
print(json.dumps(facts))
"""


def gpu() -> Iterator[Check]:
    if shutil.which("nvidia-smi") is None or not _devices():
        yield Check("GPU", "absent", "none found; pools run on the CPU")
        return
    try:
        cards, driver = _cards()
    except (OSError, ValueError) as exc:
        yield Check("GPU", "broken", f"found, but {exc}", "nvidia-smi; after an update of the driver restart the machine")
        return
    yield _usable(f"{cards}, driver {driver}", driver)


def _devices() -> list[Path]:
    return list(Path("/dev").glob("nvidia[0-9]*"))


def _cards() -> tuple[str, str]:
    """The GPUs, such as `2x NVIDIA H200 (151 GB each)`, and their driver. Raises OSError, ValueError where the driver does not answer."""
    argv = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_ASK_S)
    except subprocess.TimeoutExpired:
        raise OSError(f"nvidia-smi does not answer within {_ASK_S:.0f} s") from None
    rows = [[word.strip() for word in line.rsplit(",", 2)] for line in done.stdout.splitlines() if line.count(",") >= 2]
    if done.returncode or not rows:
        raise ValueError(f"nvidia-smi says: {' '.join((done.stdout + done.stderr).split())[:200] or 'nothing'}")
    parts = []
    for (name, memory), count in Counter((name, memory) for name, memory, _ in rows).items():
        size = f" ({units.memory(int(memory) * 2**20)}{' each' * (count > 1)})" if memory.isdigit() else ""
        parts.append(f"{f'{count}x ' * (count > 1)}{name}{size}")
    return ", ".join(parts), rows[0][2]


def _usable(cards: str, driver: str) -> Check:
    """Whether the installed torch computes on them."""
    torch = installed("torch")
    if torch is None:
        return Check("GPU", "absent", f"{cards}; no torch that could use it", "pip install 'holynb[local]'")
    cuda, count, error = (None, 0, "") if "+cpu" in torch else _opened()
    if cuda is None and not error:
        # The version that is there, from the package index, where Linux' wheels are built with CUDA.
        cure = f"pip install --force-reinstall torch=={torch.partition('+')[0]}"
        return Check("GPU", "broken", f"{cards}; but torch {torch} is built for CPUs alone", cure)
    built = f"torch {torch}" + (f" (CUDA {cuda})" if cuda else "")
    if "driver" in error and "too old" in error:
        cure = "a newer NVIDIA driver, or a torch for an older CUDA: https://pytorch.org/get-started/locally"
        return Check("GPU", "broken", f"{cards}; the driver {driver} is too old for {built}", cure)
    if error:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        cure = f"CUDA_VISIBLE_DEVICES is {hidden!r}: unset it, or name GPUs that are there" if hidden is not None else "nvidia-smi"
        return Check("GPU", "broken", f"{cards}; {built} cannot compute there: {error}", cure)
    return Check("GPU", "works", f"{cards}; {built} computes on {count}; pools use GPUs unless started with --devices cpu")


def _opened() -> tuple[str | None, int, str]:
    """What CUDA torch is built with, None for none; how many GPUs it has; why it cannot compute there, or an empty string."""
    try:
        done = subprocess.run([sys.executable, "-P", "-c", _OPEN], capture_output=True, text=True, check=False, timeout=_OPEN_S)
    except subprocess.TimeoutExpired:
        return None, 0, f"no answer within {_OPEN_S:.0f} s"
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return None, 0, last[:200]
    error = " ".join(str(answer["error"]).split())[:200]
    return answer["cuda"], int(answer["count"]), error if answer["cuda"] else ""
