"""The Python of an environment that has vLLM, as `pool start --engine vllm --python PATH` names it. Asks that Python; imports nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from holynb.errors import BadOption

__all__ = ["python_with_vllm"]

_ASK = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('vllm') else 7)"
#: What belongs to this environment and would lead the other one astray.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def python_with_vllm(named: str | None) -> str:
    """The path of that Python: the one named (or of the environment's folder that is named), else this one. Raises BadOption."""
    path = Path(named or sys.executable).expanduser()
    path = next((p for p in (path / "bin" / "python", path / "Scripts" / "python.exe") if p.is_file()), path)
    if not path.is_file():
        raise BadOption(
            f"--python {named}: there is no such Python. Name that of the environment that has vLLM, such as /opt/vllm/bin/python."
        )
    # Not resolved: the link in an environment's bin is what makes it that environment.
    python = str(path.absolute())
    env = {k: v for k, v in os.environ.items() if k not in _OURS}
    try:
        done = subprocess.run([python, "-c", _ASK], env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BadOption(f"--python {named}: it cannot be run ({getattr(exc, 'strerror', None) or 'no answer within 60 s'}).") from exc
    if done.returncode == 7:
        where = f"--python {named}" if named else "--engine vllm"
        raise BadOption(
            f"{where}: there is no vLLM in that environment. Install it in one of its own (pip install vllm), and name its Python."
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise BadOption(f"--python {named}: it is no Python that runs: {last[:200]}")
    return python
