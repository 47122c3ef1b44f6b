"""A real IPython shell in this process, without a kernel, its history in memory, its output caught."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class Ran:
    """What a cell printed and gave."""

    def __init__(self, result: Any, out: str, err: str) -> None:
        self.result, self.out, self.err = result, out, err
        self.value = result.result
        self.error = result.error_in_exec or result.error_before_exec


@contextmanager
def shell() -> Iterator[InteractiveShell]:
    """A shell of its own, `get_ipython()` inside it; gone afterwards."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    made = InteractiveShell.instance(config=config)
    assert isinstance(made.history_manager, HistoryManager)
    try:
        yield made
    finally:
        if "_holynb" in vars(made):
            from holynb.ui import magic

            magic.unload(made)
        made.restore_sys_module_state()
        InteractiveShell.clear_instance()


def run(made: InteractiveShell, cell: str) -> Ran:
    """Run a cell as a person would, output caught."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        result = made.run_cell(cell, store_history=True)
    return Ran(result, out.getvalue(), err.getvalue())


class Here:
    """A shell with holynb loaded: `here("%infer …")` runs a cell, `here["name"]` is what a name is bound to."""

    def __init__(self, made: InteractiveShell) -> None:
        self.shell = made

    def __call__(self, cell: str) -> Ran:
        return run(self.shell, cell)

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def refused(self, cell: str) -> str:
        """The one line that a cell says which is refused; nothing else is said."""
        return one_line_error(self(cell))


def one_line_error(done: Ran) -> str:
    """The only thing that was said."""
    assert done.error is not None
    assert done.out == ""
    assert "Traceback" not in done.err
    (line,) = done.err.strip().splitlines()
    assert line.startswith("UsageError: ")
    return line
