"""Replaces the display of a value that is on the page already; IPython still keeps it as `_` and `Out[n]`. Knows only the display hook."""

from __future__ import annotations

from typing import Any

__all__ = ["replace_display", "restore"]

#: Methods of the display hook that are overridden: one computes a value's display, the other prints `Out[n]:` in a terminal before it.
_FORMAT, _PROMPT = "compute_format_data", "write_output_prompt"


def replace_display(shell: Any, value: Any, text: str | None = None) -> None:
    """In the running cell, make the display hook show `text` (None: nothing) in place of `value`, and keep `value` as usual.

    Overriding `compute_format_data` is what IPython's DisplayHook offers for this. The override applies to this object in this cell and
    removes itself at the hook's next call, so `display(value)` and later cells show the frame as usual.
    """
    hook = shell.displayhook
    compute_format_data = type(hook).compute_format_data
    cell = shell.execution_count

    def once(result: Any) -> tuple[dict[str, str], dict[str, Any]]:
        restore(shell)
        replaced = result is value and shell.execution_count == cell
        if replaced and text is None:
            return {}, {}
        hook.write_output_prompt()
        if replaced and text is not None:
            return {"text/plain": text}, {}
        return compute_format_data(hook, result)  # type: ignore[no-any-return]

    setattr(hook, _FORMAT, once)
    # Delayed until it is known whether a display follows.
    setattr(hook, _PROMPT, lambda: None)


def restore(shell: Any) -> None:
    """Remove the overrides. Idempotent."""
    for name in (_FORMAT, _PROMPT):
        vars(shell.displayhook).pop(name, None)
