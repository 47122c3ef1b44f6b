"""Which variables a cell reads: the notebook's, and those of the function that called the magic. Reads the call stack; changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any

__all__ = ["variables"]


def variables(shell: Any) -> Mapping[str, Any]:
    """The notebook's variables; before them those of the function that runs this magic by `run_cell_magic`, as Python would find them."""
    own: dict[str, Any] = shell.user_ns
    caller = _caller()
    if caller is None or caller.f_locals is own:
        return own
    scopes: list[Mapping[str, Any]] = []
    frame: FrameType | None = caller
    while frame is not None and frame.f_locals is not frame.f_globals:
        scopes.append(frame.f_locals)
        frame = _around(frame)
    visible = {**own, **(caller.f_globals if caller.f_globals is not own else {})}
    for scope in reversed(scopes):
        visible.update({name: value for name, value in scope.items() if not name.startswith(".")})  # .0 is what a comprehension runs over
    return visible


def _caller() -> FrameType | None:
    """The frame that called IPython's `run_cell_magic` or `run_line_magic`; None where the cell itself is what runs."""
    from IPython.core.interactiveshell import InteractiveShell

    entry_points = {_code(getattr(InteractiveShell, name, None)) for name in ("run_cell_magic", "run_line_magic", "magic")} - {None}
    cell = _code(InteractiveShell.run_code)
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the way to it
    while frame is not None and frame.f_code not in entry_points:
        if frame.f_code is cell:
            return None
        frame = frame.f_back
    while frame is not None and frame.f_code in entry_points:
        frame = frame.f_back
    return frame


def _around(frame: FrameType) -> FrameType | None:
    """The running function in which this one is written: of a comprehension, a lambda or a function inside another."""
    outer = frame.f_back
    while outer is not None and frame.f_code not in outer.f_code.co_consts:
        outer = outer.f_back
    return outer


def _code(function: Any) -> CodeType | None:
    return getattr(function, "__code__", None)
