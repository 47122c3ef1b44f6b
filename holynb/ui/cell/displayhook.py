"""A value whose display is on the page already: IPython keeps it as `_` and `Out[n]`, and shows no second table of it. Knows the display hook."""

from __future__ import annotations

from typing import Any

__all__ = ["already", "forget"]

#: What is done to the display hook: where it asks for a value's display, and where a terminal is told `Out[n]:` just before.
_HOOK, _PROMPT = "compute_format_data", "write_output_prompt"


def already(shell: Any, value: Any, text: str | None = None) -> None:
    """Let the display hook, in the cell that runs now, keep `value` without its own display; with `text`, show that instead.

    Overriding `compute_format_data` is what IPython's DisplayHook offers for this. It acts on this very object in this very cell, and
    takes itself away at the hook's next call, so `display(value)` and any later cell show the frame as ever.
    """
    hook = shell.displayhook
    usual = type(hook).compute_format_data
    cell = shell.execution_count

    def once(result: Any) -> tuple[dict[str, str], dict[str, Any]]:
        forget(shell)
        ours = result is value and shell.execution_count == cell
        if ours and text is None:
            return {}, {}
        hook.write_output_prompt()
        if ours and text is not None:
            return {"text/plain": text}, {}
        return usual(hook, result)  # type: ignore[no-any-return]

    setattr(hook, _HOOK, once)
    # Held back until it is known whether anything stands beside it.
    setattr(hook, _PROMPT, lambda: None)


def forget(shell: Any) -> None:
    """Give the display hook its own methods back."""
    for name in (_HOOK, _PROMPT):
        vars(shell.displayhook).pop(name, None)
