"""What this kernel and its front end can do, read from the given IPython shell. Imports no IPython and sends no messages.

Measured (JupyterLab 4.6): a widget click reaches an awaiting cell at once from ipykernel 7.4 on; in 7.3 only through subshells,
which a user may turn off; before that not until the cell ends. 7.0 breaks widget updates from threads.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Capabilities", "detect"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`front_end`: notebook, vscode, colab, console (a kernel, text only), terminal (IPython), none (nbclient, papermill, a script).

    widgets: live widgets can be shown and updated. clicks: a click is handled while an awaiting cell runs.
    asks: the user can be asked for input. ipykernel: its version, None outside a kernel.
    """

    front_end: str
    widgets: bool
    clicks: bool
    asks: bool
    ipykernel: tuple[int, ...] | None = None


def detect(shell: Any | None) -> Capabilities:
    """The capabilities of `shell` (`get_ipython()`; None in plain Python). Takes microseconds; call it again for each cell."""
    kernel = getattr(shell, "kernel", None)
    if shell is None or kernel is None:
        has_tty = sys.stdin is not None and sys.stdin.isatty()
        return Capabilities("terminal" if has_tty and shell is not None else "none", widgets=False, clicks=False, asks=has_tty)
    version = _version(sys.modules.get("ipykernel"))
    parent = _parent(kernel)
    # nbclient, and papermill and nbconvert through it, run cells with allow_stdin off; every interactive front end has it on.
    if not parent.get("content", {}).get("allow_stdin", True):
        return Capabilities("none", widgets=False, clicks=False, asks=False, ipykernel=version)
    front_end = _front_end(shell, parent)
    widgets = front_end in {"notebook", "vscode", "colab"} and version[:2] != (7, 0)
    return Capabilities(front_end, widgets, clicks=widgets and front_end == "notebook" and version >= (7, 4), asks=True, ipykernel=version)


def _front_end(shell: Any, parent: dict[str, Any]) -> str:
    if "google.colab" in sys.modules:
        return "colab"
    if "__vsc_ipynb_file__" in getattr(shell, "user_ns", {}) or "VSCODE_PID" in os.environ:
        return "vscode"
    # Lab and Notebook send the id of the cell they run; jupyter console has none.
    return "notebook" if parent.get("metadata", {}).get("cellId") or "deletedCells" in parent.get("metadata", {}) else "console"


def _parent(kernel: Any) -> dict[str, Any]:
    """The message that the kernel is handling now."""
    get_parent = getattr(kernel, "get_parent", None)
    parent = get_parent() if callable(get_parent) else None
    return parent if isinstance(parent, dict) else {}


def _version(module: Any) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", str(getattr(module, "__version__", "0.0")))
    return tuple(int(g or 0) for g in match.groups()) if match else (0, 0, 0)
