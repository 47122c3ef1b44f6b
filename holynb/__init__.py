"""holynb: send cells and DataFrames of prompts to hosted APIs or your own GPUs, from a notebook. Imports nothing heavy.

`%load_ext holynb` in a notebook; without a magic, `holynb.infer(prompts, "provider/model")`, and `holynb.read("NAME")` for an earlier run.
Public names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from holynb.errors import HolynbError, InferError, Interrupted, UserError
    from holynb.run import Run, infer, read

    last: Run | None
    runs: Sequence[Run]

__all__ = [
    "HolynbError",
    "InferError",
    "Interrupted",
    "Run",
    "UserError",
    "infer",
    "last",
    "load_ipython_extension",
    "read",
    "runs",
    "unload_ipython_extension",
]

__version__ = "0.2.0"

#: Public name → the module that defines it.
_MODULES = {
    "HolynbError": "holynb.errors",
    "InferError": "holynb.errors",
    "Interrupted": "holynb.errors",
    "UserError": "holynb.errors",
    "Run": "holynb.run",
    "infer": "holynb.run",
    "read": "holynb.run",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of these, misspelt ones too

    def __getattr__(name: str) -> Any:
        """The public names; `last` (the last run) and `runs` (those of the session) are read anew each time."""
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        if name in ("last", "runs"):
            return getattr(import_module("holynb.run.session"), name)()
        raise AttributeError(f"module 'holynb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext holynb`: registers the magics. Prints nothing, opens no socket."""
    from holynb.ui import magic

    magic.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext holynb`: ends the session's runs, the I/O thread and the run log's writer, and unregisters the magics."""
    from holynb.ui import magic

    magic.unload(shell)
