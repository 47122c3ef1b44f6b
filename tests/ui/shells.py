"""A real IPython shell in this process, without a kernel, its history in memory, its output caught."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class CellResult:
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
    ip = InteractiveShell.instance(config=config)
    assert isinstance(ip.history_manager, HistoryManager)
    try:
        yield ip
    finally:
        if "_holynb" in vars(ip):
            from holynb.ui import magic

            magic.unload(ip)
        ip.restore_sys_module_state()
        InteractiveShell.clear_instance()


def run(ip: InteractiveShell, cell: str) -> CellResult:
    """Run a cell as a person would, output caught."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        result = ip.run_cell(cell, store_history=True)
    return CellResult(result, out.getvalue(), err.getvalue())


class Here:
    """A shell with holynb loaded: `here("%infer …")` runs a cell, `here["name"]` is what a name is bound to."""

    def __init__(self, ip: InteractiveShell) -> None:
        self.shell = ip

    def __call__(self, cell: str) -> CellResult:
        return run(self.shell, cell)

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def refused(self, cell: str) -> str:
        """The one line that a cell says which is refused; nothing else is said."""
        return one_line_error(self(cell))


def one_line_error(result: CellResult) -> str:
    """The only thing that was said."""
    assert result.error is not None
    assert result.out == ""
    assert "Traceback" not in result.err
    (line,) = result.err.strip().splitlines()
    assert line.startswith("UsageError: ")
    return line
