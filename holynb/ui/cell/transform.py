"""Rewrites `%%infer …` to `await …`, so that clicks and interrupts reach a cell that waits. Knows cells as text; runs nothing.

It rewrites only what the shell is about to run at top level on asyncio. Nested in `%%time`, `%%capture` or `run_cell` an awaited rewrite
cannot run ("'await' outside function", "event loop is already running"), and the synchronous magic of the same name takes over. The call
stack says which it is: unlike a count of `pre_execute` and `post_execute` it is right for an extension loaded by the very cell that runs, for
callers that forget the second event, and for widget callbacks between two cells.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["ATTRIBUTE", "AWAITED", "install", "remove", "rewrite"]

#: Where the rewritten cell finds us: an attribute of the shell.
ATTRIBUTE = "_holynb"
#: Line commands that wait for a run, and so are awaited where they stand alone.
AWAITED = ("run", "resume", "bench")

_CELL = re.compile(r"%%(?:infer|holynb)(?=[ \t\r\n]|$)(?P<line>[^\r\n]*)")
_LINE = re.compile(rf"\s*%(?:infer|holynb)[ \t]+(?P<line>(?:{'|'.join(AWAITED)})(?:[ \t][^\r\n]*)?)\s*")

Transform = Callable[[list[str]], list[str]]


def rewrite(lines: list[str]) -> list[str]:
    """The cell as `await …` where it is one of ours, else as it is."""
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return lines
    mine = _dedent(lines[first:])
    if (found := _CELL.match(mine[0])) is not None:
        return [f"await get_ipython().{ATTRIBUTE}.acell({found['line'].strip()!r}, {''.join(mine[1:])!r})\n"]
    if (found := _LINE.fullmatch("".join(mine))) is not None and not found["line"].rstrip().endswith("?"):
        return [f"await get_ipython().{ATTRIBUTE}.aline({found['line'].strip()!r})\n"]
    return lines


def install(shell: Any) -> Transform:
    """Put the transform first. Returns it, for `remove`."""

    def transform(lines: list[str]) -> list[str]:
        return rewrite(lines) if _may_await(shell) else lines

    # `check_complete` must go on seeing a cell magic, or a terminal would send it off after its first line.
    transform.has_side_effects = True  # type: ignore[attr-defined]
    shell.input_transformers_cleanup.insert(0, transform)
    return transform


def remove(shell: Any, transform: Transform) -> None:
    """Take it out again; nothing where it is gone already."""
    if transform in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(transform)


def _may_await(shell: Any) -> bool:
    """Whether the cell being transformed will run at top level on asyncio."""
    from IPython.core.interactiveshell import InteractiveShell, _asyncio_runner  # type: ignore[attr-defined]

    if not shell.autoawait or shell.loop_runner is not _asyncio_runner:
        return False
    code_runner, door = _code(InteractiveShell.run_code), _code(getattr(InteractiveShell, "_run_cell", None))
    frame = inspect.currentframe()
    through_door = False
    while frame is not None:
        if frame.f_code is code_runner:
            return False  # inside a cell that executes
        through_door = through_door or frame.f_code is door
        frame = frame.f_back
    # `run_cell` starts a loop of its own to await in: impossible inside a running one, and not ours to try in other threads.
    return not through_door or (not _loop_runs() and threading.current_thread() is threading.main_thread())


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _code(function: Any) -> CodeType | None:
    return getattr(function, "__code__", None)


def _dedent(lines: list[str]) -> list[str]:
    """Without the first line's indent on every line that has it, as IPython does before it looks for magics."""
    indent = re.match(r"[ \t]*", lines[0]).group()  # type: ignore[union-attr]
    return [line[len(indent) :] if indent and line.startswith(indent) else line for line in lines]
