"""Rewrites `%%infer …` to `await …`, so that clicks and interrupts reach a waiting cell. Knows cells as text; runs nothing.

It rewrites only what the shell is about to run at top level on asyncio. Nested in `%%time`, `%%capture` or `run_cell` an awaited rewrite
cannot run ("'await' outside function", "event loop is already running"), and the synchronous magic of the same name takes over. The call
stack tells the two apart: unlike a count of `pre_execute` and `post_execute` it is right for an extension loaded by the running cell,
for callers that omit the second event, and for widget callbacks between two cells.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import tokenize
from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["ATTRIBUTE", "AWAITED", "install", "remove", "rewrite", "unasked", "uncovered"]

#: Attribute of the shell through which the rewritten cell reaches the magics.
ATTRIBUTE = "_holynb"
#: Line commands that wait for a run: awaited if alone in their cell.
AWAITED = ("run", "resume", "bench")

_CELL = re.compile(r"%%(?:infer|holynb)(?=[ \t\r\n]|$)(?P<line>[^\r\n]*)")
_MAGIC = re.compile(r"%%(?:infer|holynb)(?=[ \t\r\n?]|$)")
_LINE = re.compile(rf"\s*%(?:infer|holynb)[ \t]+(?P<line>(?:{'|'.join(AWAITED)})(?:[ \t][^\r\n]*)?)\s*")

#: A line that IPython would take for a question about its last word, and answer itself.
_ASKED = re.compile(r"(?P<indent>[ \t]*)%(?P<name>infer|holynb)[ \t]+(?P<line>[^\r\n]*[^?\s][ \t]*\?{1,2})\s*")

Transform = Callable[[list[str]], list[str]]


def uncovered(lines: list[str]) -> list[str]:
    """The cell without blank lines, comments and a byte order mark above its `%%infer`, which IPython looks for in the first line alone."""
    cell = [lines[0].removeprefix("\ufeff"), *lines[1:]] if lines else lines
    first = next((i for i, line in enumerate(cell) if line.strip() and not line.lstrip().startswith("#")), None)
    if first is None or not _MAGIC.match(cell[first].lstrip(" \t")):
        return lines
    return _dedent(cell[first:])


def rewrite(lines: list[str]) -> list[str]:
    """The cell as `await …` if it is one of these magics, else unchanged."""
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return lines
    cell = _dedent(uncovered(lines[first:]))
    if (match := _CELL.match(cell[0])) is not None:
        return [f"await get_ipython().{ATTRIBUTE}.acell({match['line'].strip()!r}, {''.join(cell[1:])!r})\n"]
    if (match := _LINE.fullmatch("".join(cell))) is not None and not match["line"].rstrip().endswith("?"):
        return [f"await get_ipython().{ATTRIBUTE}.aline({match['line'].strip()!r})\n"]
    return lines


def unasked(lines: list[str]) -> list[str]:
    """The cell with `%infer some words?` as a call of the magic, which says what to do with it."""
    first = next((line.lstrip() for line in lines if line.strip()), "")
    if first.startswith("%%"):
        return lines
    matches = {i: match for i, line in enumerate(lines) if (match := _ASKED.fullmatch(line)) and not _in_a_string(lines[:i])}
    calls = {i: f"{m['indent']}get_ipython().run_line_magic({m['name']!r}, {m['line']!r})\n" for i, m in matches.items()}
    return [calls.get(i, line) for i, line in enumerate(lines)]


def _in_a_string(before: list[str]) -> bool:
    """Whether these lines end inside a string of several lines."""
    try:
        list(tokenize.generate_tokens(iter(before).__next__))
    except tokenize.TokenError as exc:
        return "string" in str(exc)
    except SyntaxError:  # magics among them
        pass
    return False


def install(shell: Any) -> Transform:
    """Insert the transforms before all others. Returns the one of this shell, for `remove`."""

    def transform(lines: list[str]) -> list[str]:
        return rewrite(lines) if _may_await(shell) else lines

    # Skipped by `check_complete`, which must see a cell magic, or a terminal would submit it after its first line.
    transform.has_side_effects = True  # type: ignore[attr-defined]
    shell.input_transformers_cleanup[:0] = [uncovered, transform, unasked]
    return transform


def remove(shell: Any, transform: Transform) -> None:
    """Remove the transforms. Idempotent."""
    for each in (uncovered, transform, unasked):
        if each in shell.input_transformers_cleanup:
            shell.input_transformers_cleanup.remove(each)


def _may_await(shell: Any) -> bool:
    """Whether the cell being transformed will run at top level on asyncio."""
    from IPython.core.interactiveshell import InteractiveShell, _asyncio_runner  # type: ignore[attr-defined]

    if not shell.autoawait or shell.loop_runner is not _asyncio_runner:
        return False
    run_code, run_cell = _code(InteractiveShell.run_code), _code(getattr(InteractiveShell, "_run_cell", None))
    frame = inspect.currentframe()
    in_run_cell = False
    while frame is not None:
        if frame.f_code is run_code:
            return False  # inside a cell that is executing
        in_run_cell = in_run_cell or frame.f_code is run_cell
        frame = frame.f_back
    # `run_cell` starts an event loop to await in: impossible inside a running one, and not attempted in other threads.
    return not in_run_cell or (not _is_loop_running() and threading.current_thread() is threading.main_thread())


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _code(function: Any) -> CodeType | None:
    return getattr(function, "__code__", None)


def _dedent(lines: list[str]) -> list[str]:
    """Remove the first line's indent from each line that has it, as IPython does before it looks for magics."""
    indent = re.match(r"[ \t]*", lines[0]).group()  # type: ignore[union-attr]
    return [line[len(indent) :] if indent and line.startswith(indent) else line for line in lines]
