"""Checks the Python of a vLLM environment (`pool start --engine vllm --python PATH`). Runs that Python; imports nothing of it."""

from __future__ import annotations

import subprocess
import sys

from holynb import typed_path
from holynb.errors import BadOption
from holynb.pools import environment

__all__ = ["python_with_vllm"]

_HAS_VLLM = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('vllm') else 7)"
#: Environment variables not passed on: they would make the other Python import from this environment.
_DROPPED_ENV = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def python_with_vllm(named: str | None) -> str:
    """The path of that Python: `named` (a Python or an environment's folder), else this one. Raises BadOption."""
    path = typed_path.typed(named or sys.executable)
    path = next((p for p in (path / "bin" / "python", path / "Scripts" / "python.exe") if typed_path.is_file(p)), path)
    if not typed_path.is_file(path):
        raise BadOption(f"--python {named}: there is no such Python. Give that of the environment with vLLM, such as /opt/vllm/bin/python.")
    # Not resolved: the link in an environment's bin is what makes it that environment.
    python = str(path.absolute())
    env = {k: v for k, v in environment.inherited("").items() if k not in _DROPPED_ENV}
    try:
        done = subprocess.run([python, "-c", _HAS_VLLM], env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BadOption(f"--python {named}: it cannot be run ({getattr(exc, 'strerror', None) or 'no answer within 60 s'}).") from exc
    if done.returncode == 7:
        where = f"--python {named}" if named else "--engine vllm"
        raise BadOption(
            f"{where}: there is no vLLM in that environment. Install it in one of its own (pip install vllm), and name its Python."
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise BadOption(f"--python {named}: it is not a working Python: {last[:200]}")
    return python
